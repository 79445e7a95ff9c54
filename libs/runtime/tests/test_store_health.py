import json
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from fp_runtime.health import MAX_BEAT_AGE_S, Health, serve
from fp_runtime.readonly_http import ReadOnlyServer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health("rtdl-0", ("postgres", "run"), clock)


@pytest.fixture
def server(health: Health) -> Iterator[ReadOnlyServer]:
    server = serve(health)
    yield server
    server.close()


def get(server: ReadOnlyServer, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, body


def test_ready_needs_every_condition(server: ReadOnlyServer, health: Health) -> None:
    health.condition("postgres", None)
    assert get(server, "/readyz")[0] == 503
    health.condition("run", None)
    assert get(server, "/readyz")[0] == 200
    health.condition("postgres", "connection refused")
    status, body = get(server, "/readyz")
    assert status == 503
    assert json.loads(body)["conditions"] == {"postgres": "connection refused", "run": ""}
    assert get(server, "/livez")[0] == 200


def test_a_loop_that_stopped_is_not_alive(server: ReadOnlyServer, health: Health, clock: Clock) -> None:
    clock.now += MAX_BEAT_AGE_S + 1
    assert get(server, "/livez")[0] == 503
    health.beat()
    assert get(server, "/livez")[0] == 200


def test_status_shows_numbers_and_other_paths_are_not_there(server: ReadOnlyServer, health: Health) -> None:
    health.number("lag", 7)
    assert json.loads(get(server, "/status")[1])["numbers"] == {"lag": 7}
    assert get(server, "/metrics")[0] == 404
