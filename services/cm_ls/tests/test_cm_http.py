"""The adjudication endpoint by itself: credentials, limits, numbers, deadlines, and what ends the process."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from fp_cm_ls.http import Door, Session, build
from fp_cm_ls.labeldesk import LaneBroken
from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_contracts.ingress import ADJUDICATION, CASE_READ, EVENT_CLASSES
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.health import Health
from fp_runtime.tokens import Claims, issue, parse_keys

RUN = "platform_20260101T000000Z"
KEYS = parse_keys("k1:" + "11" * 32)
WAITING = 3
LANE = {"Fp-Run": RUN, "Fp-Lane-Seq": "1", "Fp-Frontier": "5"}


class Desk:
    """Stands in for the label desk: answers by `answer`, and remembers what it was given."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int, int, str]] = []
        self.answer: Callable[[], None] = lambda: None

    def take(self, first_seq: int, lines: Sequence[bytes], frontier_us: int, principal: str) -> list[tuple[str, str]]:
        self.answer()
        self.taken.append((first_seq, len(lines), frontier_us, principal))
        return [("ACCEPTED", "id")] * len(lines)


def _raise(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def bearer(**changes: Any) -> dict[str, str]:
    claims = Claims(kid="k1", sub="wsp", run=RUN, classes=(ADJUDICATION,), exp_us=2**62)
    return {"Authorization": f"Bearer {issue(KEYS, claims.model_copy(update=changes))}"}


def _listed(after: str, limit: int) -> dict[str, Any]:
    """Stands in for reading.cases; what it was asked is in its answer."""
    return {"cases": [{"case_id": "c1"}][:limit], "next": f"{after}+{limit}"}


def reader(**changes: Any) -> dict[str, str]:
    return bearer(**{"sub": "analyst", "classes": (CASE_READ,)} | changes)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def door(desk: Desk) -> Iterator[Door]:
    made = Door(KEYS, Health("cm_ls-0"), deadline_s=5.0, body_deadline_s=5.0, max_waiting=WAITING)
    case = {"c1": {"case_id": "c1"}}
    made.session = Session(RUN, desk, _listed, case.get)  # type: ignore[arg-type]
    yield made
    made.shut()


def ask(door: Door, method: str, path: str, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(build(door), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://cm") as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


def post(door: Door, body: bytes = b"{}\n{}", **headers: Any) -> httpx.Response:
    return ask(door, "POST", "/v1/adjudications", content=body, headers=bearer() | LANE | headers)


def _code(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def test_classes_come_back_in_line_order(door: Door, desk: Desk) -> None:
    response = post(door)
    assert (response.status_code, response.json()) == (200, {"classes": [["ACCEPTED", "id"]] * 2})
    assert desk.taken == [(1, 2, 5, "wsp")]
    assert post(door, b"").json() == {"classes": []}
    assert desk.taken[-1] == (0, 0, 5, "wsp")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": ""}, (401, "TOKEN_MISSING")),
        (bearer(exp_us=1), (401, "TOKEN_EXPIRED")),
        (bearer(run="platform_20260101T000001Z"), (403, "TOKEN_OTHER_RUN")),
        (bearer(classes=("traffic_fraud",)), (403, "TOKEN_SCOPE")),
        ({"Fp-Run": "platform_20260101T000001Z"}, (403, "TOKEN_OTHER_RUN")),
        ({"Fp-Lane-Seq": "0"}, (400, "BAD_REQUEST")),
        ({"Fp-Lane-Seq": "x"}, (400, "BAD_REQUEST")),
        ({"Fp-Frontier": "-5"}, (400, "BAD_REQUEST")),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    door: Door, desk: Desk, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert _code(post(door, **headers)) == expected
    assert desk.taken == []


@pytest.mark.parametrize(
    ("method", "path", "own"),
    [("POST", "/v1/adjudications", ADJUDICATION), ("GET", "/v1/cases", CASE_READ), ("GET", "/v1/cases/c1", CASE_READ)],
)
def test_each_route_opens_by_its_own_class_and_by_no_other(
    door: Door, desk: Desk, method: str, path: str, own: str
) -> None:
    others = {ADJUDICATION, CASE_READ, *EVENT_CLASSES} - {own}
    for classes in ((), *((other,) for other in sorted(others)), tuple(sorted(others))):
        assert _code(ask(door, method, path, headers=LANE | bearer(classes=classes))) == (403, "TOKEN_SCOPE"), classes
    assert desk.taken == []
    assert ask(door, method, path, headers=LANE | bearer(classes=(own,))).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{}\n" * (BATCH_LIMIT + 1), "BATCH_OVER_LIMIT"), (b"x" * (BODY_LIMIT + 1), "BODY_OVER_LIMIT")],
)
def test_too_much_is_413(door: Door, desk: Desk, body: bytes, code: str) -> None:
    assert _code(post(door, body)) == (413, code)
    assert desk.taken == []


def test_a_broken_lane_is_409_and_ends_nothing(door: Door, desk: Desk) -> None:
    desk.answer = _raise(LaneBroken("LANE_SEQ_GAP", "line 1 is expected"))
    assert _code(post(door)) == (409, "LANE_SEQ_GAP")
    assert door.failure is None


@pytest.mark.parametrize("error", [Unavailable("down"), ZeroDivisionError("our bug")])
def test_what_ends_the_desk_ends_the_process(door: Door, desk: Desk, error: Exception) -> None:
    desk.answer = _raise(error)
    assert _code(post(door)) == (503, "STORE_UNAVAILABLE")
    assert door.failure is error
    desk.answer = lambda: None
    assert _code(post(door)) == (503, "NO_OPEN_RUN")
    assert desk.taken == []


def test_past_the_deadline_the_result_is_unknown_and_a_late_failure_is_seen(door: Door, desk: Desk) -> None:
    door.deadline_s = 0.05
    released = threading.Event()

    def hang() -> None:
        released.wait(10)
        raise Unavailable("late")

    desk.answer = hang
    response = post(door)
    assert (response.status_code, response.json()) == (202, {"unknown": True})
    released.set()
    assert isinstance(until(lambda: door.failure, 10, "the late failure"), Unavailable)


def test_no_run_is_503_and_a_shut_session_takes_nothing(door: Door, desk: Desk) -> None:
    session = door.session
    assert session is not None
    door.shut()
    assert _code(post(door)) == (503, "NO_OPEN_RUN")
    late = door.take(session, 1, [b"{}"], 5, "wsp")
    assert late.exception(10) is not None
    assert (desk.taken, door.failure) == ([], None)


def test_cases_are_read_beside_a_desk_that_hangs(door: Door, desk: Desk) -> None:
    released = threading.Event()

    def hang() -> None:
        released.wait(10)

    desk.answer = hang
    door.deadline_s = 0.05
    assert post(door).status_code == 202
    listed = ask(door, "GET", "/v1/cases", headers=reader())
    assert listed.json() == {"cases": [{"case_id": "c1"}], "next": "+100"}
    assert ask(door, "GET", "/v1/cases/c1", headers=reader()).json() == {"case_id": "c1"}
    assert _code(ask(door, "GET", "/v1/cases/none", headers=reader())) == (404, "CASE_UNKNOWN")
    assert _code(ask(door, "GET", "/v1/cases")) == (401, "TOKEN_MISSING")
    released.set()


def test_a_page_is_asked_for_by_limit_and_after(door: Door) -> None:
    def page(asked: str) -> httpx.Response:
        return ask(door, "GET", f"/v1/cases{asked}", headers=reader())

    assert page("?after=c0&limit=7").json()["next"] == "c0+7"
    assert page("?limit=500").json()["next"] == "+500"
    for wrong in ("limit=0", "limit=501", "limit=x", "limit=", "limit=-1", "limit=%C2%B2", "after=%00", "after=%FF"):
        assert _code(page(f"?{wrong}")) == (400, "BAD_REQUEST"), wrong
    assert door.failure is None


def test_a_desk_that_hangs_takes_no_more_than_its_limit(door: Door, desk: Desk) -> None:
    door.deadline_s = 0.05
    released, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        released.wait(20)

    desk.answer = hang
    assert post(door).json() == {"unknown": True}
    assert begun.wait(10)
    waited = [post(door) for _ in range(WAITING)]
    assert [_code(one) for one in waited] == [(503, "NOT_CLAIMED")] * WAITING
    for _ in range(2):
        refused = post(door)
        assert _code(refused) == (429, "OVERLOADED")
        assert refused.headers["retry-after"] == "1"
    assert ask(door, "GET", "/v1/cases", headers=reader()).status_code == 200
    released.set()
    door.deadline_s = 20
    assert until(lambda: post(door).status_code == 200, 20, "the desk takes again")
    assert desk.taken == [(1, 2, 5, "wsp")] * 2, "what was withdrawn is never begun"


def test_readers_wait_in_a_line_of_their_own_that_ends_too(door: Door, desk: Desk) -> None:
    door.deadline_s = 0.05
    released = threading.Event()
    session = door.session
    assert session is not None
    session.cases = lambda *_: {"hung": released.wait(20)}

    def listed() -> httpx.Response:
        return ask(door, "GET", "/v1/cases", headers=reader())

    assert _code(listed()) == (503, "STORE_UNAVAILABLE")
    assert [_code(listed()) for _ in range(WAITING)] == [(503, "NOT_CLAIMED")] * WAITING
    assert _code(listed()) == (429, "OVERLOADED")
    assert post(door).status_code == 200
    released.set()
