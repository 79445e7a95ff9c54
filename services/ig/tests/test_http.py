"""The endpoint by itself: credentials, limits, headers, deadlines, problem answers, health."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT, EVENT_LIMIT
from fp_contracts.ingress import ADJUDICATION, CASE_READ, EVENT_CLASSES
from fp_ig.domain import Admission
from fp_ig.http import Door, Session, build
from fp_ig.intake import Answer, Batch, Classes, Intake, Unknown
from fp_ig.lines import Quarantined
from fp_runtime.health import Health
from fp_runtime.problem import Problem
from fp_runtime.tokens import Claims, issue, parse_keys

RUN = "platform_20260101T000000Z"
KEYS = parse_keys("k1:" + "11" * 32)
FAR_US = 2**62
LANE = {"Fp-Run": RUN, "Fp-Lane": "0", "Fp-Lane-Seq": "1", "Fp-Frontier": "5"}


def bearer(**changes: Any) -> dict[str, str]:
    claims = Claims(kid="k1", sub="wsp", run=RUN, classes=EVENT_CLASSES, exp_us=FAR_US)
    return {"Authorization": f"Bearer {issue(KEYS, claims.model_copy(update=changes))}"}


class Client:
    """Requests to the application, without a network."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://ig") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)


class Writer(threading.Thread):
    """Stands in for the writer: answers every batch with `answer`, and remembers it."""

    def __init__(self, intake: Intake) -> None:
        super().__init__(daemon=True)
        self.intake = intake
        self.answer: Callable[[Batch], Answer] = lambda batch: Classes([("ADMITTED", "r")] * len(batch.lines))
        self.batches: list[Batch] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            for batch in self.intake.take(0.05):
                self.batches.append(batch)
                batch.answer.set_result(self.answer(batch))


@pytest.fixture
def door(admission: Admission) -> Door:
    made = Door(KEYS, Health("ig-0"), deadline_s=5.0, body_deadline_s=5.0)
    made.session = Session(RUN, admission, Intake(max_waiting=2))
    return made


@pytest.fixture
def client(door: Door) -> Client:
    return Client(build(door))


@pytest.fixture
def writer(door: Door) -> Iterator[Writer]:
    assert door.session is not None
    made = Writer(door.session.intake)
    made.start()
    yield made
    made.stopping.set()
    made.join()


def code(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["type"].endswith(body["code"])
    return str(body["code"])


def test_lines_reach_the_writer_exactly_and_come_back_as_classes(
    client: Client, writer: Writer, line: Callable[..., bytes]
) -> None:
    raws = [line(1), b"", line(2) + b"\r"]
    response = client.post("/v1/events", content=b"\n".join(raws) + b"\n", headers=bearer() | LANE)
    assert response.json() == {"classes": [["ADMITTED", "r"]] * 3}
    (batch,) = writer.batches
    assert [one.raw for one in batch.lines] == raws
    assert (batch.lane, batch.first_seq, batch.frontier_us, batch.principal) == (0, 1, 5, "wsp")


def test_the_auth_matrix(client: Client, writer: Writer) -> None:
    def post(headers: dict[str, str]) -> Any:
        return client.post("/v1/events", headers=headers)

    wrong = issue({"k1": b"x" * 32}, Claims(kid="k1", sub="wsp", run=RUN, classes=(), exp_us=FAR_US))
    assert code(post({}), 401) == "TOKEN_MISSING"
    assert post({}).headers["www-authenticate"] == "Bearer"
    assert code(post({"Authorization": f"Bearer {wrong}"}), 401) == "TOKEN_BAD_SIGNATURE"
    assert code(post(bearer(exp_us=1)), 401) == "TOKEN_EXPIRED"
    assert code(post(bearer(run="platform_20260102T000000Z")), 403) == "TOKEN_OTHER_RUN"
    assert code(post(bearer() | {"Fp-Run": "platform_20260102T000000Z"}), 403) == "TOKEN_OTHER_RUN"
    assert post(bearer()).json() == {"classes": []}
    assert writer.batches == [], "nothing was claimed"


@pytest.mark.parametrize("classes", [(), (CASE_READ,), (ADJUDICATION, CASE_READ), ("events",)])
@pytest.mark.parametrize("body", [b"", b"{}"])
def test_who_may_send_no_event_moves_no_lane(
    client: Client, writer: Writer, classes: tuple[str, ...], body: bytes
) -> None:
    response = client.post("/v1/events", content=body, headers=bearer(classes=classes) | LANE)
    assert code(response, 403) == "TOKEN_SCOPE"
    assert writer.batches == []


@pytest.mark.parametrize("event_class", EVENT_CLASSES)
def test_one_event_class_is_enough_to_send(client: Client, writer: Writer, event_class: str) -> None:
    response = client.post("/v1/events", headers=bearer(classes=(event_class,)) | LANE)
    assert response.json() == {"classes": []}


def test_a_watermark_round_needs_no_number(client: Client, writer: Writer) -> None:
    headers = bearer() | {"Fp-Lane": "3", "Fp-Frontier": "77"}
    for number in ({}, {"Fp-Lane-Seq": "0"}, {"Fp-Lane-Seq": "9"}):
        assert client.post("/v1/events", headers=headers | number).json() == {"classes": []}
    assert [(b.lane, b.lines, b.frontier_us, b.first_seq) for b in writer.batches] == [
        (3, [], 77, seq) for seq in (0, 0, 9)
    ]


@pytest.mark.parametrize(
    "change", [{"Fp-Lane": "x"}, {"Fp-Lane": "-1"}, {"Fp-Lane-Seq": "0"}, {"Fp-Frontier": ""},
               {"Fp-Frontier": "9" * 19}, {"Fp-Lane": "\u0663".encode()}],
)  # fmt: skip
def test_bad_headers_are_400(client: Client, change: dict[str, Any]) -> None:
    response = client.post("/v1/events", content=b"{}", headers={**bearer(), **LANE, **change})
    assert code(response, 400) == "BAD_REQUEST"


def test_body_and_batch_limits_to_the_byte_and_line(client: Client, writer: Writer) -> None:
    def post(body: bytes) -> Any:
        return client.post("/v1/events", content=body, headers=bearer() | LANE)

    assert len(post(b"1\n" * BATCH_LIMIT).json()["classes"]) == BATCH_LIMIT
    assert code(post(b"1\n" * (BATCH_LIMIT + 1)), 413) == "BATCH_OVER_LIMIT"
    half = b"x" * (BODY_LIMIT // 2 - 1) + b"\n"
    assert len(post(half + half).json()["classes"]) == 2
    assert code(post(half + half + b"y"), 413) == "BODY_OVER_LIMIT"
    assert code(post(b"x" * (4 * BODY_LIMIT + 1)), 413) == "BODY_OVER_LIMIT"


@pytest.mark.parametrize("size", [EVENT_LIMIT + 1, BODY_LIMIT + 1])
def test_a_single_line_over_limits_is_quarantined_not_refused(client: Client, writer: Writer, size: int) -> None:
    assert client.post("/v1/events", content=b"x" * size, headers=bearer() | LANE).status_code == 200
    (aside,) = writer.batches[0].lines
    assert isinstance(aside, Quarantined)
    assert (aside.reason, aside.raw is None) == ("OVER_LIMIT", size > BODY_LIMIT)


def test_answers_of_the_writer_have_their_status(client: Client, writer: Writer) -> None:
    def post() -> Any:
        return client.post("/v1/events", content=b"1", headers=bearer() | LANE)

    writer.answer = lambda _: Unknown()
    assert (post().status_code, post().json()) == (202, {"unknown": True})
    writer.answer = lambda _: Problem(503, "STORE_UNAVAILABLE", "down", retry_after_s=1)
    assert code(post(), 503) == "STORE_UNAVAILABLE"
    assert post().headers["retry-after"] == "1"


def test_overload_is_429_and_a_batch_nobody_began_is_503(client: Client, door: Door) -> None:
    door.deadline_s = 0.01
    assert door.session is not None
    first = client.post("/v1/events", content=b"1", headers=bearer() | LANE)
    assert code(first, 503) == "NOT_CLAIMED"
    second = client.post("/v1/events", content=b"1", headers=bearer() | LANE)
    assert code(second, 503) == "NOT_CLAIMED"
    third = client.post("/v1/events", content=b"1", headers=bearer() | LANE)
    assert code(third, 429) == "OVERLOADED"
    assert third.headers["retry-after"] == "1"
    assert door.session.intake.take(0) == [], "what was withdrawn is never begun"


def test_a_batch_that_was_begun_is_202_at_the_deadline(client: Client, door: Door) -> None:
    door.deadline_s = 0.2
    assert door.session is not None
    taken: list[Batch] = []
    taker = threading.Thread(target=lambda: taken.extend(door.session.intake.take(10)))  # type: ignore[union-attr]
    taker.start()
    response = client.post("/v1/events", content=b"1", headers=bearer() | LANE)
    taker.join()
    assert (response.status_code, len(taken)) == (202, 1)


def test_without_a_run_nothing_is_taken(client: Client, door: Door) -> None:
    door.session = None
    assert code(client.post("/v1/events", headers=bearer()), 503) == "NO_OPEN_RUN"


def test_live_traffic_is_a_seam(client: Client) -> None:
    assert code(client.post("/v1/events", content=b"{}", headers=bearer()), 501) == "LIVE_NOT_OPEN"


def test_other_paths_and_methods_are_problems(client: Client) -> None:
    assert code(client.get("/v1/nothing"), 404) == "NOT_FOUND"
    assert code(client.get("/v1/events"), 405) == "METHOD_NOT_ALLOWED"


def test_health_and_document(client: Client, door: Door) -> None:
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    door.health.condition("run", "no run is open")
    assert client.get("/readyz").status_code == 503
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/v1/events", "/livez", "/readyz", "/openapi.json"}


def test_a_failure_tells_nothing_about_itself(client: Client, door: Door) -> None:
    door.session = "broken"  # type: ignore[assignment]
    response = client.post("/v1/events", headers=bearer())
    assert code(response, 500) == "FAILED"
    assert "Traceback" not in response.text
    assert "broken" not in response.text
