"""P15: a bundle becomes ACTIVE by the book only, is rolled back and promoted again, and a stopped corridor goes on."""

import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from fp_contracts import control as c
from fp_contracts.bundle import BundleRef
from fp_contracts.registry import BundlePromotedActive, switch_times
from fp_ofs_trigger import corridor
from fp_ofs_trigger.aliases import AliasesDown
from fp_ofs_trigger.registry_desk import Receipt
from fp_ofs_trigger.runners import Ended
from fp_runtime.controllog import pins_of
from fp_runtime.errors import Unavailable
from fp_runtime.memory import Fault

from .conftest import OPERATOR, Lane, after_spine, header_of
from .test_learning_gates import resume, setting, spoil

B15, B15_1 = "DFULL-RUN-B15", "DFULL-RUN-B15.1"
WHOLE = [
    "BUNDLE_PUBLISHED", "BUNDLE_REFUSED", "BUNDLE_APPROVED", "BUNDLE_PUBLISHED", "BUNDLE_CHALLENGER_NAMED",
    "BUNDLE_PROMOTED_ACTIVE", "BUNDLE_ROLLED_BACK", "BUNDLE_PROMOTED_ACTIVE",
]  # fmt: skip


def codes(lane: Lane) -> list[str]:
    return [found.split()[0] for found in lane.blockers("P15")]


def ready(lane: Lane) -> Lane:
    lane.through("P15")
    lane.approve()
    lane.end_window_2()
    return lane


def test_a_candidate_is_promoted_rolled_back_and_promoted_again(lane: Lane) -> None:
    ready(lane)
    assert lane.close("P15") == "PASS", lane.waiting
    assert lane.registry_types() == WHOLE
    assert lane.active() == lane.bundle()
    drill = lane.evidence_of("P15", "rollback_drill")
    assert 0 < drill["rollback_us"] < 1_000_000
    assert drill["within_goal"] is True
    assert len(drill["members_rolled_back"]["positions"]) == 6
    receipt = lane.evidence_of("P15", "promotion_receipt")["promotion"]
    assert receipt["read_back_equal"] is True
    assert receipt["event"]["revision"] == 1
    resolution = lane.evidence_of("P15", "active_resolution")
    assert resolution["journal"] == resolution["restarted"]
    assert resolution["journal"]["revision"] == 3
    compatibility = lane.evidence_of("P15", "compatibility")
    assert "schema digest" in compatibility["probe_reasons"][0]
    assert compatibility["second_promotion"] == ["BUNDLE_PROMOTED_ACTIVE: another writer came first"]


def test_switches_take_effect_at_the_event_times_that_the_windows_pin(lane: Lane) -> None:
    ready(lane).close("P15")
    header = lane.state.header
    assert header is not None
    times = switch_times(header.config.windows)
    assert times is not None
    registry = lane.registry_desk.registry("payment_fraud")
    (scope,) = registry.scopes.values()
    assert tuple(found.effective_us for found in scope.activations) == times.ascending()


def test_nothing_is_promoted_while_nobody_approves_and_the_hard_stop_blocks(lane: Lane) -> None:
    lane.through("P15")
    assert lane.close("P15") == "OPEN"
    assert lane.waiting["P15"] == ["approved by another actor"]
    lane.turn("P15", patience=True)
    assert lane.blockers("P15") == [f"{B15} approved by another actor: nobody yet, required approved"]
    assert lane.active() is None


def test_an_approval_by_the_requester_blocks_and_a_resume_with_another_actor_goes_on(lane: Lane) -> None:
    lane.through("P15")
    lane.approve(OPERATOR)
    lane.end_window_2()
    assert lane.close("P15") == "BLOCKED"
    assert codes(lane) == [B15]
    assert "ana: approved by its requester" in lane.blockers("P15")[0]
    assert lane.active() is None
    lane.approve("ben")
    resume(lane, "P15")
    assert lane.close("P15") == "PASS"
    assert lane.active() == lane.bundle()


def test_an_approval_of_another_bundle_is_none(lane: Lane) -> None:
    lane.through("P15")
    lane.tell(c.BundleApprovalGiven(bundle_id="0" * 32, model_digest="0" * 64, actor="ben", reason="x"))
    assert lane.close("P15") == "OPEN"
    assert lane.active() is None


def test_without_a_second_window_nothing_is_promoted() -> None:
    lane = Lane(after_spine(header_of(windows=1)))
    lane.through("P15")
    lane.approve()
    assert lane.close("P15") == "BLOCKED"
    assert lane.blockers("P15") == [f"{B15} second window: none, required declared"]
    assert lane.active() is None


def test_a_bundle_that_became_corrupt_after_p14_is_refused(lane: Lane) -> None:
    ready(lane)
    bundle = lane.bundle()
    spoil(lane.learning, bundle.manifest.key.replace("bundle.json", "model.ubj"))
    assert lane.close("P15") == "BLOCKED"
    assert codes(lane) == [B15]
    assert lane.registry_types() == ["BUNDLE_REFUSED"]
    assert lane.active() is None


def test_a_candidate_that_does_not_read_back_is_none(lane: Lane) -> None:
    ready(lane)
    spoil(lane.learning, lane.bundle().manifest.key)
    assert lane.close("P15") == "BLOCKED"
    assert "the candidate of P14 does not read back" in lane.blockers("P15")[0]


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("policies", {}, "is not served"), ("feature_set", "core.v9", "feature set"),
     ("feature_schema_digest", "0" * 64, "schema digest")],
)  # fmt: skip
def test_a_bundle_that_df_cannot_serve_is_refused_and_nothing_promoted(
    lane: Lane, field: str, value: object, why: str
) -> None:
    ready(lane)
    header = lane.state.header
    assert header is not None
    config = header.config.model_copy(update={field: value})
    lane.state = replace(lane.state, header=header.model_copy(update={"config": config}))
    assert lane.close("P15") == "BLOCKED"
    assert codes(lane) == [B15]
    assert why in lane.blockers("P15")[0]
    assert lane.registry_types() == ["BUNDLE_REFUSED"]
    assert lane.active() is None


def test_a_corridor_that_lets_the_incompatible_probe_in_is_no_pass(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(lane)
    monkeypatch.setattr(corridor, "incompatibilities", lambda *_: ())
    assert lane.close("P15") == "BLOCKED"
    assert lane.blockers("P15") == [f"{B15} incompatible bundle refused: let in, required refused, read back"]


class Tracker:
    """Aliases of a tracker that may be down."""

    def __init__(self) -> None:
        self.down, self.wrong = False, False
        self.names: dict[str, str] = {}

    def check(self) -> None:
        if self.down:
            raise AliasesDown("connection refused")

    def follow(
        self, name: str, champion: BundleRef, previous: BundleRef | None, challenger: BundleRef | None
    ) -> Mapping[str, str]:
        self.check()
        if challenger is not None:
            self.names["challenger"] = challenger.bundle_id
        self.names["champion"] = "other" if self.wrong else champion.bundle_id
        return self.names


def test_with_the_tracker_down_nothing_is_promoted_and_later_it_goes_on() -> None:
    tracker = Tracker()
    lane = ready(Lane(after_spine(header_of()), tracker))
    tracker.down = True
    assert lane.close("P15") == "OPEN"
    assert lane.registry_types() == []
    lane.turn("P15", patience=True)
    assert lane.blockers("P15") == [f"{B15} experiment registry answers: connection refused, required it answers"]
    tracker.down = False
    resume(lane, "P15")
    assert lane.close("P15") == "PASS"
    assert lane.evidence_of("P15", "active_resolution")["aliases"] == {
        "champion": lane.bundle().bundle_id, "challenger": lane.challenger().bundle_id,
    }  # fmt: skip


def test_an_alias_that_points_elsewhere_is_no_pass() -> None:
    tracker = Tracker()
    tracker.wrong = True
    lane = ready(Lane(after_spine(header_of()), tracker))
    assert lane.close("P15") == "OPEN"
    assert lane.waiting["P15"] == ["aliases follow"]


def test_members_that_do_not_report_block_the_promotion(lane: Lane) -> None:
    ready(lane)
    lane.df_says = lambda event: event.model_copy(update={"bundle_slot": "other"})
    assert lane.close("P15") == "OPEN"
    lane.turn("P15", patience=True)
    assert codes(lane) == [B15]
    assert "members on the promoted bundle: 0 of 6" in lane.blockers("P15")[0]


def test_a_member_that_could_not_load_the_bundle_blocks_at_once(lane: Lane) -> None:
    ready(lane)
    lane.df_says = lambda event: (
        event.model_copy(update={"bundle_ref": None, "source": "guardrails", "reason": "HASH"})
        if event.partition == 4 else event
    )  # fmt: skip
    assert lane.close("P15") == "BLOCKED"
    assert codes(lane) == [B15]
    assert "partition 4 uses guardrails: HASH" in lane.blockers("P15")[0]


def test_a_rollback_that_no_member_reports_is_a_missing_drill(lane: Lane) -> None:
    ready(lane)
    lane.df_says = lambda event: event.model_copy(update={"revision": 1, "bundle_ref": text(lane)})
    assert lane.close("P15") == "OPEN"
    assert lane.waiting["P15"] == ["members after the rollback"]
    lane.turn("P15", patience=True)
    assert codes(lane) == [B15_1]


def text(lane: Lane) -> str:
    return f"bundle:{lane.bundle().model_digest}"


def test_a_rollback_that_took_too_long_is_no_drill(lane: Lane) -> None:
    ready(lane)
    step_us = 200_000_000

    def slow() -> int:
        lane.clock_us += step_us
        return lane.clock_us

    lane.now_us = slow  # type: ignore[method-assign]
    lane.restart()
    assert lane.close("P15") == "BLOCKED"
    assert set(codes(lane)) == {B15_1}
    assert "rollback took" in lane.blockers("P15")[0]


def test_equations_of_window_2_that_do_not_hold_block(lane: Lane) -> None:
    lane.through("P15")
    lane.approve()
    assert lane.close("P15") == "OPEN"
    assert lane.waiting["P15"] == ["window 2 ended", "window 2 reconciled"]
    lane.end_window_2(ok=False)
    assert lane.close("P15") == "BLOCKED"
    assert lane.blockers("P15") == [
        f"{B15} equations of window 2 that do not hold: requests = snapshots: 9 = 8, required no fault"
    ]


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_restart_anywhere_repeats_nothing_and_loses_nothing(lane: Lane, stop: int) -> None:
    ready(lane)
    for _ in range(stop):
        lane.turn("P15")
    lane.restart()
    assert lane.close("P15") == "PASS"
    assert lane.registry_types() == WHOLE


@pytest.mark.parametrize("fault", [Fault.LOST_ACK, Fault.LOST_REQUEST, Fault.FAILED])
@pytest.mark.parametrize("nth", range(1, 9))
def test_a_publication_without_an_answer_is_made_again_in_the_journals_order(
    lane: Lane, fault: Fault, nth: int
) -> None:
    ready(lane)
    lane.bus.plan(fault, nth)
    with pytest.raises(Unavailable):
        lane.close("P15")
    lane.restart()
    assert lane.close("P15") == "PASS"
    assert lane.registry_types() == WHOLE
    journal, topic = lane.registry_desk.registry("payment_fraud"), lane.registry_desk.registry_on_topic("payment_fraud")
    assert journal == topic
    assert topic.passed_over == ()


def test_of_two_corridors_at_once_one_promotes() -> None:
    """Both hold a state in which nothing is active; the second one's word does not count and it says so."""
    lane = ready(Lane(after_spine(header_of())))
    for _ in range(2):  # offered; then df has answered
        lane.turn("P15")
    bundle, header = lane.bundle(), lane.state.header
    assert header is not None
    (scope,) = lane.registry_desk.registry("payment_fraud").scopes

    event = BundlePromotedActive(
        scope=scope, bundle=bundle, previous=None, revision=1, effective_us=1, actor="other", at_us=1
    )
    found = lane.registry_desk.write(pins_of(lane.state), event)
    assert not isinstance(found, Receipt)
    assert lane.close("P15") == "PASS"


def assert_set(event: threading.Event) -> None:
    assert event.wait(10)


def test_a_stopped_job_is_cancelled_and_leaves_no_end(lane: Lane) -> None:
    """The process is asked to stop while a job runs: the next process runs it again."""
    started = threading.Event()

    def run(job: object, progress: object, cancelled: object) -> Ended:
        started.set()
        assert callable(cancelled)
        while not cancelled():
            started.wait(0.01)
        return Ended("CANCELLED", "", None, b"", "", {})

    acted, lane.acted.run = lane.acted.run, run  # type: ignore[method-assign]
    lane.desk.p12(lane.state)
    lane.executor.join = lambda: assert_set(started)  # type: ignore[method-assign]
    lane.agents()
    lane.executor.close()
    assert lane.jobs.ends == {}
    lane.acted.run = acted  # type: ignore[method-assign]
    lane.restart()
    assert lane.close("P12") == "PASS"


def test_a_candidate_that_is_not_eligible_never_reaches_the_corridor(lane: Lane) -> None:
    lane.through("P14")
    lane.acted.change["result"] = setting("eligible", to=False)
    assert lane.close("P14") == "BLOCKED"
    lane.turn("P15")
    assert lane.state.state_of("P15") == "OPEN"
    assert lane.registry_types() == []
