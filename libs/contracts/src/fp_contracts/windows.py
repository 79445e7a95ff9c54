"""Which window of a run flows: a function of the control log alone (dataflow.md §7). Pure."""

from fp_contracts import topics
from fp_contracts.control import BundleSwitched
from fp_contracts.fold import RunState
from fp_contracts.registry import switch_times

FIRST, SECOND = 1, 2
_BY_NAME = ("tenant", "global")


def may_begin(state: RunState, window: int) -> bool:
    """Window 1 flows from READY on; window 2 once the promotion of a full run stands; there is no other.

    It stands when every df partition reported that the promoted bundle decides from the start of window 2 on.
    """
    if state.header is None or not 0 < window <= len(state.header.config.windows):
        return False
    if window == FIRST:
        return bool(state.ready)
    return window == SECOND and FIRST in state.windows_ended and promotion_stands(state)


def may_prepare(state: RunState, window: int) -> bool:
    """Whether a sender may read ahead to a window's first line: a later one once window 1 is closed by P11.

    Sooner, reading would take the core that the closing needs; by the promotion, the first line is at hand.
    """
    return window == FIRST or state.passed("P11")


def promotion_stands(state: RunState) -> bool:
    """Whether every partition decides by the bundle that was promoted for window 2; false outside scope `full`."""
    if state.header is None or state.header.config.scope != "full":
        return False
    times = switch_times(state.header.config.windows)
    if times is None:
        return False
    on_it = {event.partition for event in state.bundles if _serves(event, times.promote_us)}
    return on_it == set(range(state.header.partitions(topics.RTDL)))


def switches_passed(state: RunState) -> bool:
    """Whether every df partition reported each pinned switch of window 2: none is held at one any more."""
    header = state.header
    times = None if header is None else switch_times(header.config.windows)
    if header is None or times is None:
        return False
    parts = set(range(header.partitions(topics.RTDL)))
    return all(
        {event.partition for event in state.bundles if event.effective_us == at_us} == parts
        for at_us in times.ascending()
    )


def flowing(state: RunState) -> int | None:
    """The window that is being sent now; None before READY and between windows."""
    windows = () if state.header is None else state.header.config.windows
    numbers = range(1, len(windows) + 1)
    return next((n for n in numbers if may_begin(state, n) and n not in state.windows_ended), None)


def _serves(event: BundleSwitched, promote_us: int) -> bool:
    return event.effective_us == promote_us and event.bundle_ref is not None and event.source in _BY_NAME
