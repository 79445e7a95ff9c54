"""The HTTP side of cm_ls: the external-adjudication API, cases to read, health. Errors are problem+json (RFC 9457)."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fp_cm_ls.labeldesk import LabelDesk, LaneBroken
from fp_cm_ls.openapi import DOCUMENT
from fp_cm_ls.reading import LISTED, MOST_LISTED
from fp_cm_ls.worker import Worker
from fp_contracts.ingress import ADJUDICATION, CASE_READ
from fp_runtime.health import Health
from fp_runtime.ndjson import Credentials, Late, number, own_routes, read_lines, reply, settled
from fp_runtime.problem import Code, Problem, Refused, on_http, on_refused

T = TypeVar("T")
Classes = list[tuple[str, str]]


@dataclass(slots=True)
class Session:
    """The open run as the endpoint needs it; the desk is worked by one thread only."""

    run: str
    desk: LabelDesk
    cases: Callable[[str, int], dict[str, Any]]
    case: Callable[[str], dict[str, Any] | None]


class Door:
    """What the HTTP side shares with the main thread."""

    def __init__(
        self, keys: Mapping[str, bytes], health: Health, deadline_s: float, body_deadline_s: float, max_waiting: int
    ) -> None:
        self.credentials = Credentials(keys)
        self.health = health
        self.deadline_s = deadline_s
        self.body_deadline_s = body_deadline_s
        self.session: Session | None = None
        self.failure: BaseException | None = None
        self._desk = Worker("labels", max_waiting)
        self._reading = Worker("reading", max_waiting)

    def take(
        self, session: Session, first_seq: int, lines: Sequence[bytes], frontier_us: int, principal: str
    ) -> Future[Classes]:
        """Hand a batch to the desk. What ends the desk otherwise than by LaneBroken ends the process: see `failure`."""

        def work() -> Classes:
            self._still(session)
            return session.desk.take(first_seq, lines, frontier_us, principal)

        return self._watched(self._desk.ask(work))

    def read(self, session: Session, look: Callable[[], T]) -> Future[T]:
        """Look something up beside the desk, so that a long list holds up no label."""

        def work() -> T:
            self._still(session)
            return look()

        return self._watched(self._reading.ask(work))

    def shut(self) -> None:
        """No session any more: returns when nothing uses its connections."""
        self.session = None
        for worker in (self._desk, self._reading):
            worker.drain()

    def _still(self, session: Session) -> None:
        if self.session is not session or self.failure is not None:
            raise Refused(503, Code.NO_OPEN_RUN, "this run is no longer served here", retry_after_s=1)

    def _watched(self, work: Future[T]) -> Future[T]:
        """The desk may have committed before it failed: only a restart that reads its state again may go on."""

        def ended(done: Future[T]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None and not isinstance(error, LaneBroken | Refused):
                self.failure = error

        work.add_done_callback(ended)
        return work


def build(door: Door) -> Starlette:
    """The ASGI application."""

    async def adjudications(request: Request) -> Response:
        return await _adjudications(door, request)

    async def cases(request: Request) -> Response:
        session = _session(door)
        door.credentials.of(request, session.run, {CASE_READ})
        return reply(200, await _looked(door, session, partial(session.cases, *_page(request))))

    async def case(request: Request) -> Response:
        session = _session(door)
        door.credentials.of(request, session.run, {CASE_READ})
        name = request.path_params["case_id"]
        found = await _looked(door, session, partial(session.case, name)) if _plain(name) else None
        if found is None:
            raise Refused(404, Code.CASE_UNKNOWN, f"no case {name[:64]} in this run")
        return reply(200, found)

    return Starlette(
        routes=[
            Route("/v1/adjudications", adjudications, methods=["POST"]),
            Route("/v1/cases", cases),
            Route("/v1/cases/{case_id}", case),
            *own_routes(door.health, DOCUMENT),
        ],
        exception_handlers={Refused: on_refused, HTTPException: on_http, Exception: _on_failure},
    )


async def _adjudications(door: Door, request: Request) -> Response:
    session = _session(door)
    claims = door.credentials.of(request, session.run, {ADJUDICATION})
    lines = await read_lines(request, door.body_deadline_s)
    first_seq = number(request, "fp-lane-seq", minimum=1) if lines else 0
    work = door.take(session, first_seq, lines, number(request, "fp-frontier"), claims.sub)
    try:
        return reply(200, {"classes": await settled(work, door.deadline_s)})
    except Late:
        return reply(202, {"unknown": True})
    except LaneBroken as error:
        raise Refused(409, error.code, str(error)) from error


async def _looked(door: Door, session: Session, look: Callable[[], T]) -> T:
    try:
        return await settled(door.read(session, look), door.deadline_s)
    except Late as late:
        raise Refused(503, Code.STORE_UNAVAILABLE, "the cases could not be read in time", retry_after_s=1) from late


def _page(request: Request) -> tuple[str, int]:
    """The case behind which a page begins, and how many it may have."""
    after, limit = request.query_params.get("after", ""), request.query_params.get("limit", str(LISTED))
    if not _plain(after):
        raise Refused(400, Code.BAD_REQUEST, "after is no case id")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 9 and 1 <= int(limit) <= MOST_LISTED):
        raise Refused(400, Code.BAD_REQUEST, f"limit is a number from 1 to {MOST_LISTED}")
    return after, int(limit)


def _plain(case_id: str) -> bool:
    """The store takes no NUL or lone surrogate, and what it refuses there would end the process."""
    return case_id.isascii() and case_id.isprintable()


def _session(door: Door) -> Session:
    if door.session is None or door.failure is not None:
        raise Refused(503, Code.NO_OPEN_RUN, "no run is open here", retry_after_s=1)
    return door.session


async def _on_failure(_: Request, __: Exception) -> Response:
    """The store or the bus did not do it (or it is our bug): the process restarts and the same batch goes again."""
    return Problem(503, Code.STORE_UNAVAILABLE, "the label store restarts; send the same batch again").response()
