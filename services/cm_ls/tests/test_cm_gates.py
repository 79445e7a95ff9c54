"""P10: each broken thing alone blocks with its code, and only what time cannot mend is final."""

from dataclasses import replace

import pytest

from fp_cm_ls.gates import CaseFacts, evaluate_p10
from fp_contracts.evaluation import Predicate
from fp_contracts.phases import PHASES

SOUND = CaseFacts(
    lane_ended=True, lag=0, open_gaps=0, quarantined=0, topic_triggers=3, trigger_rows=3, triggered_entries=3,
    doubled_triggers=0, cases=2, empty_cases=0, broken_timelines=0, escalated_intents=3, outcomes_attached=3, lines=5,
    lines_by_class={"ACCEPTED": 4, "DUPLICATE": 1}, declared_lines=5, assertions=4, acked=4, topic_labels=4,
    conflicting_lines=0, principals=1, trigger_fingerprint="f", label_fingerprint="l", entries_by_kind={},
)  # fmt: skip


def _failed(facts: CaseFacts) -> list[Predicate]:
    return [predicate for predicate in evaluate_p10(facts).predicates if not predicate.ok]


def test_sound_facts_pass_and_bring_the_evidence() -> None:
    evaluation = evaluate_p10(SOUND)
    assert _failed(SOUND) == []
    assert evaluation.settled()
    assert set(evaluation.documents) == set(PHASES["P10"].evidence)


@pytest.mark.parametrize(
    ("broken", "code", "final"),
    [
        ({"lane_ended": False}, "DFULL-RUN-B10", False),
        ({"lag": 1}, "DFULL-RUN-B10", False),
        ({"topic_triggers": 4}, "DFULL-RUN-B10", True),
        ({"triggered_entries": 2}, "DFULL-RUN-B10", True),
        ({"doubled_triggers": 1}, "DFULL-RUN-B10", True),
        ({"empty_cases": 1}, "DFULL-RUN-B10", True),
        ({"broken_timelines": 1}, "DFULL-RUN-B10", True),
        ({"outcomes_attached": 2}, "DFULL-RUN-B10", False),
        ({"lines": 4}, "DFULL-RUN-B10", True),
        ({"lines_by_class": {"ACCEPTED": 3, "DUPLICATE": 2}}, "DFULL-RUN-B10", True),
        ({"acked": 3}, "DFULL-RUN-B10", False),
        ({"topic_labels": 3}, "DFULL-RUN-B10", False),
        ({"open_gaps": 1}, "DFULL-RUN-B10.1", False),
        ({"quarantined": 1}, "DFULL-RUN-B10.1", True),
        ({"lines_by_class": {"ACCEPTED": 4, "REJECTED": 1}}, "DFULL-RUN-B10.1", True),
        ({"conflicting_lines": 1}, "DFULL-RUN-B10.1", True),
        ({"principals": 2}, "DFULL-RUN-B10.1", True),
    ],
)
def test_one_broken_thing_blocks(broken: dict[str, object], code: str, final: bool) -> None:
    (failed,) = _failed(replace(SOUND, **broken))  # type: ignore[arg-type]
    assert (failed.code, failed.final) == (code, final)


def test_what_is_still_to_be_read_is_never_final() -> None:
    behind = replace(SOUND, lag=2, topic_triggers=4)
    assert not evaluate_p10(behind).settled()
    early = replace(SOUND, lane_ended=False, lines=2, lines_by_class={"ACCEPTED": 3})
    assert not evaluate_p10(early).settled()
