"""A body that stops in its middle, on a real socket: it is answered 408 in time, and it slows nobody."""

import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from fp_cm_ls import http as cases
from fp_contracts.ingress import ADJUDICATION, EVENT_CLASSES
from fp_contracts.records import Pins
from fp_ig import http as gateway
from fp_ig.domain import Admission
from fp_ig.intake import EXPECT_S, Classes, Intake
from fp_ig.service import GATHER_S
from fp_runtime.deadline import until
from fp_runtime.health import Health
from fp_runtime.tokens import Claims, issue, parse_keys

from ..surfaces import served

RUN = "platform_20260101T000000Z"
KEYS = parse_keys("k1:" + "11" * 32)
TOKEN = issue(KEYS, Claims(kid="k1", sub="wsp", run=RUN, classes=(*EVENT_CLASSES, ADJUDICATION), exp_us=2**62))
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Fp-Lane": "0", "Fp-Lane-Seq": "1", "Fp-Frontier": "5"}
FOR_EVER_S = 600.0


@pytest.fixture
def door() -> gateway.Door:
    made = gateway.Door(KEYS, Health("ig-0"), 5.0, body_deadline_s=0.3)
    made.session = gateway.Session(RUN, Admission(Pins(RUN, "a" * 32, "b" * 64, "c" * 64), 6), Intake())
    return made


@pytest.fixture
def intake(door: gateway.Door) -> Iterator[Intake]:
    """The gateway's intake, with a writer of two lanes behind it."""
    assert door.session is not None
    found, ended = door.session.intake, threading.Event()

    def write() -> None:
        while not ended.is_set():
            for batch in found.take(0.05, 2, GATHER_S):
                batch.answer.set_result(Classes([("ADMITTED", "r")] * len(batch.lines)))

    thread = threading.Thread(target=write)
    thread.start()
    yield found
    ended.set()
    thread.join()


@pytest.fixture
def url(door: gateway.Door, intake: Intake) -> Iterator[str]:
    with served(gateway.build(door)) as at:
        yield at


def begun(url: str, path: str, length: int = 100) -> socket.socket:
    """A connection on which a request has begun and its body has not come."""
    at = urlsplit(url)
    made = socket.create_connection((str(at.hostname), at.port or 0), timeout=20)
    headers = {"Host": at.netloc, "Content-Length": str(length), **HEADERS}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    made.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n{{".encode())
    return made


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def timed_post(client: httpx.Client) -> float:
    began = time.monotonic()
    assert client.post("/v1/events", content=b"{}", headers=HEADERS).status_code == 200
    return time.monotonic() - began


def test_a_body_that_stops_is_408_and_the_gateway_is_as_fast_as_before(url: str, intake: Intake) -> None:
    began = time.monotonic()
    with begun(url, "/v1/events") as connection:
        said = answer(connection)
    assert 0.3 <= time.monotonic() - began < 10
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in said
    assert b"BODY_LATE" in said
    assert not intake.expected
    with httpx.Client(base_url=url) as client:
        assert min(timed_post(client) for _ in range(20)) < EXPECT_S


def test_a_body_that_trickles_has_no_longer(url: str) -> None:
    with begun(url, "/v1/events", length=10_000) as connection:
        connection.settimeout(0.05)
        said = b""
        for _ in range(1_000):
            connection.sendall(b"x")
            try:
                said = connection.recv(65_536)
                break
            except TimeoutError:
                continue
    assert said.startswith(b"HTTP/1.1 408 ")


def test_one_that_has_stopped_holds_nobody_up_even_before_its_deadline(door: gateway.Door, url: str) -> None:
    door.body_deadline_s = FOR_EVER_S
    with begun(url, "/v1/events"), httpx.Client(base_url=url) as client:
        until(lambda: timed_post(client) < EXPECT_S, 20, "a batch is not held up")


def test_the_label_desk_waits_no_longer_for_a_body() -> None:
    door = cases.Door(KEYS, Health("cm_ls-0"), 5.0, body_deadline_s=0.3, max_waiting=1)
    door.session = cases.Session(RUN, None, lambda *_: {}, lambda _: None)  # type: ignore[arg-type]
    with served(cases.build(door)) as url, begun(url, "/v1/adjudications") as connection:
        said = answer(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_LATE" in said
    door.shut()
