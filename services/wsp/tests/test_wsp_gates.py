"""P3 and P6: each broken thing alone blocks with its code; silence of a gateway is not "no unknowns"."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fp_contracts.control import EvidenceRef, ServiceHeartbeat, WaiverGranted, WindowEnded
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.fold import RunState
from fp_contracts.phases import PHASES
from fp_contracts.runconfig import RunConfig, RunHeader, config_digest
from fp_contracts.waivers import Waiver
from fp_wsp.gates import StreamFacts, WorldFacts, evaluate_p3, evaluate_p6
from fp_wsp.member import Shared, Streaming
from fp_wsp.world import Payment, TruthRow
from fp_wsp.world_store import World

RUN, NEXT = "platform_20260101T000000Z", "platform_20260101T000001Z"
HEX = "0" * 64
MOVING = StreamFacts(
    sent=20, classed=15, before=10, ended=False, lag_ms=5, lag_limit_ms=10_000, open_unknowns=0, lanes={"0": 15},
    rate_per_s=100,
)  # fmt: skip


def _failed(evaluation: Evaluation) -> list[Predicate]:
    return [predicate for predicate in evaluation.predicates if not predicate.ok]


@pytest.fixture
def world(
    make_payments: Callable[..., list[Payment]], make_truth: Callable[..., list[TruthRow]],
    seal: Callable[..., tuple[World, object]],
) -> WorldFacts:  # fmt: skip
    payments = make_payments(10)
    manifest = seal(payments, make_truth(payments))[0].manifest
    return WorldFacts(manifest.fingerprint, manifest, ())


def test_a_sound_world_passes(world: WorldFacts) -> None:
    evaluation = evaluate_p3(world)
    assert _failed(evaluation) == []
    assert set(evaluation.documents) == set(PHASES["P3"].evidence)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"pinned": HEX}, "DFULL-RUN-B3"),
        ({"problems": (("FILE_MISSING", "stream/0", "gone"),)}, "DFULL-RUN-B3"),
        ({"problems": (("HASH_DIFFERS", "stream/0", "x"),)}, "DFULL-RUN-B3"),
        ({"problems": (("UNSORTED", "stream/0", "row 3"),)}, "DFULL-RUN-B3.1"),
        ({"problems": (("TRUTH_IN_STREAM", "stream/0", "is_fraud"),)}, "DFULL-RUN-B3.1"),
    ],
)
def test_a_broken_world_blocks(world: WorldFacts, change: dict[str, object], code: str) -> None:
    evaluation = evaluate_p3(replace(world, **change))  # type: ignore[arg-type]
    assert [predicate.code for predicate in _failed(evaluation)] == [code]
    assert evaluation.settled()


def test_a_world_that_is_not_there_blocks() -> None:
    evaluation = evaluate_p3(WorldFacts(HEX, None, (), "no manifest"))
    assert {predicate.code for predicate in _failed(evaluation)} == {"DFULL-RUN-B3"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"before": 15}, "DFULL-RUN-B6"),
        ({"lag_ms": 10_001}, "DFULL-RUN-B6"),
        ({"ended": True, "classed": 0, "before": 0}, "DFULL-RUN-B6"),
        ({"open_unknowns": 1}, "DFULL-RUN-B6.1"),
        ({"open_unknowns": None}, "DFULL-RUN-B6.1"),
    ],
)
def test_a_stream_that_is_not_well_blocks_but_may_recover(change: dict[str, object], code: str) -> None:
    evaluation = evaluate_p6(replace(MOVING, **change))  # type: ignore[arg-type]
    assert [predicate.code for predicate in _failed(evaluation)] == [code]
    assert not evaluation.settled()


@pytest.mark.parametrize(
    "change", [{}, {"ended": True, "before": 15}, {"ended": True, "classed": 0, "before": 0, "waived_empty": True}]
)
def test_a_stream_that_is_well_passes(change: dict[str, object]) -> None:
    evaluation = evaluate_p6(replace(MOVING, **change))  # type: ignore[arg-type]
    assert _failed(evaluation) == []
    assert set(evaluation.documents) == set(PHASES["P6"].evidence)


class Facts:
    """A streaming member: saved classes, a clock, and the heartbeat of its one gateway."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.shared = Shared(run=RUN, streaming=True)
        self.saved: dict[int, int] = {}
        self.at_us = 100_000_000
        self.p6 = Streaming(self.shared, lambda _: self.saved, lambda: self.at_us)

    def state(self, run: str = RUN, beat_us: int | None = 100_000_000, **metrics: int) -> RunState:
        header = RunHeader(
            platform_run_id=run, scenario_run_id="b" * 32, config=self.config,
            run_config_digest=config_digest(self.config), start_offsets={}, lane_writers={"0": "ig-0", "1": "ig-0"},
            pinned_us=1, pin_partition=0, pin_offset=0,
        )  # fmt: skip
        if beat_us is None:
            return RunState(run, header=header)
        beat = ServiceHeartbeat(
            service="ig", instance="ig-0", run_config_digest=HEX, build_digest=HEX, profile="local", ready=True,
            telemetry_us=beat_us, at_us=beat_us, metrics=metrics,
        )  # fmt: skip
        return RunState(run, header=header, heartbeats={"ig-0": beat})

    def blockers(self, state: RunState) -> list[str] | None:
        found = self.p6(state)
        return None if found is None else [predicate.name for predicate in _failed(found)]


@pytest.fixture
def facts(make_payments: Callable[..., list[Payment]], make_config: Callable[..., RunConfig]) -> Facts:
    return Facts(make_config(make_payments(3)))


def test_movement_takes_two_looks(facts: Facts) -> None:
    facts.saved = {0: 50}
    state = facts.state(open_unknown=0)
    assert facts.blockers(state) is None
    assert facts.blockers(state) == ["counters move"]
    facts.saved = {0: 50, 1: 1}
    assert facts.blockers(state) == []


def test_another_run_or_no_stream_has_nothing_to_say(facts: Facts) -> None:
    facts.saved = {0: 50}
    assert facts.blockers(facts.state(NEXT, open_unknown=0)) is None
    facts.shared.streaming = False
    assert facts.blockers(facts.state(open_unknown=0)) is None


def test_what_a_run_before_classed_is_no_movement(facts: Facts) -> None:
    facts.saved = {0: 50}
    facts.p6(facts.state(open_unknown=0))
    facts.shared.run = NEXT
    facts.saved = {0: 60}
    assert facts.blockers(facts.state(NEXT, open_unknown=0)) is None


@pytest.mark.parametrize(("waiver", "lasts_us", "found"), [
    (Waiver.EMPTY_RUN, 1, []), (Waiver.EMPTY_RUN, 0, ["counters move"]), (Waiver.NON_REGRESSION, 1, ["counters move"]),
])  # fmt: skip
def test_a_run_without_traffic_takes_a_waiver_of_that_name_in_force(
    facts: Facts, waiver: Waiver, lasts_us: int, found: list[str]
) -> None:
    granted = WaiverGranted(waiver=waiver, actor="ana", reason="no payments", expires_us=facts.at_us + lasts_us)
    facts.shared.ended = {1: WindowEnded(window=1, lane_seqs={}, ledger_ref=EvidenceRef(key="k", sha256=HEX, size=0))}
    state = replace(facts.state(open_unknown=0), waivers=(granted,))
    facts.p6(state)
    assert facts.blockers(state) == found


@pytest.mark.parametrize("seconds", [31, None])
def test_a_gateway_that_is_silent_is_not_free_of_unknowns(facts: Facts, seconds: int | None) -> None:
    beat_us = None if seconds is None else facts.at_us - seconds * 1_000_000
    facts.saved = {0: 1}
    facts.p6(facts.state(open_unknown=0))
    facts.saved = {0: 2}
    assert facts.blockers(facts.state(beat_us=beat_us, open_unknown=0)) == ["open unknowns"]
    facts.saved = {0: 3}
    assert facts.blockers(facts.state()) == ["open unknowns"]


def test_unknowns_and_doubt_count(facts: Facts) -> None:
    facts.saved = {0: 1}
    facts.p6(facts.state(open_unknown=0))
    facts.saved = {0: 2}
    assert facts.blockers(facts.state(open_unknown=1)) == ["open unknowns"]
    facts.saved = {0: 3}
    facts.shared.board.in_doubt.add(1)
    assert facts.blockers(facts.state(open_unknown=0)) == ["open unknowns"]


def test_a_stall_is_lag(facts: Facts) -> None:
    facts.saved = {0: 1}
    facts.p6(facts.state(open_unknown=0))
    facts.saved = {0: 2}
    facts.shared.board.waiting_since[0] = -1e9
    assert facts.blockers(facts.state(open_unknown=0)) == ["lag"]


def test_a_world_sent_whole_is_judged_at_its_end(facts: Facts) -> None:
    facts.saved = {0: 5}
    ref = EvidenceRef(key="k", sha256=HEX, size=1)
    facts.shared.ended[1] = WindowEnded(window=1, lane_seqs={"0": 5}, ledger_ref=ref)
    facts.p6(facts.state(open_unknown=0))
    assert facts.blockers(facts.state(open_unknown=0)) == []
