"""Lanes: numbered lines with their order times and world positions, a function of world and config alone. Pure."""

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from fp_contracts.header import MAX_TS
from fp_contracts.reasons import LineClass
from fp_contracts.runconfig import RunConfig, Window
from fp_wsp.adjudication import Adjudication
from fp_wsp.expand import Event
from fp_wsp.realism import ADMITTED_FATES, EXPECTED, Chooser, Fate

PATIENCE_US = 86_400_000_000  # a held line waits at most a day of event time for a carrier in its own lane


class Line(NamedTuple):
    """One line of a lane. `order_us` = running maximum of ts over the lane's valid lines; `position` in the world."""

    lane: int
    lane_seq: int
    order_us: int
    position: int
    fate: Fate
    item: Event | Adjudication


class Held(NamedTuple):
    """A line to be made later: due behind the first event of its lane at or past `due_us`."""

    due_us: int
    event_id: str
    fate: Fate
    event: Event


def in_window(stretches: Iterable[list[Event | Adjudication]], window: Window) -> Iterator[Event | Adjudication]:
    """The items of a merged world whose time lies in [start, end)."""
    return chain.from_iterable(_clipped(stretches, window))


def _clipped(stretches: Iterable[list[Event | Adjudication]], window: Window) -> Iterator[list[Event | Adjudication]]:
    for stretch in stretches:
        first, end = (bisect_left(stretch, us, key=itemgetter(0)) for us in (window.start_us, window.end_us))
        yield stretch[first:end]
        if end < len(stretch):
            return


class Numbering:
    """Turns one window of the merged world into numbered lines, lane by lane.

    A held line (copy, poison, late context) goes out behind a later item of its lane, so it does not raise the lane's
    running maximum. Without such an item it goes when the world has passed its due time by PATIENCE_US, or at the
    window's end; then late context takes its own time in the order. The ingress lanes are 0 … lanes-1, the adjudication
    lane is number `lanes`.
    """

    def __init__(self, config: RunConfig, window: Window, last_seqs: Mapping[int, int] | None = None) -> None:
        """`last_seqs`: last lane_seq of each lane in the window before, where there was one."""
        self.adjudication_lane = config.lanes
        self.window = window
        self.world_us = window.start_us
        self.position = 0
        self.counts: Counter[tuple[int, Fate]] = Counter()
        self.degraded: set[str] = set()
        self._chooser = Chooser(config.realism)
        self._join_wait_us = config.join_wait_ms * 1_000
        lanes = range(config.lanes + 1)
        self.last_seq = [(last_seqs or {}).get(lane, 0) for lane in lanes]
        self._running_us = [window.start_us for _ in lanes]
        self._held: list[list[Held]] = [[] for _ in lanes]
        self._next_due_us = [window.end_us for _ in lanes]
        self._patience_ends_us = window.end_us

    def number(self, items: Sequence[Event | Adjudication]) -> list[list[Line]]:
        """What `step` makes of all these items, by lane; here plain events that nothing waits for cost a third."""
        lines: list[list[Line]] = [[] for _ in self.last_seq]
        plain = [0 for _ in self.last_seq]
        last_seq, running_us, next_due_us = self.last_seq, self._running_us, self._next_due_us
        new, as_it_is = tuple.__new__, Fate.PLAIN
        first = self.position + 1
        for position, (item, disturbed) in enumerate(zip(items, self._chooser.disturbed(items), strict=True), first):
            if not disturbed and isinstance(item, Event):
                ts_us, _, _, _, lane, _ = item
                if ts_us < next_due_us[lane] and ts_us < self._patience_ends_us:
                    last_seq[lane] = seq = last_seq[lane] + 1
                    order_us = running_us[lane]
                    if ts_us > order_us:
                        running_us[lane] = order_us = ts_us
                    plain[lane] += 1
                    lines[lane].append(new(Line, (lane, seq, order_us, position, as_it_is, item)))
                    continue
            self.position = position - 1
            for line in self.step(item):
                lines[line.lane].append(line)
        self.counts.update({(lane, Fate.PLAIN): n for lane, n in enumerate(plain)})
        if items:
            self.position, self.world_us = first + len(items) - 1, items[-1].ts_us
        return lines

    def step(self, item: Event | Adjudication) -> list[Line]:
        """The lines that one item of the merged world brings; items come in order and lie inside the window."""
        self.position += 1
        self.world_us = item.ts_us
        lines = self._expired() if item.ts_us >= self._patience_ends_us else []
        if isinstance(item, Adjudication):
            lines.append(self._number(self.adjudication_lane, Fate.PLAIN, item))
            return lines
        fate = self._chooser.fate(item)
        if fate is Fate.LATE:
            self._hold(item, fate)
            return lines
        lines.append(self._number(item.lane, Fate.PLAIN, item))
        if fate is not Fate.PLAIN:
            self._hold(item, fate)
        if item.ts_us >= self._next_due_us[item.lane]:
            lines += self._released(item.lane, item.ts_us)
        return lines

    def finish(self) -> list[Line]:
        """The lines still held at the window's end."""
        lines = [line for lane in range(len(self._held)) for line in self._released(lane, MAX_TS)]
        self.world_us = self.window.end_us
        return lines

    def floor_us(self, lane: int) -> int:
        """The lowest order_us a valid line not yet numbered may get on this lane: held late context comes first."""
        late_us = (held.event.ts_us for held in self._held[lane] if held.fate is Fate.LATE)
        return max(self._running_us[lane], min(late_us, default=self.world_us))

    def _number(self, lane: int, fate: Fate, item: Event | Adjudication) -> Line:
        self.last_seq[lane] = seq = self.last_seq[lane] + 1
        order_us = self._running_us[lane]
        if item.ts_us > order_us and fate in ADMITTED_FATES:
            self._running_us[lane] = order_us = item.ts_us
        self.counts[lane, fate] += 1
        return tuple.__new__(Line, (lane, seq, order_us, self.position, fate, item))

    def _hold(self, event: Event, fate: Fate) -> None:
        due_us = self._chooser.due_us(event, fate, self._join_wait_us)
        heapq.heappush(self._held[event.lane], Held(due_us, event.event_id, fate, event))
        self._next_due_us[event.lane] = self._held[event.lane][0].due_us
        self._patience_ends_us = min(self._patience_ends_us, due_us + PATIENCE_US)

    def _released(self, lane: int, up_to_us: int) -> list[Line]:
        held, lines = self._held[lane], []
        while held and held[0].due_us <= up_to_us:
            due = heapq.heappop(held)
            line = self._number(lane, due.fate, due.event)
            lines.append(line)
            if due.fate is Fate.LATE:
                self._note_degraded(due.event, line.order_us)
        self._next_due_us[lane] = held[0].due_us if held else self.window.end_us
        return lines

    def _expired(self) -> list[Line]:
        lines = [line for lane in range(len(self._held)) for line in self._released(lane, self.world_us - PATIENCE_US)]
        first_due_us = min((held[0].due_us for held in self._held if held), default=self.window.end_us)
        self._patience_ends_us = first_due_us + PATIENCE_US
        return lines

    def _note_degraded(self, event: Event, order_us: int) -> None:
        deadline_us = min(event.payment.ts_us + self._join_wait_us, self.window.end_us - 1)
        if order_us > deadline_us:
            self.degraded.add(event.payment.payment_id)


def declared(numbering: Numbering) -> dict[str, Any]:
    """The plan as evidence: how many lines of each fate went to each ingress lane, and what must become of them."""
    ingress = {key: n for key, n in numbering.counts.items() if key[0] != numbering.adjudication_lane}
    fates: Counter[Fate] = Counter()
    for (_, fate), n in ingress.items():
        fates[fate] += n
    reasons: Counter[str] = Counter()
    classes: Counter[LineClass] = Counter()
    for fate, n in fates.items():
        line_class, reason = EXPECTED[fate]
        classes[line_class] += n
        if reason is not None:
            reasons[reason.value] += n
    return {
        "sent": sum(fates.values()),
        "classes": {line_class.value: classes[line_class] for line_class in LineClass},
        "quarantine_reasons": dict(reasons),
        "fates": {fate.value: fates[fate] for fate in Fate},
        "degraded_payments": len(numbering.degraded),
        "adjudications": numbering.counts[numbering.adjudication_lane, Fate.PLAIN],
        "lane_seqs": {str(lane): seq for lane, seq in enumerate(numbering.last_seq)},
    }
