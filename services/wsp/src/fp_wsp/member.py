"""One wsp over a run: opens the world, streams each window, declares its end; evaluates P3 and P6."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

from fp_contracts.control import WindowEnded
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.ingress import ADJUDICATION, EVENT_CLASSES
from fp_contracts.runconfig import RunHeader
from fp_contracts.waivers import Waiver
from fp_contracts.windows import FIRST, may_begin, may_prepare
from fp_runtime.controllog import Event, header_pins
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceStore, put_json
from fp_runtime.logs import logger
from fp_runtime.participant import Evaluate, now_us
from fp_runtime.postgres import Connection, connect
from fp_runtime.process import Process
from fp_runtime.tokens import Claims, issue, parse_keys
from fp_wsp import adapters, expand, gates
from fp_wsp.adapters import LaneProgress
from fp_wsp.adjudication import adjudications, with_adjudications
from fp_wsp.feed import LaneFeed, line_writer
from fp_wsp.lanes import Numbering, declared, in_window
from fp_wsp.realism import expected_lines
from fp_wsp.sender import Sender
from fp_wsp.service import Board, Stream
from fp_wsp.settings import WspSettings
from fp_wsp.world import Payment
from fp_wsp.world_check import verify
from fp_wsp.world_store import World, open_world

log = logger(__name__)
# Labels take effect a delay after they were observed, so nobody waits for a frontier that lags an eighth of it behind.
LABEL_SLACK = 8
BEAT_MAX_AGE_US = 30_000_000  # three heartbeats


@dataclass(slots=True)
class Shared:
    """What the data loop lets the control thread see, of the run that it serves now."""

    run: str = ""
    board: Board = field(default_factory=Board)
    ended: dict[int, WindowEnded] = field(default_factory=dict)
    streaming: bool = False

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat and the live board."""
        board = self.board
        return {
            "sent": board.sent, "classed": board.classed, "total": board.total, "lag_ms": board.lag_ms(),
            "rate_per_s": board.rate_per_s(), "in_doubt": len(board.in_doubt),
        }  # fmt: skip

    def react(self, state: RunState) -> Sequence[Event]:
        """window_ended for every window whose end is on record and not yet on the log.

        The control thread may already follow the next run while the data loop still holds the end of the last one.
        """
        if self.run != state.platform_run_id:
            return ()
        missing = [end for number, end in tuple(self.ended.items()) if number not in state.windows_ended]
        return [(end, (str(end.window),)) for end in missing]


class Tokens:
    """sender.Tokens of this producer for one run: renewed at half their life, and when one was refused."""

    def __init__(self, settings: WspSettings, run: str, clock: Callable[[], int] = now_us) -> None:
        self._keys = parse_keys(settings.producer_keys)
        self._run = run
        self._life_us = settings.token_life_s * 1_000_000
        self._clock = clock
        self._lock = threading.Lock()
        self._token, self._renew_us = "", 0

    def current(self) -> str:
        """See sender.Tokens."""
        with self._lock:
            at = self._clock()
            if at >= self._renew_us:
                classes = (*EVENT_CLASSES, ADJUDICATION)
                kid = next(iter(self._keys))
                claims = Claims(kid=kid, sub="wsp", run=self._run, classes=classes, exp_us=at + self._life_us)
                self._token, self._renew_us = issue(self._keys, claims), at + self._life_us // 2
            return self._token

    def refused(self, token: str) -> None:
        """See sender.Tokens; lanes share a token, so only the first refusal of it counts."""
        with self._lock:
            if token == self._token:
                self._renew_us = 0


class WindowStore:
    """service.Store over one window of a run."""

    def __init__(self, conn: Connection, run: str, window: int) -> None:
        self._conn = conn
        self._run = run
        self._window = window

    def save(self, moved: Mapping[int, LaneProgress]) -> None:
        """See service.Store."""
        adapters.save(self._conn, self._run, self._window, list(moved.items()))


def serve(settings: WspSettings, shared: Shared, store: EvidenceStore, process: Process, state: RunState) -> None:
    """Stream every window of a run as it may begin: the first at READY; then wait until the run is over."""
    header = state.header
    assert header is not None
    shared.run = ""
    shared.board, shared.ended, shared.streaming = Board(), {}, False
    shared.run = header.platform_run_id
    participant = process.participant
    if not participant.wait_until(lambda s: bool(s.ready), process.stopping):
        return

    def stopping() -> bool:
        process.turn()
        return process.stopping() or participant.run_over()

    conn = connect(settings.pg_dsn, f"{settings.instance}/data")
    world = open_world(settings.oracle_url, header.config.manifest_fingerprint, settings.s3_endpoint)
    try:
        last: Mapping[int, int] = {}
        for number in range(FIRST, len(header.config.windows) + 1):
            if not participant.wait_until(partial(may_prepare, window=number), process.stopping):
                return
            ready = _prepared(process.turn, conn, world, header, number, last)
            if not participant.wait_until(partial(may_begin, window=number), process.stopping):
                return
            done = _stream_window(settings, shared, store, world, header, ready, stopping)
            if done is None:
                return
            last = done
        participant.wait_until(lambda _: stopping(), process.stopping)
    finally:
        conn.close()
        # The next run is heard of before it is served: nothing of this one may be told for it.
        shared.run, shared.board, shared.streaming = "", Board(), False


class Prepared(NamedTuple):
    """A window at its first line: everything before that is walked through, which takes seconds in a later window."""

    number: int
    progress: dict[int, LaneProgress]
    numbering: Numbering
    feed: LaneFeed
    store: WindowStore


def _prepared(
    turn: Callable[[], None], conn: Connection, world: World, header: RunHeader, number: int, last: Mapping[int, int]
) -> Prepared:
    """A window with its first line at hand; `last`: the last sequences of the lanes in the window before."""
    config, run = header.config, header.platform_run_id
    progress = adapters.load(conn, run, number)
    numbering = Numbering(config, config.windows[number - 1], last)
    events = expand.merge(_alive(world.payments(), turn), world.manifest.world_id, config.lanes)
    verdicts = adjudications(world.truth(frauds_only=config.adjudication == "fraud"), config)
    items = in_window(with_adjudications(events, verdicts), config.windows[number - 1])
    first = list(islice(items, 1))
    acked = {lane: at.acked_seq for lane, at in progress.items()}
    feed = LaneFeed(chain(first, items), numbering, config, line_writer(header_pins(header)), acked)
    return Prepared(number, progress, numbering, feed, WindowStore(conn, run, number))


def _stream_window(
    settings: WspSettings, shared: Shared, store: EvidenceStore, world: World, header: RunHeader, ready: Prepared,
    stopping: Callable[[], bool],
) -> Mapping[int, int] | None:  # fmt: skip
    """One window to its end; the last sequences of its lanes, None when stopped before."""
    config, run = header.config, header.platform_run_id
    shared.board.total = expected_lines(world.manifest.rows, config.realism)
    senders = _senders(settings, config.lanes, run)
    stream = Stream(
        ready.feed, senders, ready.progress, ready.store, shared.board, config.watermark_interval_ms / 1_000,
        config.pace_per_s, config.label_effect_delay_us // LABEL_SLACK,
    )  # fmt: skip
    shared.streaming = True
    try:
        if not stream.run(stopping):
            return None
    finally:
        for sender in senders.values():
            sender.close()
    shared.ended[ready.number] = _end(store, stream, ready.numbering, run, ready.number)
    return dict(enumerate(ready.numbering.last_seq))


def _alive(payments: Iterable[Payment], turn: Callable[[], None]) -> Iterator[Payment]:
    """The payments; a resume passes over many of them at once, and the process lives meanwhile."""
    for n, payment in enumerate(payments):
        if n % 2_000 == 0:
            turn()
        yield payment


def _senders(settings: WspSettings, lanes: int, run: str) -> dict[int, Sender]:
    """One connection per lane; the adjudication lane speaks to the case service."""
    make = partial(Sender, run=run, tokens=Tokens(settings, run), timeout_s=settings.reply_timeout_s)
    senders = {lane: make(settings.ig_url, "/v1/events") for lane in range(lanes)}
    return {**senders, lanes: make(settings.cm_url, "/v1/adjudications")}


def _end(store: EvidenceStore, stream: Stream, numbering: Numbering, run: str, number: int) -> WindowEnded:
    """The ledger of a window as evidence, and the event that names it. Equal after a restart: nothing timed in it."""
    lanes = {str(lane): seq for lane, seq in enumerate(numbering.last_seq)}
    counts = {str(lane): dict(sorted(found.items())) for lane, found in sorted(stream.counts().items())}
    ledger = {"window": number, "declared": declared(numbering), "classed": counts}
    ref = put_json(store, f"evidence/runs/{run}/streaming/ledger/window-{number}.json", ledger)
    log.info("window_sent", run=run, window=number, lanes=lanes)
    return WindowEnded(window=number, lane_seqs=lanes, ledger_ref=ref)


def evaluators(settings: WspSettings, shared: Shared) -> dict[str, Evaluate]:
    """P3 from the oracle store, P6 from the saved progress, the stream's lag and the gateways' heartbeats."""
    conn = connect(settings.pg_dsn, f"{settings.instance}/gates")
    return {"P3": partial(_p3, settings), "P6": Streaming(shared, partial(adapters.classed, conn), now_us)}


def _p3(settings: WspSettings, state: RunState) -> Evaluation:
    assert state.header is not None
    pinned = state.header.config.manifest_fingerprint
    try:
        world = open_world(settings.oracle_url, pinned, settings.s3_endpoint)
    except UserError as error:
        return gates.evaluate_p3(gates.WorldFacts(pinned, None, (), str(error)))
    problems = [(problem.flaw.value, problem.where, problem.detail) for problem in verify(world)]
    return gates.evaluate_p3(gates.WorldFacts(pinned, world.manifest, problems))


class Streaming:
    """P6: judged in mid-stream and frozen there; a world too small for that is judged at its end.

    Movement needs two looks at the saved progress: what was classed before the first look shows nothing.
    """

    def __init__(self, shared: Shared, classed: Callable[[str], Mapping[int, int]], clock: Callable[[], int]) -> None:
        """`classed(run)` = lines classed of each lane as saved; `clock` in µs."""
        self._shared = shared
        self._classed = classed
        self._clock = clock
        self._seen: tuple[str, int] | None = None

    def __call__(self, state: RunState) -> Evaluation | None:
        shared, run, header = self._shared, state.platform_run_id, state.header
        if not shared.streaming or shared.run != run or header is None:
            return None
        lanes = self._classed(run)
        classed = sum(lanes.values())
        seen, self._seen = self._seen, (run, classed)
        if seen is None or seen[0] != run:
            return None
        board = shared.board
        gateways = _open_unknowns(state, header, self._clock())
        facts = gates.StreamFacts(
            sent=max(board.sent, classed),
            classed=classed,
            before=seen[1],
            ended=bool(shared.ended),
            lag_ms=board.lag_ms(),
            lag_limit_ms=header.config.lag_limit_ms,
            open_unknowns=None if gateways is None else gateways + len(board.in_doubt),
            lanes={str(lane): n for lane, n in sorted(lanes.items())},
            rate_per_s=board.rate_per_s(),
            waived_empty=state.waived(Waiver.EMPTY_RUN, self._clock()),
        )
        return gates.evaluate_p6(facts)


def _open_unknowns(state: RunState, header: RunHeader, at_us: int) -> int | None:
    """Open unknowns by the writers' own count; None while one of them has not said it lately."""
    beats = [state.heartbeats.get(writer) for writer in set(header.lane_writers.values())]
    counts = [
        beat.metrics.get("open_unknown") if beat is not None and at_us - beat.at_us <= BEAT_MAX_AGE_US else None
        for beat in beats
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
