"""P15: df scores the evaluation as the trainer did before anything is promoted; the baseline becomes the challenger."""

from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts import topics
from fp_contracts.registry import BundleChallengerNamed, BundlePromotedActive, BundlePublished, read_registry

from .conftest import SCORES, Lane
from .test_corridor import B15, WHOLE, Tracker, after_spine, codes, header_of, ready
from .test_learning_gates import resume, setting, spoil

B14 = "DFULL-RUN-B14"
MISMATCHES: list[tuple[dict[str, Any], str]] = [
    ({"scores_sha256": "0" * 64}, "100 rows, 0 missing, scores 000000000000"),
    ({"rows": 99}, "99 rows, 0 missing"),
    ({"missing": 1, "scores_sha256": None, "reason": "1 rows were never decided"}, "1 rows were never decided"),
    ({"scores_sha256": None, "reason": "HASH"}, "scores none HASH"),
]


@pytest.mark.parametrize(("change", "told"), MISMATCHES)
def test_a_df_that_scores_the_evaluation_otherwise_blocks_by_name_and_nothing_is_promoted(
    lane: Lane, change: dict[str, Any], told: str
) -> None:
    ready(lane)
    lane.df_rescores = lambda event: event.model_copy(update=change)
    assert lane.close("P15") == "BLOCKED"
    (blocker,) = lane.blockers("P15")
    assert blocker.startswith(f"{B15} train/serve parity: ")
    assert told in blocker
    assert f"required 100 rows, 0 missing, scores {SCORES[:12]}" in blocker
    assert lane.active() is None
    assert "BUNDLE_CHALLENGER_NAMED" not in lane.registry_types()


def test_without_an_answer_of_df_nothing_is_promoted(lane: Lane) -> None:
    ready(lane)
    lane.df_answers = False
    assert lane.close("P15") == "OPEN"
    assert lane.waiting["P15"] == ["train/serve parity"]
    lane.turn("P15", patience=True)
    assert codes(lane) == [B15]
    assert lane.active() is None


def test_an_answer_for_another_bundle_is_none(lane: Lane) -> None:
    ready(lane)
    lane.df_rescores = lambda event: event.model_copy(update={"bundle_id": "0" * 32})
    assert lane.close("P15") == "OPEN"
    assert lane.waiting["P15"] == ["train/serve parity"]


def test_a_training_that_names_no_rows_to_score_again_blocks_at_once(lane: Lane) -> None:
    lane.acted.change["result"] = setting("eval_rows", to=None)
    ready(lane)
    assert lane.close("P15") == "BLOCKED"
    assert "train/serve parity: P14 names no rows" in lane.blockers("P15")[0]


def test_a_report_that_names_no_scores_matches_no_answer(lane: Lane) -> None:
    lane.acted.change["eval_report"] = setting("scores_sha256", to=None)
    ready(lane)
    assert lane.close("P15") == "BLOCKED"
    assert "train/serve parity" in lane.blockers("P15")[0]


def test_both_sides_of_the_parity_are_evidence(lane: Lane) -> None:
    assert ready(lane).close("P15") == "PASS"
    parity = lane.evidence_of("P15", "compatibility")["parity"]
    assert parity["report"] == {"rows": 100, "scores_sha256": SCORES}
    assert (parity["df"]["rows"], parity["df"]["scores_sha256"]) == (100, SCORES)


def events(lane: Lane) -> list[Any]:
    found = []
    for part in range(topics.TOPICS[topics.REGISTRY_EVENTS].partitions):
        begin, end = lane.bus.span((topics.REGISTRY_EVENTS, part))
        found += [
            read_registry(record.value)[1] for record in lane.bus.read((topics.REGISTRY_EVENTS, part), begin, end)
        ]
    return found


def test_the_baseline_is_named_before_the_promotion_that_it_takes_effect_with(lane: Lane) -> None:
    assert ready(lane).close("P15") == "PASS"
    said = events(lane)
    named = next(event for event in said if isinstance(event, BundleChallengerNamed))
    promoted = next(event for event in said if isinstance(event, BundlePromotedActive))
    assert said.index(named) < said.index(promoted)
    assert (named.bundle, named.effective_us) == (lane.challenger(), promoted.effective_us)
    assert (named.previous, named.challenger_revision) == (None, 1)
    offered = [event for event in said if isinstance(event, BundlePublished)]
    assert [event.eval_rows is None for event in offered] == [False, True]  # df rescores what may be promoted
    receipt = lane.evidence_of("P15", "promotion_receipt")
    assert receipt["challenger"]["read_back_equal"] is True
    assert receipt["challenger_faults"] == []


def test_a_baseline_that_changed_since_p14_blocks_before_anything_is_promoted(lane: Lane) -> None:
    ready(lane)
    spoil(lane.learning, lane.challenger().manifest.key.replace("bundle.json", "model.json"))
    assert lane.close("P15") == "BLOCKED"
    assert codes(lane) == [B15]
    assert "challenger in shadow" in lane.blockers("P15")[0]
    assert lane.active() is None


def test_a_training_without_a_baseline_is_promoted_without_a_challenger(lane: Lane) -> None:
    lane.acted.change["result"] = setting("challenger", to=None)
    ready(lane)
    assert lane.close("P15") == "PASS"
    assert lane.registry_types() == [name for at, name in enumerate(WHOLE) if at not in (3, 4)]


def test_an_alias_of_the_challenger_that_points_elsewhere_is_no_pass() -> None:
    class Wrong(Tracker):
        def follow(self, *bundles: Any) -> dict[str, str]:
            return {**super().follow(*bundles), "challenger": "other"}

    lane = ready(Lane(after_spine(header_of()), Wrong()))
    assert lane.close("P15") == "OPEN"
    assert lane.waiting["P15"] == ["aliases follow"]


@pytest.mark.parametrize("field", ["train_request_digest", "dataset_sha256", "code_release"])
def test_a_baseline_of_other_provenance_blocks_p14(lane: Lane, field: str) -> None:
    lane.through("P14")
    lane.acted.change["challenger_fields"] = setting(field, to="0" * 64)
    assert lane.close("P14") == "BLOCKED"
    (blocker,) = lane.blockers("P14")
    assert blocker.startswith(f"{B14} bundle of the challenger")


def test_a_resumed_p15_names_it_once(lane: Lane) -> None:
    lane.through("P15")
    lane.approve()
    assert lane.close("P15") == "OPEN"
    lane.end_window_2(ok=False)
    assert lane.close("P15") == "BLOCKED"
    resume(lane, "P15")
    lane.close("P15")
    assert lane.registry_types().count("BUNDLE_CHALLENGER_NAMED") == 1
    assert isinstance(lane.state.rescored, tuple)
    assert {type(event) for event in lane.state.rescored} == {c.BundleRescored}
