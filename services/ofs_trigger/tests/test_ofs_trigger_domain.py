"""Learning events are counted by lane; no phase of the corridor is ever claimed."""

from fp_contracts import topics
from fp_contracts.phases import PHASES
from fp_ofs_trigger.domain import LEARNING_PHASES, Seen


def test_events_are_counted_by_lane() -> None:
    seen = Seen().note(topics.OFS_EVENTS).note(topics.OFS_EVENTS).note(topics.MF_EVENTS)
    assert seen.metrics() == {"ofs_events": 2, "mf_events": 1}


def test_the_corridor_is_owned_here() -> None:
    assert all(PHASES[phase].owner == "ofs_trigger" for phase in LEARNING_PHASES)
