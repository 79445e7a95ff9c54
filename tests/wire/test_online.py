"""The online copy on a real Valkey: written behind, never in the way."""

from collections.abc import Iterator

import pytest

from fp_operator.stack import StackAddresses
from fp_runtime.errors import Unavailable
from fp_runtime.online import Counts, Difference, OnlineReader, OnlineWriter

pytestmark = pytest.mark.stack

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def writer(stack: StackAddresses) -> Iterator[OnlineWriter]:
    made = OnlineWriter(stack.redis_url)
    yield made
    made.close()


@pytest.fixture
def reader(stack: StackAddresses) -> Iterator[OnlineReader]:
    made = OnlineReader(stack.redis_url)
    yield made
    made.close()


def test_the_copy_equals_the_truth_and_shows_each_difference(
    writer: OnlineWriter, reader: OnlineReader, run: str
) -> None:
    truth = {f"account-{n}": b"\x00%d" % n for n in range(5_000)}
    writer.put(run, "profile", dict.fromkeys(truth, b"old"))
    writer.put(run, "profile", truth)
    writer.put(run, "decision", {"d": b"1"})
    assert writer.flush(30)
    assert reader.compare(run, "profile", truth) == Difference(0, 0, 0)
    assert reader.get(run, "profile", "account-7") == truth["account-7"]
    assert reader.get(run, "profile", "nobody") is None
    changed = truth | {"account-7": b"x", "new": b"y"}
    del changed["account-8"]
    assert reader.compare(run, "profile", changed) == Difference(missing=1, extra=1, other=1)
    assert reader.read_all("another run", "profile") == {}


def test_a_store_that_is_down_drops_and_counts(run: str) -> None:
    writer = OnlineWriter(NOWHERE)
    writer.put(run, "profile", {"a": b"1", "b": b"2"})
    assert writer.flush(30)
    assert writer.counts() == Counts(written=0, dropped=2, held=0)
    writer.put(run, "profile", {f"{n}": b"" for n in range(60_000)})
    assert writer.counts().dropped >= 60_000
    writer.close()


def test_a_reader_says_that_the_store_is_down(run: str) -> None:
    reader = OnlineReader(NOWHERE)
    with pytest.raises(Unavailable, match="online copy"):
        reader.get(run, "profile", "a")
    with pytest.raises(Unavailable, match="online copy"):
        reader.read_all(run, "profile")


def test_closing_writes_what_is_held(stack: StackAddresses, reader: OnlineReader, run: str) -> None:
    writer = OnlineWriter(stack.redis_url)
    decisions = {f"{n}": b"1" for n in range(5_000)}
    writer.put(run, "decision", decisions)
    writer.close()
    assert reader.read_all(run, "decision") == decisions
