"""Lanes: numbered lines with their order times and world positions, a function of world and config alone. Pure."""

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


class Held(NamedTuple):
    """A line to be made later: due behind the first event of its lane at or past `due_us`."""

    due_us: int
    event_id: str
    fate: Fate
    event: Event


@dataclass(slots=True)
class Lines:
    """Neighbouring lines of a lane, numbered from `first_seq`; columns, since an object per line would cost the most.

    `orders_us`: running maximum of ts over the lane's valid lines; `positions` in the world. What a line is `made_of`
    goes out as it is, but for a held line: that has a fate of its own.
    """

    lane: int
    first_seq: int
    orders_us: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    made_of: list[Event | Adjudication | Held] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.positions)

    def append(self, order_us: int, position: int, made_of: Event | Adjudication | Held) -> None:
        """One more line."""
        self.orders_us.append(order_us)
        self.positions.append(position)
        self.made_of.append(made_of)

    def extend(self, lines: "Lines") -> None:
        """The lines that come next in the lane."""
        self.orders_us += lines.orders_us
        self.positions += lines.positions
        self.made_of += lines.made_of

    def first(self, n: int) -> "Lines":
        """The first `n` lines, or all."""
        return Lines(self.lane, self.first_seq, self.orders_us[:n], self.positions[:n], self.made_of[:n])

    def drop(self, n: int) -> None:
        """Without the first `n` lines; all go when there are fewer, none below one."""
        n = max(0, min(n, len(self)))
        self.first_seq += n
        del self.orders_us[:n], self.positions[:n], self.made_of[:n]


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

    def number(self, items: Sequence[Event | Adjudication]) -> list[Lines]:
        """What `step` makes of all these items, by lane; here plain events that nothing waits for cost 0.3 of it."""
        lines = self.no_lines()
        orders_us, positions, made_of = zip(*((ln.orders_us, ln.positions, ln.made_of) for ln in lines), strict=True)
        running_us, next_due_us = self._running_us, self._next_due_us
        first = self.position + 1
        for position, (item, disturbed) in enumerate(zip(items, self._chooser.disturbed(items), strict=True), first):
            if not disturbed and isinstance(item, Event):
                ts_us, _, _, _, lane, _ = item
                if ts_us < next_due_us[lane] and ts_us < self._patience_ends_us:
                    running_us[lane] = ts_us  # items come in order, so nothing before it was later
                    orders_us[lane].append(ts_us)
                    positions[lane].append(position)
                    made_of[lane].append(item)
                    continue
            self.position = position - 1
            self.step(item, lines)
        for lane, found in enumerate(lines):
            last_seq = found.first_seq + len(found) - 1
            self.counts[lane, Fate.PLAIN] += last_seq - self.last_seq[lane]  # those that no step has counted
            self.last_seq[lane] = last_seq
        if items:
            self.position, self.world_us = first + len(items) - 1, items[-1].ts_us
        return lines

    def no_lines(self) -> list[Lines]:
        """Of each lane the lines that come next, before there is one."""
        return [Lines(lane, seq + 1) for lane, seq in enumerate(self.last_seq)]

    def step(self, item: Event | Adjudication, lines: Sequence[Lines]) -> None:
        """Appends the lines that one item of the merged world brings; items come in order and lie inside the window."""
        self.position += 1
        self.world_us = item.ts_us
        if item.ts_us >= self._patience_ends_us:
            self._expire(lines)
        if isinstance(item, Adjudication):
            self._number(lines[self.adjudication_lane], Fate.PLAIN, item, item.ts_us)
            return
        fate, found = self._chooser.fate(item), lines[item.lane]
        if fate is not Fate.LATE:
            self._number(found, Fate.PLAIN, item, item.ts_us)
        if fate is not Fate.PLAIN:
            self._hold(item, fate)
        if fate is not Fate.LATE and item.ts_us >= self._next_due_us[item.lane]:
            self._release(found, item.ts_us)

    def finish(self) -> list[Lines]:
        """The lines still held at the window's end, by lane."""
        lines = self.no_lines()
        for found in lines:
            self._release(found, MAX_TS)
        self.world_us = self.window.end_us
        return lines

    def floor_us(self, lane: int) -> int:
        """The lowest order_us a valid line not yet numbered may get on this lane: held late context comes first."""
        late_us = (held.event.ts_us for held in self._held[lane] if held.fate is Fate.LATE)
        return max(self._running_us[lane], min(late_us, default=self.world_us))

    def _number(self, lines: Lines, fate: Fate, made_of: Event | Adjudication | Held, ts_us: int) -> int:
        """The order of the lane's next line."""
        lane = lines.lane
        order_us = self._running_us[lane]
        if ts_us > order_us and fate in ADMITTED_FATES:
            self._running_us[lane] = order_us = ts_us
        lines.append(order_us, self.position, made_of)
        self.last_seq[lane] += 1
        self.counts[lane, fate] += 1
        return order_us

    def _hold(self, event: Event, fate: Fate) -> None:
        due_us = self._chooser.due_us(event, fate, self._join_wait_us)
        heapq.heappush(self._held[event.lane], Held(due_us, event.event_id, fate, event))
        self._next_due_us[event.lane] = self._held[event.lane][0].due_us
        self._patience_ends_us = min(self._patience_ends_us, due_us + PATIENCE_US)

    def _release(self, lines: Lines, up_to_us: int) -> None:
        """Of one lane the held lines that are due."""
        held = self._held[lines.lane]
        while held and held[0].due_us <= up_to_us:
            due = heapq.heappop(held)
            order_us = self._number(lines, due.fate, due, due.event.ts_us)
            if due.fate is Fate.LATE:
                self._note_degraded(due.event, order_us)
        self._next_due_us[lines.lane] = held[0].due_us if held else self.window.end_us

    def _expire(self, lines: Sequence[Lines]) -> None:
        """Of every lane the held lines that have waited long enough."""
        for found in lines:
            self._release(found, self.world_us - PATIENCE_US)
        first_due_us = min((held[0].due_us for held in self._held if held), default=self.window.end_us)
        self._patience_ends_us = first_due_us + PATIENCE_US

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
