"""Which window flows: the second one only behind a promotion that stands, and never in scope spine."""

from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts.fold import RunState
from fp_contracts.runconfig import RunConfig, RunHeader, Window, config_digest
from fp_contracts.topics import RTDL
from fp_contracts.windows import flowing, may_begin, switches_passed

RUN, HEX = "platform_20260101T000000Z", "a" * 64
WINDOWS = (Window(start_us=0, end_us=90), Window(start_us=90, end_us=120))
ENDED = c.WindowEnded(window=1, lane_seqs={}, ledger_ref=c.EvidenceRef(key="k", sha256=HEX, size=1))


def state_of(
    scope: str = "full", windows: tuple[Window, ...] = WINDOWS, lanes: int = 6, **known: Any
) -> RunState:  # fmt: skip
    config = RunConfig.model_validate(
        {
            "profile": "local", "scope": scope, "manifest_fingerprint": HEX, "windows": windows,
            "feature_schema_digest": HEX, "policies": {}, "policy_initial": "p", "authority_digest": HEX,
            "handles_digest": HEX, "image_manifest_digest": HEX, "price_table_digest": HEX, "envelopes": (),
        }
    )  # fmt: skip
    header = RunHeader(
        platform_run_id=RUN, scenario_run_id="b" * 32, config=config, run_config_digest=config_digest(config),
        start_offsets={RTDL: {str(part): 0 for part in range(lanes)}}, lane_writers={}, pinned_us=1, pin_partition=0,
        pin_offset=0,
    )  # fmt: skip
    return RunState(RUN, header=header, ready=("r",), **known)


def switched(part: int, **changes: Any) -> c.BundleSwitched:
    values: dict[str, Any] = {
        "bundle_slot": "payment_fraud", "revision": 1, "bundle_ref": "bundle:x", "source": "global",
        "effective_us": 90, "partition": part, "merged_n": 3,
    }  # fmt: skip
    return c.BundleSwitched(**(values | changes))


ALL = tuple(switched(part) for part in range(6))


def test_the_first_window_flows_from_ready_on_until_it_ended() -> None:
    assert flowing(RunState(RUN)) is None
    assert flowing(state_of()) == 1
    assert flowing(state_of("spine", WINDOWS[:1])) == 1
    assert flowing(state_of(windows_ended={1: ENDED})) is None


def test_the_second_window_flows_behind_the_promotion() -> None:
    assert flowing(state_of(windows_ended={1: ENDED}, bundles=ALL)) == 2
    both = {1: ENDED, 2: ENDED.model_copy(update={"window": 2})}
    assert flowing(state_of(windows_ended=both, bundles=ALL)) is None


@pytest.mark.parametrize(
    "bundles",
    [
        ALL[:5],
        (*ALL[:5], switched(5, bundle_ref=None, source="guardrails", reason="corrupt")),
        (*ALL[:5], switched(5, bundle_ref=None)),
        (*ALL[:5], switched(5, source="fallback")),
        (*ALL[:5], switched(5, effective_us=100, revision=2)),
    ],
    ids=[
        "a partition is silent",
        "one is on guardrails",
        "one names no bundle",
        "one is on the fallback",
        "one reported another switch",
    ],
)
def test_a_promotion_that_does_not_stand_everywhere_begins_nothing(bundles: tuple[c.BundleSwitched, ...]) -> None:
    assert not may_begin(state_of(windows_ended={1: ENDED}, bundles=bundles), 2)


def test_nothing_flows_twice_out_of_turn_or_out_of_scope() -> None:
    assert not may_begin(state_of(bundles=ALL), 2)
    assert not may_begin(state_of("spine", windows_ended={1: ENDED}, bundles=ALL), 2)
    assert not may_begin(state_of(windows=WINDOWS[:1], windows_ended={1: ENDED}, bundles=ALL), 2)
    assert not may_begin(state_of(windows_ended={1: ENDED}, bundles=ALL), 3)


def test_no_partition_is_held_once_each_reported_every_switch() -> None:
    times = (90, 100, 105)
    said = tuple(switched(part, effective_us=at, revision=n) for n, at in enumerate(times, 1) for part in range(6))
    assert switches_passed(state_of(bundles=said))
    assert not switches_passed(state_of(bundles=said[:-1]))
    assert not switches_passed(state_of("spine", WINDOWS[:1], bundles=said))


def test_the_run_s_header_says_how_many_partitions_must_report() -> None:
    two = (switched(0), switched(1))
    assert flowing(state_of(windows_ended={1: ENDED}, bundles=two)) is None
    assert flowing(state_of(lanes=2, windows_ended={1: ENDED}, bundles=two)) == 2
    assert flowing(state_of(lanes=2, windows_ended={1: ENDED}, bundles=two[:1])) is None
