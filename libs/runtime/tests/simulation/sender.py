"""The world stream producer: numbered lines in lanes, one batch in flight each, bounded skew, honest frontiers."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .bugs import Bug
from .kernel import Kernel, Steps
from .world import FOREVER, Line, World


@dataclass
class Request:
    """One batch on the wire; `reply` stays None while none has come (or it is lost)."""

    lane: str
    lines: list[Line]
    frontier: int
    reply: list[str] | str | None = None


UNKNOWN = "202 unknown"


@dataclass
class Sender:
    """Lane tasks over a durable ledger: lines acked, classes received and frontier acked per lane, current window."""

    kernel: Kernel
    world: World
    inboxes: dict[str, list[Request]]
    audit: Callable[[Request], None]
    """Looks at every answer that claims success: what it says must be durable by now."""
    acked: dict[str, int] = field(default_factory=dict)
    classes: dict[tuple[str, int], str] = field(default_factory=dict)
    frontier: dict[str, int] = field(default_factory=dict)
    window: int = 0
    _patience: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for lane in self.world.lanes:
            self.acked[lane], self.frontier[lane] = 0, -1

    @property
    def over(self) -> bool:
        return self.window == len(self.world.window_ends)

    def lane(self, lane: str) -> Steps:
        """Send the lane's batches and rounds of the current window until the last window has ended."""
        sent = True
        while True:
            yield None if sent else 40
            sent = False
            if self.over:
                continue
            end = self.world.window_ends[self.window]
            if all(frontier >= end for frontier in self.frontier.values()):
                self.window, sent = self.window + 1, True
                continue
            lines, frontier = self._next(lane, end)
            if not lines and frontier <= self.frontier[lane]:
                continue
            sent = True
            request = Request(lane, lines, frontier)
            yield from self._post(request)
            if not isinstance(request.reply, list) and self.kernel.bug is not Bug.LANE_GOES_ON_AFTER_202:
                continue
            if isinstance(request.reply, list):
                self.audit(request)
            for line, got in zip(lines, request.reply or (), strict=False):
                first = self.classes.setdefault((lane, line.seq), got)
                assert first == got, "a resend must get its first class back"
            self.acked[lane] = max(self.acked[lane], lines[-1].seq if lines else 0)
            self.frontier[lane] = max(self.frontier[lane], frontier)

    def _post(self, request: Request) -> Steps:
        """Wait for a reply, for a while."""
        self.inboxes[request.lane].append(request)
        patience = self._patience.setdefault(request.lane, self.kernel.rng.choice((200, 1_000)))
        give_up = self.kernel.now + patience
        while request.reply is None and self.kernel.now < give_up:
            yield
        # Without backing off, resends would pile up in front of a writer that is only slow.
        self._patience[request.lane] = min(1_500, 2 * patience) if request.reply is None else patience

    def _next(self, lane: str, end: int) -> tuple[list[Line], int]:
        """The next batch of the window and the frontier after it."""
        read = min(self._unsent(name, end) for name in self.world.lanes) + self.kernel.plan.skew
        lines = self.world.lanes[lane]
        start = stop = self.acked[lane]
        size = self.kernel.rng.randint(1, self.kernel.plan.batch)
        while stop < min(len(lines), start + size) and lines[stop].position < read and lines[stop].order < end:
            stop += 1
        return lines[start:stop], self._frontier_after(lane, stop, read, end)

    def _frontier_after(self, lane: str, stop: int, read: int, end: int) -> int:
        """The lowest order_ts that may come in the lane behind line `stop`, the world being known up to `read`.

        A late line that is held back counts: it will come at the lane's running maximum, not at the world's time.
        """
        lines = self.world.lanes[lane]
        floor = lines[stop - 1].order if stop else 0
        frontier = max(floor, self.world.at_position(read))
        if stop < len(lines) and self.kernel.bug is not Bug.HELD_LINE_FORGOTTEN:
            frontier = min(frontier, lines[stop].order)
        if frontier >= end and self.kernel.bug is Bug.CLOSING_PAST_WINDOW_END:
            return end + 3
        return min(frontier, end)

    def _unsent(self, lane: str, end: int) -> int:
        """World position of the lane's next item. A lane that ended its window holds nobody: a late line of the window
        may lie behind its first lines of the next one."""
        lines, done = self.world.lanes[lane], self.acked[lane]
        return lines[done].position if done < len(lines) and self.frontier[lane] < end else FOREVER
