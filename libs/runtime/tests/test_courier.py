from collections.abc import Sequence

import pytest

from fp_runtime.bus import Delivery, Flight, Out, PublishError
from fp_runtime.courier import Courier
from fp_runtime.errors import Unavailable
from fp_runtime.outbox import Published, Queued

LOST = Delivery(None, PublishError.UNKNOWN, "no report")


class Rounds:
    """A producer whose reports are known when they are asked for: `log` tells the order of things."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.lost: set[bytes] = set()

    def begin(self, outs: Sequence[Out], timeout_s: float | None = None) -> Flight:
        names = b"".join(out.key for out in outs).decode()
        self.log.append(f"sent {names}")
        deliveries = [LOST if out.key in self.lost else Delivery(ord(out.key)) for out in outs]
        return Flight(deliveries, lambda: self.log.append(f"waited for {names}"))


def queued(names: bytes) -> list[Queued]:
    return [Queued("df:0", seq, Out("t", 0, b"%c" % name, b"v", b"h")) for seq, name in enumerate(names, 1)]


def facts(*places: tuple[int, int]) -> list[Published]:
    return [Published("df:0", "t", 0, seq, offset) for seq, offset in places]


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


@pytest.fixture
def recorded() -> list[Published]:
    return []


@pytest.fixture
def courier(rounds: Rounds, recorded: list[Published]) -> Courier:
    return Courier(rounds, recorded.extend)  # type: ignore[arg-type]


def test_nobody_waits_for_a_round_until_it_is_to_land(courier: Courier, rounds: Rounds) -> None:
    courier.send(queued(b"ab"))
    assert rounds.log == ["sent ab"]
    assert courier.facts == []
    assert courier.land()
    assert courier.facts == facts((1, 97), (2, 98))
    assert not courier.land()


def test_the_next_round_goes_when_the_one_before_has_landed(courier: Courier, rounds: Rounds) -> None:
    courier.send(queued(b"a"))
    courier.send([])
    courier.send(queued(b"b"))
    assert rounds.log == ["sent a", "waited for a", "sent b"]
    assert courier.facts == facts((1, 97))


def test_facts_are_told_once(courier: Courier, recorded: list[Published]) -> None:
    courier.send(queued(b"a"))
    courier.land()
    assert courier.told()
    assert not courier.told()
    assert not courier.record()
    assert recorded == []


def test_facts_that_no_commit_takes_are_recorded_by_themselves(courier: Courier, recorded: list[Published]) -> None:
    courier.send(queued(b"a"))
    courier.land()
    assert courier.record()
    assert recorded == facts((1, 97))
    assert courier.facts == []


def test_a_lost_record_ends_it_and_what_was_acknowledged_is_kept(
    courier: Courier, rounds: Rounds, recorded: list[Published]
) -> None:
    rounds.lost = {b"b"}
    courier.send(queued(b"abc"))
    with pytest.raises(Unavailable, match="1 of 3"):
        courier.land()
    assert recorded == facts((1, 97), (3, 99))
