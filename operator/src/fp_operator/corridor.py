"""Where the learning lane of a full run stands, in one line: from the control log and the heartbeats. Pure."""

from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_contracts.registry import switch_times
from fp_contracts.windows import SECOND, flowing, promotion_stands

LEARNING = ("P12", "P13", "P14", "P15")


def standing(state: RunState) -> str | None:
    """What the first open learning phase is at, e.g. "P14 job 3 of 8"; None outside the learning lane."""
    full = state.header is not None and state.header.config.scope == "full"
    phase = next((key for key in LEARNING if not state.passed(key)), None)
    if full and phase is None and not state.rehearsals and state.state_of("P16") == "OPEN":
        return "P16 waits for the rehearsal of a teardown: fp watch or fp rehearse makes one"
    if not full or phase is None or not state.may_open(phase):
        return None
    return f"{phase} {_promotion(state) if phase == 'P15' else _job(state)}"


def _job(state: RunState) -> str:
    """The running job as its runner last said it."""
    beats = [beat for beat in state.heartbeats.values() if beat.service == "ofs_trigger"]
    done = max((beat.metrics.get("job_done", -1) for beat in beats), default=-1)
    total = max((beat.metrics.get("job_total", 0) for beat in beats), default=0)
    return f"job {done:,} of {total:,}" if done >= 0 else "job is asked for"


def _promotion(state: RunState) -> str:
    if SECOND in state.reconciled:
        return "window 2 is reconciled"
    if SECOND in state.windows_ended:
        return "window 2 is sent, its equations are checked"
    if flowing(state) == SECOND:
        return f"window 2 flows, {_turns(state)}"
    if not state.approvals:
        return "waits for an approval: fp models approve --as NAME --reason …"
    return "promotion stands" if promotion_stands(state) else f"promotion: {_on_it(state, 0)} partitions decide by it"


def _turns(state: RunState) -> str:
    """How many partitions passed the rollback and the re-promotion of the drill."""
    return f"rollback on {_on_it(state, 1)}, re-promotion on {_on_it(state, 2)} partitions"


def _on_it(state: RunState, turn: int) -> str:
    header = state.header
    times = None if header is None else switch_times(header.config.windows)
    at_us = None if times is None else times.ascending()[turn]
    parts = {event.partition for event in state.bundles if event.effective_us == at_us}
    return f"{len(parts)} of {'?' if header is None else header.partitions(topics.RTDL)}"
