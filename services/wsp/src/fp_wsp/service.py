"""Streaming one window: every lane one batch in flight, each line classed before its lane goes on (dataflow.md §3)."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, Protocol

from fp_runtime.errors import Unavailable
from fp_runtime.failpoint import Failpoint, hit
from fp_runtime.logs import logger
from fp_wsp.adapters import LaneProgress
from fp_wsp.feed import Batch, LaneFeed, split
from fp_wsp.sender import Answer, Reply, Sender

log = logger(__name__)
SAVE_S = 0.5
FLAT_OUT_MARK_S = 0.2  # a lane that waits for a fair share of lines has nothing new to say of its frontier
BACKOFF_S, BACKOFF_MAX_S = 0.05, 1.0
STOP_POLL_S = 0.2


class Store(Protocol):
    """Where progress is kept; raises Unavailable."""

    def save(self, moved: Mapping[int, LaneProgress]) -> None:
        """Save the lanes that moved."""
        ...


@dataclass(slots=True)
class Board:
    """What the control thread may see of the stream: written by the loop only. Times are monotonic seconds."""

    sent: int = 0
    classed: int = 0
    total: int = 0
    in_doubt: set[int] = field(default_factory=set)
    started_s: float = 0.0
    ended_s: float = 0.0
    waiting_since: dict[int, float] = field(default_factory=dict)

    def lag_ms(self) -> int:
        """Age of the oldest batch that has no classes yet."""
        oldest = min(tuple(self.waiting_since.values()), default=None)
        return 0 if oldest is None else int((time.monotonic() - oldest) * 1_000)

    def rate_per_s(self) -> int:
        """Lines classed per second since the stream began."""
        until = self.ended_s or time.monotonic()
        return int(self.classed / max(until - self.started_s, 0.001)) if self.started_s else 0


class Heads(Protocol):
    """Where the slowest lane stands."""

    def head(self) -> int:
        """World position of the first line that is not acknowledged."""
        ...


class Settled(NamedTuple):
    """What a lane's thread brought about: the classes of a batch, or a watermark round (batch None)."""

    lane: int
    batch: Batch | None
    classes: tuple[Sequence[str], ...]
    frontier_us: int


class Stream:
    """One window of one run. `pace_per_s` 0 = flat out, else world positions per second on a common tick."""

    def __init__(
        self,
        feed: LaneFeed,
        senders: Mapping[int, Sender],
        progress: Mapping[int, LaneProgress],
        store: Store,
        board: Board,
        watermark_interval_s: float,
        pace_per_s: int = 0,
        label_slack_us: int = 0,
    ) -> None:
        """`label_slack_us`: by how much the adjudication lane's frontier must rise before it is told without a line."""
        self._feed = feed
        self._senders = senders
        self._progress = {lane: progress.get(lane, LaneProgress()) for lane in feed.lanes}
        self._store = store
        self._board = board
        self._interval_s = watermark_interval_s if pace_per_s else max(watermark_interval_s, FLAT_OUT_MARK_S)
        self._pace = Pace(pace_per_s)
        self._least = 1 if pace_per_s else feed.fair_share // 2
        self._slack_us = label_slack_us
        self._moved: set[int] = set()
        self._marked_at = dict.fromkeys(feed.lanes, 0.0)
        self._saved_at = time.monotonic()
        board.classed = board.sent = sum(sum(p.counts.values()) for p in self._progress.values())

    def run(self, stopping: Callable[[], bool]) -> bool:
        """Send everything; True when every lane has ended with the window's frontier acknowledged.

        Raises Unavailable when a lane is refused for good: the other lanes then stop waiting too.
        """
        flying: dict[Future[Settled | None], int] = {}
        failed = threading.Event()

        def halted() -> bool:
            return failed.is_set() or stopping()

        self._board.started_s = time.monotonic()
        with ThreadPoolExecutor(len(self._feed.lanes), thread_name_prefix="lane") as pool:
            try:
                while not halted() and (flying or not self._finished()):
                    self._turn(pool, flying, halted)
            except BaseException:
                failed.set()
                raise
        # Asked to stop: what was answered on the way out counts, so that less is sent again.
        for future in flying:
            self._settle(future.result())
        self._save(force=True)
        self._board.ended_s = time.monotonic()
        return self._finished()

    def _turn(
        self, pool: ThreadPoolExecutor, flying: dict[Future[Settled | None], int], halted: Callable[[], bool]
    ) -> None:
        """Start what can go, take in what was answered; waits no longer than something may fall due."""
        flying |= self._launch(pool, set(flying.values()), halted)
        free = len(flying) < len(self._feed.lanes)
        patience_s = min(self._interval_s if free else STOP_POLL_S, self._pace.next_tick_s())
        if not flying:
            time.sleep(patience_s)
        # Between ticks an answer lets nobody send, so paced answers are taken in together.
        done, _ = wait(flying, patience_s, ALL_COMPLETED if self._pace.ticking else FIRST_COMPLETED)
        for future in done:
            flying.pop(future)
            self._settle(future.result())
        self._save(force=False)

    def counts(self) -> dict[int, Counter[str]]:
        """Lines by class and reason of every lane."""
        return {lane: progress.counts for lane, progress in self._progress.items()}

    def last_seqs(self) -> dict[int, int]:
        """The last classed sequence of every lane."""
        return {lane: progress.acked_seq for lane, progress in self._progress.items()}

    def _launch(
        self, pool: ThreadPoolExecutor, busy: set[int], stopping: Callable[[], bool]
    ) -> dict[Future[Settled | None], int]:
        started: dict[Future[Settled | None], int] = {}
        feed, up_to = self._feed, self._pace.up_to(self._feed)
        # Paced, the ingress lanes go together: one claim and one produce for all, and no stage waits for the rest.
        if self._pace.ticking and busy - {feed.lanes[-1]}:
            return started
        # While another batch flies, a lane waits until a fair share of lines is there: every request costs the same,
        # whatever is in it. The adjudicator's few lines never wait, since all lanes would wait for them.
        least = self._least if feed.flying else 1
        for lane in feed.lanes:
            if lane in busy:
                continue
            batch = feed.take(lane, None, up_to, 1 if lane == feed.lanes[-1] else least)
            if batch is not None:
                self._board.sent += len(batch.lines)
                started[pool.submit(self._deliver, batch, stopping)] = lane
            elif self._mark_due(lane):
                self._marked_at[lane] = time.monotonic()
                started[pool.submit(self._mark, lane, feed.frontier_us(lane), stopping)] = lane
        return started

    def _mark_due(self, lane: int) -> bool:
        rise_us = self._feed.frontier_us(lane) - self._progress[lane].frontier_us
        if lane == self._feed.lanes[-1] and not self._feed.read_all and rise_us < self._slack_us:
            return False
        return rise_us > 0 and time.monotonic() - self._marked_at[lane] >= self._interval_s

    def _mark(self, lane: int, frontier_us: int, stopping: Callable[[], bool]) -> Settled | None:
        """A watermark round, repeated until it is acknowledged. Runs in the lane's thread."""
        answer = self._until_settled(lane, 0, (), frontier_us, stopping)
        if answer is not None and answer.reply is Reply.SPLIT:
            raise Unavailable(f"lane {lane}: a round without lines was called too large: {answer.detail}")
        return None if answer is None else Settled(lane, None, (), frontier_us)

    def _deliver(self, batch: Batch, stopping: Callable[[], bool]) -> Settled | None:
        """Send a batch until every line has a class; halves of it when it is too large. Runs in the lane's thread."""
        pieces = [batch]
        classes: list[Sequence[str]] = []
        while pieces:
            piece = pieces.pop(0)
            answer = self._until_settled(piece.lane, piece.first_seq, piece.lines, piece.frontier_us, stopping)
            if answer is None:
                return None
            if answer.reply is Reply.SPLIT:
                if len(piece.lines) < 2:
                    raise Unavailable(f"lane {piece.lane}: line {piece.first_seq} alone is too large: {answer.detail}")
                pieces[:0] = split(piece)
            else:
                classes += answer.classes
        return Settled(batch.lane, batch, tuple(classes), batch.frontier_us)

    def _settle(self, settled: Settled | None) -> None:
        """Take a lane's result in; only this thread touches the feed and the progress."""
        if settled is None:
            return
        progress = self._progress[settled.lane]
        for kind, n in Counter(map(itemgetter(0), settled.classes)).items():
            if kind in ("QUARANTINED", "REJECTED"):
                progress.counts.update(f"{kind}|{reason}" for other, reason in settled.classes if other == kind)
            else:
                progress.counts[kind] += n
        progress.frontier_us = max(progress.frontier_us, settled.frontier_us)
        if settled.batch is not None:
            progress.acked_seq = settled.batch.last_seq
            self._feed.ack(settled.batch)
            self._board.classed += len(settled.classes)
        self._moved.add(settled.lane)

    def _until_settled(
        self, lane: int, first_seq: int, lines: tuple[bytes, ...], frontier_us: int, stopping: Callable[[], bool]
    ) -> Answer | None:
        """The settling reply; None when asked to stop. Raises Unavailable when the other side refuses for good."""
        backoff_s = BACKOFF_S
        self._board.waiting_since[lane] = time.monotonic()
        try:
            while not stopping():
                hit(Failpoint.WSP_BEFORE_SEND)
                answer = self._senders[lane].post(lane, first_seq, lines, frontier_us)
                hit(Failpoint.WSP_AFTER_SEND)
                if answer.reply in (Reply.CLASSED, Reply.SPLIT):
                    return answer
                if answer.reply is Reply.REFUSED:
                    raise Unavailable(f"lane {lane} refused: {answer.detail}")
                if answer.unknown:
                    self._board.in_doubt.add(lane)
                log.info("batch_sent_again", lane=lane, first_seq=first_seq, why=answer.detail)
                time.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
            return None
        finally:
            self._board.waiting_since.pop(lane, None)
            self._board.in_doubt.discard(lane)

    def _finished(self) -> bool:
        feed = self._feed
        return all(
            feed.ended(lane) and self._progress[lane].frontier_us >= feed.frontier_us(lane) for lane in feed.lanes
        )

    def _save(self, force: bool) -> None:
        now = time.monotonic()
        if not self._moved or not (force or now - self._saved_at >= SAVE_S):
            return
        moved, self._moved = self._moved, set()
        self._store.save({lane: self._progress[lane] for lane in moved})
        hit(Failpoint.WSP_AFTER_CHECKPOINT)
        self._saved_at = now


class Pace:
    """How far into the world the lanes may send, on one common tick for all of them; 0 per second = no limit.

    By world position and not by lines: on each tick every lane sends what it has of the same stretch of event time, so
    that no stage waits for a lane whose turn comes later.
    """

    TICK_S = 0.05

    def __init__(self, per_s: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock_s = clock_s
        self._at_s = clock_s()
        self._up_to: float | None = None

    @property
    def ticking(self) -> bool:
        """Whether there is a limit at all."""
        return self._per_s > 0

    def up_to(self, feed: Heads) -> int | None:
        """The last world position that may be sent now. After a stall at most a second's worth is made up for."""
        if self._per_s == 0:
            return None
        passed_s = self._clock_s() - self._at_s
        if self._up_to is None:
            self._up_to = float(feed.head())
        elif passed_s >= self.TICK_S:
            self._up_to = min(self._up_to + passed_s * self._per_s, float(feed.head() + self._per_s))
            self._at_s += passed_s
        return int(self._up_to)

    def next_tick_s(self) -> float:
        """How long until `up_to` may rise."""
        return max(0.0, self._at_s + self.TICK_S - self._clock_s()) if self._per_s else math.inf
