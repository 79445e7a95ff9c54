"""The singletons write alone: a second process waits and says for whom, and goes on as soon as the first is gone."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from fp_operator.stack import StackAddresses
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.postgres import connect
from fp_runtime.writer import Writer

from .cell import HEX, Cell, free_port, new_cell

pytestmark = pytest.mark.stack
NAME = "t.sr"
SINGLETONS = ("sr", "wsp", "verdict", "ofs_trigger")
TAKEOVER_S = 10.0


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    url = f"http://127.0.0.1:{free_port()}"
    made = new_cell(stack, database, topic_prefix, tmp_path, SINGLETONS, FP_AUTHORITY_DIGEST=HEX,
                    FP_HANDLES_DIGEST=HEX, FP_IG_URL=url, FP_CM_URL=url)  # fmt: skip
    yield made
    made.stop()


def waits_for(port: int) -> str | None:
    """What the process says of its right to write: "" once it has it, None while it does not answer."""
    try:
        said = httpx.get(f"http://127.0.0.1:{port}/status").json()["conditions"].get("writer")
    except httpx.TransportError:
        return None
    return None if said is None else str(said)


@pytest.mark.parametrize("service", SINGLETONS)
def test_a_second_process_waits_and_takes_over_when_the_first_is_killed(cell: Cell, service: str) -> None:
    old, new, port = f"{service}-0", f"{service}-1", {name: free_port() for name in (0, 1)}
    first = cell.start(old, FP_HEALTH_PORT=str(port[0]))
    until(lambda: waits_for(port[0]) == "", 60, f"{old} writes")
    second = cell.start(new, FP_HEALTH_PORT=str(port[1]))
    until(lambda: f"waits for {old}@" in (waits_for(port[1]) or ""), 60, f"{new} waits")
    assert httpx.get(f"http://127.0.0.1:{port[1]}/readyz").status_code == 503
    assert httpx.get(f"http://127.0.0.1:{port[1]}/livez").status_code == 200
    killed_at = time.monotonic()
    first.kill()
    first.wait(20)
    until(lambda: waits_for(port[1]) == "", 60, f"{new} writes")
    assert time.monotonic() - killed_at < TAKEOVER_S
    third = cell.start(old, FP_HEALTH_PORT=str(port[0]))
    until(lambda: waits_for(port[0]), 60, f"{old} waits")
    third.terminate()  # one that waits ends as asked
    assert (third.wait(20), second.poll()) == (0, None)


def test_who_has_the_right_is_told_and_a_lost_session_is_noticed(database: str) -> None:
    with closing(Writer(database, NAME, "sr-0")) as first, closing(Writer(database, NAME, "sr-1")) as second:
        assert first.take() is None
        assert first.take() is None  # again changes nothing
        assert (second.take() or "").startswith("sr-0@")
        with closing(Writer(database, "t.wsp", "wsp-0")) as other:
            assert other.take() is None
        with connect(database, "test-end") as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'sr-0@%'")

        def lost() -> str | None:
            try:
                first.check()
            except Unavailable as error:
                return str(error)
            return None

        assert NAME in until(lost, 10, "the first notices")
        until(lambda: second.take() is None, 10, "the second may write")
        with pytest.raises(Unavailable):
            first.take()
