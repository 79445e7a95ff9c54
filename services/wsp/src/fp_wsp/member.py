"""One wsp over a run: opens the world, streams each window, declares its end; evaluates P3 and P6."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fp_contracts.control import WindowEnded
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.ingress import EVENT_CLASSES
from fp_contracts.runconfig import RunHeader
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
from fp_wsp.sender import Sender
from fp_wsp.service import Board, Stream
from fp_wsp.settings import WspSettings
from fp_wsp.world_check import verify
from fp_wsp.world_store import World, open_world

log = logger(__name__)
ADJUDICATION = "adjudication"


@dataclass(slots=True)
class Shared:
    """What the data loop lets the control thread see, of the run that it serves now."""

    run: str = ""
    board: Board = field(default_factory=Board)
    ended: dict[int, WindowEnded] = field(default_factory=dict)
    streaming: bool = False
    seen: int = 0

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


def token_source(settings: WspSettings, run: str) -> Callable[[], str]:
    """Tokens of this producer for a run, renewed at half their life."""
    keys = parse_keys(settings.producer_keys)
    kid = next(iter(keys))
    life_us = settings.token_life_s * 1_000_000
    current, renew_us = "", 0

    def token() -> str:
        nonlocal current, renew_us
        at = now_us()
        if at >= renew_us:
            classes = (*EVENT_CLASSES, ADJUDICATION)
            current = issue(keys, Claims(kid=kid, sub="wsp", run=run, classes=classes, exp_us=at + life_us))
            renew_us = at + life_us // 2
        return current

    return token


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
    """Stream every window of a run once READY was published; then wait until the run is over."""
    header = state.header
    assert header is not None
    shared.run = ""
    shared.board, shared.ended, shared.streaming, shared.seen = Board(), {}, False, 0
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
        for number in range(1, len(header.config.windows) + 1):
            done = _stream_window(settings, shared, store, conn, world, header, number, last, stopping)
            if done is None:
                return
            last = done
        participant.wait_until(lambda _: stopping(), process.stopping)
    finally:
        conn.close()


def _stream_window(
    settings: WspSettings, shared: Shared, store: EvidenceStore, conn: Connection, world: World, header: RunHeader,
    number: int, last: Mapping[int, int], stopping: Callable[[], bool],
) -> Mapping[int, int] | None:  # fmt: skip
    """One window to its end; the last sequences of its lanes, None when stopped before."""
    config, run = header.config, header.platform_run_id
    progress = adapters.load(conn, run, number)
    numbering = Numbering(config, config.windows[number - 1], last)
    events = expand.merge(world.payments(), world.manifest.world_id, config.lanes)
    items = in_window(with_adjudications(events, adjudications(world.truth(), config)), config.windows[number - 1])
    acked = {lane: at.acked_seq for lane, at in progress.items()}
    feed = LaneFeed(items, numbering, config, line_writer(header_pins(header)), acked)
    shared.board.total = 5 * world.manifest.rows
    senders = _senders(settings, config.lanes, run)
    stream = Stream(
        feed, senders, progress, WindowStore(conn, run, number), shared.board, config.watermark_interval_ms / 1_000,
        config.pace_per_s,
    )  # fmt: skip
    shared.streaming = True
    try:
        if not stream.run(stopping):
            return None
    finally:
        for sender in senders.values():
            sender.close()
    shared.ended[number] = _end(store, stream, numbering, run, number)
    return dict(enumerate(numbering.last_seq))


def _senders(settings: WspSettings, lanes: int, run: str) -> dict[int, Sender]:
    """One connection per lane; the adjudication lane speaks to the case service."""
    make = partial(Sender, run=run, token=token_source(settings, run), timeout_s=settings.reply_timeout_s)
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
    """P3 from the oracle store, P6 from the stream's counters and the gateway's heartbeat."""
    return {"P3": partial(_p3, settings), "P6": partial(_p6, shared)}


def _p3(settings: WspSettings, state: RunState) -> Evaluation:
    assert state.header is not None
    pinned = state.header.config.manifest_fingerprint
    try:
        world = open_world(settings.oracle_url, pinned, settings.s3_endpoint)
    except UserError as error:
        return gates.evaluate_p3(gates.WorldFacts(pinned, None, (), str(error)))
    problems = [(problem.flaw.value, problem.where, problem.detail) for problem in verify(world)]
    return gates.evaluate_p3(gates.WorldFacts(pinned, world.manifest, problems))


def _p6(shared: Shared, state: RunState) -> Evaluation | None:
    """Evaluated in mid-stream and frozen there; a world too small for that is judged at its end."""
    if not shared.streaming or shared.run != state.platform_run_id or state.header is None:
        return None
    board, before = shared.board, shared.seen
    shared.seen = board.classed
    if board.classed == 0 and not shared.ended:
        return None
    gateway = sum(beat.metrics.get("open_unknown", 0) for beat in state.heartbeats.values() if beat.service == "ig")
    facts = gates.StreamFacts(
        sent=board.sent,
        classed=board.classed,
        before=before,
        ended=bool(shared.ended),
        lag_ms=board.lag_ms(),
        lag_limit_ms=state.header.config.lag_limit_ms,
        open_unknowns=len(board.in_doubt) + gateway,
        lanes=dict(state.windows_ended[1].lane_seqs) if state.windows_ended else {},
        rate_per_s=board.rate_per_s(),
        waived_empty=any(waiver.waiver == "empty_run" for waiver in state.waivers),
    )
    return gates.evaluate_p6(facts)
