"""A bundle decides from its pinned event time on: held, resolved, journaled, whatever batches, restarts and order."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fp_contracts import registry as r
from fp_contracts import topics
from fp_contracts.bundle import BundleRef
from fp_contracts.control import BundleSwitched, EvidenceRef
from fp_contracts.fold import RunState
from fp_contracts.header import NONE_TS, Kind
from fp_df import catalogue, sample, service
from fp_df.domain import Switch
from fp_df.marks import Truth
from fp_df.member import Shared
from fp_df.plan import plan_of
from fp_df.serving import NOTHING, BundlePlan, Switchboard
from fp_runtime.bus import Out
from fp_runtime.errors import Unavailable
from fp_runtime.failpoint import FailpointRaised, arm
from fp_runtime.telemetry import Metric

from .learning import REGISTRY_PART, SCOPE, SERVING, T1, TIMES, WINDOWS, Learning, boosted, make
from .test_restart import check, told

GUARDED = {None}


@pytest.fixture(scope="module")
def switched(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one undisturbed member makes of a promotion, a rollback and a re-promotion."""
    learning = make(kit, tmp_path_factory.mktemp("bundles"), times=TIMES.ascending())
    learning.settle_all(learning.bundle())
    learning.run()
    return learning.world.results()


def reports(learning: Learning, decider: Any, state: RunState | None = None) -> list[BundleSwitched]:
    shared = Shared(decider, learning.world.plan)
    events = [event for event, _ in shared.react(state or RunState(sample.RUN))]
    return [event for event in events if isinstance(event, BundleSwitched)]


def test_only_a_full_run_with_two_windows_has_switches(run_header: Any) -> None:
    known = catalogue.policies()
    header = run_header({rev: digest for rev, (_, digest) in known.items()})

    def planned(**changed: Any) -> Any:
        config = header.config.model_copy(update=changed)
        return plan_of(header.model_copy(update={"config": config}), known)

    two = planned(scope="full", windows=WINDOWS)
    assert two.bundles.times == TIMES.ascending() == two.switch_times()[1:]
    assert (two.bundles.scope, two.bundles.partition) == (SCOPE, REGISTRY_PART)
    assert planned(scope="full").bundles.times == ()
    assert planned(scope="spine", windows=WINDOWS).bundles is None


def test_one_window_holds_nothing_and_gives_the_bytes_of_a_spine_run(kit: Any, tmp_path: Path, expected: Any) -> None:
    learning = make(kit, tmp_path, times=())
    learning.promote(learning.bundle(), T1)
    learning.run()
    check(learning.world, expected)


def test_the_merge_is_held_at_a_switch_until_the_registry_settles_it(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path)
    decider, tables = learning.run(), learning.world.tables
    assert len(tables.decisions) == 60  # one payment a second
    assert {part.horizon_us() for part in decider.partitions.values()} == {T1}
    assert reports(learning, decider) == []
    bundle = learning.bundle()
    offered, approved, promoted = learning.promotion(bundle, T1)
    learning.say(offered, approved)
    learning.world.settle(decider)
    assert len(tables.decisions) == 60  # neither publishing nor approving settles anything
    learning.say(promoted)
    learning.world.settle(decider)
    assert len(tables.decisions) == kit.count
    assert learning.used() == {"before": GUARDED, "promoted": {r.bundle_text(bundle)},
                               "rolled back": {r.bundle_text(bundle)}, "again": {r.bundle_text(bundle)}}  # fmt: skip


@pytest.mark.parametrize("policy_us", [T1 - 10_000_000, T1, T1 + 10_000_000])
def test_a_policy_switch_and_a_bundle_switch_hold_at_whichever_comes_first(
    kit: Any, tmp_path: Path, policy_us: int
) -> None:
    learning = make(kit, tmp_path, later=(Switch(policy_us, kit.older),))

    def announce() -> None:
        learning.world.announced.add(policy_us)

    def promote() -> None:
        learning.promote(learning.bundle(), T1)

    steps = {policy_us: announce, T1: promote}
    if policy_us == T1:
        announce()
    decider = learning.run()
    for at_us in sorted(steps):
        assert len(learning.world.tables.decisions) == (at_us - sample.START_US) // 1_000_000
        steps[at_us]()
        learning.world.settle(decider)
    assert len(learning.world.tables.decisions) == kit.count
    places = [sum(part.switched[place] for part in decider.partitions.values()) for place in (1, 2)]
    assert places == [(at_us - sample.START_US) // 1_000_000 for at_us in (policy_us, T1)]


def test_a_rollback_and_a_second_promotion_take_effect_where_they_are_pinned(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path, times=TIMES.ascending())
    bundle = learning.bundle()
    learning.settle_all(bundle)
    learning.run()
    ref = {r.bundle_text(bundle)}
    assert learning.used() == {"before": GUARDED, "promoted": ref, "rolled back": GUARDED, "again": ref}
    for order_us, payload in learning.decisions():
        scored = payload["bundle_ref"] is not None
        assert scored is (payload["score"] is not None)
        assert scored is ("MODEL_MISSING" not in payload["reason_codes"])
        if payload["account_id"] is not None:
            assert payload["posture"] == ("NORMAL" if scored else "GUARDRAILS_ONLY"), order_us


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), members=st.sampled_from([1, 2, 3]), most=st.sampled_from([3, 30, 500]))
def test_batches_members_restarts_and_late_registry_events_give_equal_bytes(
    kit: Any, tmp_path_factory: pytest.TempPathFactory, switched: Any, seed: int, members: int, most: int
) -> None:
    rng = random.Random(seed)
    learning = make(kit, tmp_path_factory.mktemp("bundles"), times=TIMES.ascending(), lines=())
    world, lines, bundle = learning.world, kit.lines(), learning.bundle()
    steps = [lambda: learning.promote(bundle, TIMES.promote_us), lambda: learning.rollback(TIMES.rollback_us),
             lambda: learning.promote(bundle, TIMES.repromote_us)]  # fmt: skip
    owned = [tuple(range(number, 6, members)) for number in range(members)]
    team = [learning.decider(parts) for parts in owned]
    while lines or steps:
        take = rng.randint(1, most)
        world.write(lines[:take])
        lines = lines[take:]
        if steps and rng.random() < 0.2:
            steps.pop(0)()
        world.now += rng.choice((0.0, 0.2, 1.1))
        number = rng.randrange(members)
        team[number].turn()
        if rng.random() < 0.1:
            team[number] = learning.decider(owned[number])
    for member in team:
        world.settle(member)
    check(world, switched)


@pytest.mark.parametrize("batch", [1, 7])
def test_a_batch_of_one_and_of_all_give_equal_bytes(
    kit: Any, tmp_path: Path, switched: Any, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", batch)
    learning = make(kit, tmp_path, times=TIMES.ascending())
    learning.settle_all(learning.bundle())
    learning.run()
    assert told(learning.world.results()["DECISION"]) == told(switched["DECISION"])


@pytest.mark.parametrize("point", ["df.before_commit", "df.after_commit", "df.after_publish"])
@pytest.mark.parametrize("hits", [2, 3, 4, 5])
def test_a_crash_near_a_switch_decides_nothing_otherwise(
    kit: Any, tmp_path: Path, switched: Any, point: str, hits: int
) -> None:
    learning = make(kit, tmp_path, times=TIMES.ascending(), lines=())
    learning.settle_all(learning.bundle())
    world, lines, crashes = learning.world, kit.lines(), 0
    decider = learning.decider()
    arm(f"{point}:raise:{hits}")
    for start in range(0, len(lines), 40):
        world.write(lines[start : start + 40])
        world.now += 0.3
        try:
            decider.turn()
        except FailpointRaised:
            crashes += 1
            decider = learning.decider()
    world.settle(decider)
    assert crashes == 1
    check(world, switched)


def test_a_refusal_that_settles_a_switch_leaves_the_guardrails_on(kit: Any, tmp_path: Path, expected: Any) -> None:
    learning = make(kit, tmp_path)
    bundle = learning.bundle()
    learning.refuse(bundle, None)
    decider = learning.run()
    assert len(learning.world.tables.decisions) == 60  # a refusal of an offer settles no switch
    learning.refuse(bundle, T1)
    learning.world.settle(decider)
    check(learning.world, expected)
    assert reports(learning, decider) == []


def test_an_activation_that_does_not_count_settles_nothing(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path)
    offered, _, promoted = learning.promotion(learning.bundle(), T1)
    learning.say(offered, promoted)  # nobody approved
    decider = learning.run()
    assert len(learning.world.tables.decisions) == 60
    assert all(part.in_use == NOTHING for part in decider.partitions.values())


SPOILS = ["model changed", "model gone", "manifest gone", "manifest changed", "no model inside", "other schema",
          "other features", "unknown policy", "more capabilities"]  # fmt: skip


OFFERED: dict[str, dict[str, Any]] = {
    "other features": {"feature_schema_digest": "5c" * 32},
    "unknown policy": {"policy_rev": "nobody"},
    "more capabilities": {"capabilities": ("family:oracle",)},
}


def spoiled(learning: Learning, how: str) -> Any:
    """A bundle that cannot serve, promoted all the same."""
    bundle = learning.bundle(
        b'{"format":"other"}' if how == "no model inside" else None,
        **({"feature_schema_digest": "5c" * 32} if how == "other schema" else {}),
    )
    if how.startswith(("model", "manifest")):
        path = learning.file(bundle, "model.json" if how.startswith("model") else "bundle.json")
        if how.endswith("gone"):
            path.unlink()
        else:
            path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    learning.promote(bundle, T1, **OFFERED.get(how, {}))
    return bundle


@pytest.mark.parametrize("how", SPOILS)
def test_a_bundle_that_cannot_serve_leaves_the_guardrails_and_approves_nothing(
    kit: Any, tmp_path: Path, how: str
) -> None:
    learning = make(kit, tmp_path)
    bundle = spoiled(learning, how)
    decider = learning.run()
    after = [payload for order_us, payload in learning.decisions() if order_us >= T1]
    assert len(after) == 60
    for payload in after:
        assert (payload["bundle_ref"], payload["score"]) == (None, None)
        assert payload["posture"] in ("GUARDRAILS_ONLY", "DEGRADED_CONTEXT")
        assert payload["reason_codes"][-1] == "MODEL_UNUSABLE"
        assert payload["action"] != "ALLOW"
    told_by = reports(learning, decider)
    assert len(told_by) == 6
    assert {(event.bundle_ref, event.source, event.revision) for event in told_by} == {(None, "guardrails", 1)}
    assert all(bundle.bundle_id in event.reason for event in told_by)


def test_a_named_fallback_decides_and_says_so(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path, times=(T1, TIMES.rollback_us))
    safe, broken = learning.bundle(), learning.bundle(boosted(), "xgboost")
    learning.promote(safe, T1)
    learning.file(broken, "model.ubj").unlink()
    learning.promote(broken, TIMES.rollback_us, fallback=safe)
    decider = learning.run()
    late = [payload for order_us, payload in learning.decisions() if order_us >= TIMES.rollback_us]
    assert {payload["bundle_ref"] for payload in late} == {r.bundle_text(safe)}
    assert all(payload["reason_codes"][-1] == "MODEL_FALLBACK" for payload in late)
    last = [event for event in reports(learning, decider) if event.effective_us == TIMES.rollback_us]
    assert {(event.source, event.bundle_ref, event.revision) for event in last} == {
        ("fallback", r.bundle_text(safe), 2)
    }


def test_what_decided_from_a_switch_on_is_kept_over_a_restart(kit: Any, tmp_path: Path) -> None:
    lines = kit.lines()
    learning = make(kit, tmp_path, lines=lines[:-60])
    bundle = spoiled(learning, "model gone")
    learning.run()
    learning.bundle()  # mended: the same bytes under the same key
    assert learning.models().fault(bundle) is None
    learning.world.write(lines[-60:])
    again = learning.run()
    late = [payload for order_us, payload in learning.decisions() if order_us >= T1]
    assert len(late) == 60
    assert {payload["bundle_ref"] for payload in late} == GUARDED
    assert "no model.json" in again.partitions[0].in_use.reason


def test_a_bundle_in_use_that_is_gone_stops_the_line_and_is_not_replaced(kit: Any, tmp_path: Path) -> None:
    lines = kit.lines()
    learning = make(kit, tmp_path, lines=lines[:-60])
    bundle = learning.bundle()
    learning.promote(bundle, T1)
    learning.run()
    body = learning.file(bundle, "model.json").read_bytes()
    learning.file(bundle, "model.json").unlink()
    learning.world.write(lines[-60:])
    before = len(learning.world.tables.decisions)
    with pytest.raises(Unavailable, match="in use and cannot be opened"):
        learning.run()
    assert 60 < before == len(learning.world.tables.decisions) < kit.count
    learning.store.put(bundle.manifest.key.replace("bundle.json", "model.json"), body)
    learning.run()
    assert len(learning.world.tables.decisions) == kit.count
    assert learning.used()["again"] == {r.bundle_text(bundle)}


def test_every_partition_reports_its_position_once_traffic_or_none(kit: Any, tmp_path: Path) -> None:
    feed = sample.Feed()
    quiet = [feed.snapshot(0, sample.START_US, "acc-1"), *feed.marks(T1 + 1)]  # five partitions without a payment
    learning = make(kit, tmp_path, lines=quiet)
    bundle = learning.bundle()
    learning.promote(bundle, T1)
    decider = learning.run()
    found = reports(learning, decider)
    assert sorted(event.merged_n for event in found) == [0, 0, 0, 0, 0, 1]
    assert {event.partition for event in found} == set(range(6))
    assert {(e.bundle_slot, e.revision, e.bundle_ref, e.source, e.effective_us, e.reason) for e in found} == {
        ("payment_fraud", 1, r.bundle_text(bundle), "global", T1, "")
    }
    assert reports(learning, decider, RunState(sample.RUN, bundles=tuple(found))) == []  # said before a restart
    assert reports(learning, learning.decider()) == found


def test_window_1_that_ends_at_the_switch_is_enough_to_report_it(kit: Any, tmp_path: Path) -> None:
    feed = sample.Feed()
    learning = make(kit, tmp_path, lines=[feed.snapshot(0, sample.START_US, "acc-1"), *feed.marks(T1)])
    learning.promote(learning.bundle(), T1)
    assert len(reports(learning, learning.run())) == 6


def test_the_gauge_moves_with_the_position(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, str, int]] = []
    places: list[tuple[int, int, int]] = []

    class Gauge:
        def set(self, value: int, attributes: dict[str, Any]) -> None:
            shown.append((value, attributes["bundle"], attributes["partition"]))
            if value:
                places.append((attributes["partition"], attributes["revision"], attributes["merged_n"]))

    monkeypatch.setattr(service, "gauge", {Metric.ACTIVE_BUNDLE: Gauge()}.__getitem__)
    learning = make(kit, tmp_path)
    decider = learning.run()
    assert {(value, name) for value, name, _ in shown} == {(1, "guardrails")}
    assert decider.metrics()["bundle_revision"] == 0
    shown.clear()
    bundle = learning.bundle()
    learning.promote(bundle, T1)
    learning.world.settle(decider)
    moved = {(value, name) for value, name, _ in shown}
    assert moved == {(0, "guardrails"), (1, r.bundle_text(bundle))}
    assert len(shown) == 12
    assert decider.metrics()["bundle_revision"] == 1
    assert {event.partition: event.merged_n for event in reports(learning, decider)} == {
        part: n for part, revision, n in places if revision == 1
    }


def test_other_slots_other_scopes_and_junk_are_passed_over(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path)
    learning.world.write([Out(topics.REGISTRY_EVENTS, REGISTRY_PART, b"payment_fraud", b"junk", b"")])
    bundle = learning.bundle()
    other = learning.promotion(bundle, T1)
    elsewhere = SCOPE.model_copy(update={"bundle_slot": "other"})
    retired = r.BundleRetired(scope=SCOPE, bundle=bundle, actor="bo", reason="there", at_us=1)
    learning.say(retired, *other, scope=elsewhere)
    learning.say(*other, scope=SCOPE.model_copy(update={"environment": "local.another_run"}))
    learning.run()
    assert len(learning.world.tables.decisions) == 60
    learning.say(*other)
    learning.run()
    assert len(learning.world.tables.decisions) == kit.count


def test_what_was_active_before_the_run_decides_from_its_beginning(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path, start_offset=3)
    bundle, newer = learning.bundle(), learning.bundle(boosted(), "xgboost")
    learning.promote(bundle, sample.START_US - 1)
    learning.promote(newer, T1)
    decider = learning.run()
    assert learning.used()["before"] == {r.bundle_text(bundle)}
    assert learning.used()["promoted"] == {r.bundle_text(newer)}
    assert {event.revision for event in reports(learning, decider)} == {2}
    assert learning.world.on_bus(topics.RTDL, Kind.DECISION)[0][1].order_us < T1


REF = BundleRef(
    bundle_id="b" * 32, model_digest="d" * 64, manifest=EvidenceRef(key="b/bundle.json", sha256="0" * 64, size=1)
)


def corridor_events() -> list[r.RegistryPayload]:
    """All that a corridor says of one bundle, and two refusals that settle."""
    lane = Learning(None, None, Path())  # type: ignore[arg-type]
    promoted = lane.promotion(REF, TIMES.promote_us)
    again = lane.promotion(REF, TIMES.repromote_us)[2].model_copy(update={"revision": 3, "previous": None})
    back = r.BundleRolledBack(
        scope=SCOPE, bundle=None, previous=REF, revision=2, effective_us=TIMES.rollback_us, actor="o", reason="drill",
        at_us=1,
    )  # fmt: skip
    refused = [
        r.BundleRefused(scope=SCOPE, bundle=REF, reasons=("no",), effective_us=at, actor="o", at_us=1)
        for at in (TIMES.promote_us, TIMES.rollback_us)
    ]
    return [*promoted, back, again, *refused]


def settled(board: Switchboard) -> dict[int, Any]:
    found = {}
    for at in TIMES.ascending():
        with suppress(KeyError):
            found[at] = board.served(at)
    return found


@given(order=st.permutations(range(7)), cut=st.integers(0, 7))
def test_a_switch_resolves_alike_whenever_its_events_are_read(order: list[int], cut: int) -> None:
    """What was settled at any moment stays, whatever comes later, for who followed and for who restarts."""
    plan = BundlePlan(SCOPE, TIMES.ascending(), SERVING, REGISTRY_PART, 0)
    follower, early = Switchboard(plan, lambda _: None), dict[int, Any]()
    events = corridor_events()
    for offset, at in enumerate(order):
        if offset == cut:
            early = settled(follower)
        follower.take(events[at], offset)
    assert settled(follower) == settled(follower) | early


def test_progress_of_a_spine_run_is_written_as_before_and_reads_back() -> None:
    plain = Truth(n=3, switched={1: 2})
    assert plain.to_bytes() == b'[[],0,"' + b"0" * 64 + b'",' + str(NONE_TS).encode() + b",0,0,[[1,2]]]"
    assert Truth.from_bytes(3, plain.to_bytes()) == plain
