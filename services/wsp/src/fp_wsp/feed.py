"""The lanes' feed: batches within the skew bound, each with the frontier that holds behind it. Pure; memory bounded."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, islice
from typing import NamedTuple

from fp_contracts import derive
from fp_contracts.canonical import trusted_bytes
from fp_contracts.envelope import BODY_LIMIT
from fp_contracts.records import Pins
from fp_contracts.runconfig import RunConfig
from fp_wsp.adjudication import Adjudication
from fp_wsp.expand import Event
from fp_wsp.lanes import Held, Lines, Numbering
from fp_wsp.lines import LineWriter
from fp_wsp.realism import AS_IT_IS, write

ADJUDICATOR = "external-adjudicator"
MAX_POSITION = 2**62


class Batch(NamedTuple):
    """Lines first_seq, first_seq + 1, … of a lane. Behind them no valid line comes below `frontier_us`."""

    lane: int
    first_seq: int
    lines: tuple[bytes, ...]
    orders_us: tuple[int, ...]
    positions: tuple[int, ...]
    frontier_us: int

    @property
    def last_seq(self) -> int:
        """lane_seq of the last line."""
        return self.first_seq + len(self.lines) - 1


def split(batch: Batch) -> tuple[Batch, Batch]:
    """Two halves under the same numbers (the answer to 413); ValueError for a batch of one line."""
    if len(batch.lines) < 2:
        raise ValueError("a batch of one line cannot be split")
    half = len(batch.lines) // 2
    first = Batch(
        batch.lane, batch.first_seq, batch.lines[:half], batch.orders_us[:half], batch.positions[:half],
        batch.orders_us[half],
    )  # fmt: skip
    second = batch._replace(
        first_seq=batch.first_seq + half,
        lines=batch.lines[half:],
        orders_us=batch.orders_us[half:],
        positions=batch.positions[half:],
    )
    return first, second


def line_writer(pins: Pins) -> Callable[[Lines], list[bytes]]:
    """How lines are written: an event under its fate, or a verdict as a label assertion (contracts.md §4)."""
    writer = LineWriter(pins)
    lines_of = writer.lines_of

    def other_line(made_of: Adjudication | Held) -> bytes:
        if isinstance(made_of, Adjudication):
            return verdict_line(made_of, pins.platform_run_id)
        return writer.line_of(made_of.event) if made_of.fate in AS_IT_IS else write(made_of.event, made_of.fate, pins)

    def written(lines: Lines) -> list[bytes]:
        return [
            (it.flow.lines or lines_of(it.flow))[it.part] if isinstance(it, Event) else other_line(it)
            for it in lines.made_of
        ]

    return written


def verdict_line(verdict: Adjudication, run: str) -> bytes:
    """A verdict as the canonical JSON of a LabelAssertion, without the newline."""
    value = "FRAUD_CONFIRMED" if verdict.is_fraud else "LEGIT_CONFIRMED"
    kind, source = "fraud_disposition", "EXTERNAL"
    return trusted_bytes(
        {
            "assertion_id": derive.assertion_id(run, verdict.event_id, kind, source, ADJUDICATOR, value, verdict.ts_us),
            "subject": {
                "platform_run_id": run,
                "event_id": verdict.event_id,
                "merchant_id": verdict.merchant_id,
                "account_id": verdict.account_id,
            },
            "label_type": kind,
            "label_value": value,
            "effective_us": verdict.effective_us,
            "observed_us": verdict.ts_us,
            "source": source,
            "actor": ADJUDICATOR,
            "evidence_refs": [],
        }
    )


class LaneFeed:
    """Hands out each lane's lines, one batch in flight per lane, no lane further ahead than `lane_skew_limit`.

    A lane without a line at hand stands at the world's reading position, so it holds nobody and needs no read-ahead.
    After a restart the same feed is built again and lines up to `acked` are passed over: numbers never change.
    """

    def __init__(
        self,
        items: Iterable[Event | Adjudication],
        numbering: Numbering,
        config: RunConfig,
        written: Callable[[Lines], list[bytes]],
        acked: Mapping[int, int] | None = None,
    ) -> None:
        """`items`: one window of the merged world (`in_window`). `acked`: last acknowledged lane_seq of each lane."""
        self._items: Iterator[Event | Adjudication] = iter(items)
        self._numbering = numbering
        self._config = config
        self._written = written
        self._acked = acked or {}
        self._waiting = numbering.no_lines()
        self._in_flight: dict[int, Batch] = {}
        self._read_all = False

    @property
    def lanes(self) -> range:
        """Every lane, the adjudication lane last."""
        return range(len(self._waiting))

    @property
    def buffered(self) -> int:
        """Lines read and not yet handed out."""
        return sum(len(lines) for lines in self._waiting)

    @property
    def flying(self) -> bool:
        """Whether any batch is in flight."""
        return bool(self._in_flight)

    @property
    def read_all(self) -> bool:
        """Whether the world was read to the window's end."""
        return self._read_all

    @property
    def fair_share(self) -> int:
        """Lines of one lane when the skew bound is shared evenly, at most a batch."""
        return max(1, min(self._config.batch_lines, self._config.lane_skew_limit // self._config.lanes))

    def head(self) -> int:
        """The world position of the slowest lane: of the first line that is not acknowledged; where reading is now
        while no lane holds a line."""
        slowest = self._slowest()
        return self._numbering.position if slowest is None else slowest

    def take(
        self, lane: int, max_lines: int | None = None, up_to: int | None = None, at_least: int = 1
    ) -> Batch | None:
        """The next batch of a lane, or None: one is in flight, nothing to send now, or too far ahead of the slowest.

        Nothing beyond world position `up_to`, and no batch of fewer than `at_least` lines.
        """
        waiting = self._waiting[lane]
        if lane in self._in_flight or (up_to is not None and waiting and waiting.positions[0] > up_to):
            return None
        self._read_ahead()
        bound = self._bound(up_to)
        if len(waiting) < at_least or waiting.positions[at_least - 1] > bound:
            return None
        limit = self._config.batch_lines if max_lines is None else max_lines
        lines = waiting.first(bisect_right(waiting.positions, bound, 0, min(limit, len(waiting))))
        raw = _one_body(self._written(lines))
        if not raw:
            return None
        orders_us, positions = tuple(lines.orders_us[: len(raw)]), tuple(lines.positions[: len(raw)])
        waiting.drop(len(raw))
        batch = Batch(lane, lines.first_seq, tuple(raw), orders_us, positions, self.frontier_us(lane))
        self._in_flight[lane] = batch
        return batch

    def ack(self, batch: Batch) -> None:
        """Every line of the batch has a class: the lane goes on. ValueError when it is not the one in flight."""
        flying = self._in_flight.get(batch.lane)
        if flying is None or flying.last_seq != batch.last_seq:
            raise ValueError(f"lane {batch.lane}: this batch is not in flight")
        del self._in_flight[batch.lane]

    def frontier_us(self, lane: int) -> int:
        """The lowest order_us of a valid line not yet handed out; the window's end once the lane has ended.

        The last batch of a lane may carry less than the window's end: the closing watermark is asked for here.
        """
        waiting = self._waiting[lane]
        if waiting:
            return waiting.orders_us[0]
        return self._numbering.window.end_us if self._read_all else self._numbering.floor_us(lane)

    def ended(self, lane: int) -> bool:
        """Everything of this lane in this window was acknowledged."""
        return self._read_all and not self._waiting[lane] and lane not in self._in_flight

    def _slowest(self) -> int | None:
        """World position of the first line not acknowledged; None when no lane holds anything."""
        heads = [lines.positions[0] for lines in self._waiting if lines]
        heads += [batch.positions[0] for batch in self._in_flight.values()]
        return min(heads, default=None)

    def _bound(self, up_to: int | None = None) -> int:
        """The highest world position that may be sent now."""
        slowest = self._slowest()
        bound = MAX_POSITION if slowest is None else slowest + self._config.lane_skew_limit
        return bound if up_to is None else min(bound, up_to)

    def _read_ahead(self) -> None:
        """Reads up to the bound.

        `limit` items never pass it, not even while no lane holds a line: the first one lies behind the reading position
        and the bound `limit` behind that.
        """
        limit, numbering, acked = self._config.lane_skew_limit, self._numbering, self._acked.get
        while not self._read_all and (room := self._bound() - numbering.position) > 0:
            wanted = min(room, limit)
            items = list(islice(self._items, wanted))
            read = numbering.number(items)
            if len(items) < wanted:
                self._read_all = True
                read += numbering.finish()
            for lines in read:
                waiting = self._waiting[lines.lane]
                waiting.extend(lines)
                waiting.drop(acked(lines.lane, 0) - waiting.first_seq + 1)


def _one_body(lines: list[bytes]) -> list[bytes]:
    """The first lines that make one request: one at least, no more than a body holds."""
    if sum(map(len, lines)) + len(lines) <= BODY_LIMIT:
        return lines
    fitting = bisect_right(list(accumulate(len(line) + 1 for line in lines)), BODY_LIMIT)
    return lines[: max(fitting, 1)]
