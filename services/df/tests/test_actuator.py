"""The actuator over real HTTP on loopback: once per key, and what an answer leaves open is asked again."""

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import stamina
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fp_contracts import topics
from fp_contracts.header import Kind
from fp_contracts.records import read_derived
from fp_df import act_adapters
from fp_df.act_adapters import HttpActuator
from fp_df.actmarks import Asked, Executed
from fp_df.actuator import Action, Effects, make_app
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.listener import Listener


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def served(app: Starlette) -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    listener = Listener(app, "127.0.0.1", port)

    def alive() -> bool | None:
        try:
            with urllib.request.urlopen(f"{url}/livez", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return None

    until(alive, 10.0, "the actuator listens")
    try:
        yield url
    finally:
        listener.close()


@pytest.fixture
def actuator_url(tmp_path: Path) -> Iterator[str]:
    yield from served(make_app(Effects(tmp_path / "effects.db")))


Answers = list[tuple[int, bytes]]


@pytest.fixture
def moody() -> Iterator[tuple[str, Answers, list[bytes]]]:
    """An actuator that gives these answers (status, body), the last one for ever, and what it was asked."""
    answers: Answers = []
    asked: list[bytes] = []

    async def act(request: Request) -> Response:
        asked.append(await request.body())
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        return Response(body, status_code=status)

    async def alive(_: Request) -> PlainTextResponse:
        return PlainTextResponse("")

    for url in served(Starlette(routes=[Route("/v1/actions", act, methods=["POST"]), Route("/livez", alive)])):
        yield url, answers, asked


@pytest.fixture
def asking(calm: Any) -> list[Asked]:
    """Two intents of different decisions."""
    found = []
    for record, header in calm.on_bus(topics.RTDL, Kind.DECISION):
        decision = read_derived(record.value)[1]
        found += [Asked(decision, intent, header.order_us, record.traceparent) for intent in decision.intents]
    return found[:2]


def changed(asked: Asked, **changes: Any) -> Asked:
    return asked._replace(intent=asked.intent.model_copy(update=changes))


def test_the_same_key_is_carried_out_once(actuator_url: str, asking: list[Asked]) -> None:
    actuator, (one, two) = HttpActuator(actuator_url), asking
    done = Executed("EXECUTED", 1, None)
    assert actuator.execute([one, one]) == [done, done]
    other = changed(one, kind="BLOCK_PAYMENT" if one.intent.kind != "BLOCK_PAYMENT" else "HOLD_FOR_REVIEW")
    unknown = changed(one, kind="DANCE")
    assert actuator.execute([one, other, unknown, two]) == [
        done, Executed("DENIED", 1, "KEY_REUSED"), Executed("FAILED", 1, "ACTION_UNKNOWN"), done,
    ]  # fmt: skip
    assert actuator.execute([unknown]) == [Executed("FAILED", 1, "ACTION_UNKNOWN")]
    assert httpx.get(f"{actuator_url}/v1/effects").json() == {"effects": 2, "repeats": 3}
    actuator.close()


def test_more_actions_than_one_request_takes_are_asked_in_turn(
    moody: tuple[str, Answers, list[bytes]], asking: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers, asked = moody
    monkeypatch.setattr(act_adapters, "MAX_ACTIONS", 2)
    answers[:] = [(200, SAID.format(200, 409).encode()), (200, b'{"results":[{"status":410}]}')]
    actuator = HttpActuator(url)
    assert [one.status for one in actuator.execute([*asking, asking[0]])] == ["EXECUTED", "DENIED", "FAILED"]
    keys = [[action["idempotency_key"] for action in orjson.loads(body)["actions"]] for body in asked]
    first, second = (one.intent.idempotency_key for one in asking)
    assert keys == [[first, second], [first]]
    actuator.close()


def test_effects_outlive_the_actuator(tmp_path: Path) -> None:
    first = Effects(tmp_path / "e.db")
    action = Action("k", "BLOCK_PAYMENT", "f")
    assert first.execute([action]) == [(True, True)]
    first.close()
    again = Effects(tmp_path / "e.db")
    assert again.execute([action]) == [(True, False)]
    assert again.totals() == {"effects": 1, "repeats": 1}
    again.close()


SAID = '{{"results":[{{"status":{}}},{{"status":{}}}]}}'
OPEN = [
    *((status, b"<html>") for status in (301, 400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503)),
    *((200, SAID.format(200, status).encode()) for status in (100, 301, 401, 429, 500, 503)),
    (200, b"<html>"), (200, b'{"results":[{"status":200}]}'), (200, b'{"results":[{"code":"OK"},{}]}'),
]  # fmt: skip


@pytest.mark.parametrize("answer", OPEN)
def test_an_answer_that_leaves_an_action_open_is_asked_again(
    moody: tuple[str, Answers, list[bytes]], asking: list[Asked], answer: tuple[int, bytes]
) -> None:
    url, answers, asked = moody
    actuator = HttpActuator(url)
    with stamina.set_testing(True, attempts=3):
        answers[:] = [answer, (200, SAID.format(200, 200).encode())]
        assert actuator.execute(asking) == [Executed("EXECUTED", 2, None)] * 2
        answers[:] = [answer]
        with pytest.raises(Unavailable):
            actuator.execute(asking)
    assert len(asked) == 5
    assert len(set(asked)) == 1  # the same keys each time
    actuator.close()


@pytest.mark.parametrize(("status", "ended"), [(409, "DENIED"), (400, "FAILED"), (422, "FAILED"), (410, "FAILED")])
def test_a_refusal_without_a_code_is_still_an_outcome(
    moody: tuple[str, Answers, list[bytes]], asking: list[Asked], status: int, ended: str
) -> None:
    url, answers, _ = moody
    answers[:] = [(200, SAID.format(status, 204).encode())]
    actuator = HttpActuator(url)
    assert actuator.execute(asking) == [Executed(ended, 1, str(status)), Executed("EXECUTED", 1, None)]
    actuator.close()


def test_a_body_that_is_no_action_is_refused(actuator_url: str) -> None:
    no_key = b'{"actions":[{"kind":"BLOCK_PAYMENT","flow_id":"f"}]}'
    empty_key = b'{"actions":[{"idempotency_key":"","kind":"BLOCK_PAYMENT","flow_id":"f"}]}'
    for body in (b"", b"[]", b"{", b"1", no_key, empty_key):
        assert httpx.post(f"{actuator_url}/v1/actions", content=body).status_code == 422
    assert httpx.get(f"{actuator_url}/v1/effects").json() == {"effects": 0, "repeats": 0}
