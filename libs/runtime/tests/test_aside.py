"""An evaluation aside: the control thread goes on, and hears only what belongs to the run and attempt it asks for."""

import threading
from collections.abc import Callable

import pytest

from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_runtime.aside import Aside

RUN, OTHER = RunState("platform_20260101T000000Z"), RunState("platform_20260101T000001Z")
FIRST, SECOND = Evaluation((), {"n": 1}), Evaluation((), {"n": 2})


class Held:
    """An evaluation that works until it is let go; gives its answers in turn."""

    def __init__(self, *answers: Evaluation | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.go = threading.Event()

    def __call__(self, state: RunState) -> Evaluation | None:
        self.asked.append(state.platform_run_id)
        assert self.go.wait(10)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ended(aside: Aside[Evaluation]) -> None:
    """Wait for the work under way, without asking for it."""
    pending = aside._pending
    assert pending is not None
    pending.exception(10)


def made(held: Held, clock: Callable[[], float] = lambda: 0.0) -> Aside[Evaluation]:
    return Aside("P8", held, clock)


def test_the_caller_goes_on_until_the_answer_is_there() -> None:
    held = Held(FIRST)
    aside = made(held)
    assert [aside(RUN), aside(RUN), aside(RUN)] == [None, None, None]
    assert held.asked == [RUN.platform_run_id]  # one at a time, however often it is asked for
    held.go.set()
    ended(aside)
    assert aside(RUN) is FIRST


def test_an_answer_of_another_run_is_dropped() -> None:
    held = Held(FIRST, SECOND)
    aside = made(held)
    assert aside(RUN) is None
    held.go.set()
    ended(aside)
    assert aside(OTHER) is None
    ended(aside)
    assert aside(OTHER) is SECOND


def test_what_it_raises_is_raised_where_it_is_asked_for() -> None:
    held = Held(ValueError("broken"))
    aside = made(held)
    assert aside(RUN) is None
    held.go.set()
    ended(aside)
    with pytest.raises(ValueError, match="broken"):
        aside(RUN)


def test_it_rests_three_times_as_long_as_it_worked() -> None:
    held, now = Held(FIRST, SECOND), [0.0]
    held.go.set()
    aside = made(held, lambda: now[0])
    assert aside(RUN) is None
    ended(aside)
    now[0] = 5.0
    assert aside(RUN) is FIRST
    now[0] = 19.9
    assert aside(RUN) is None
    assert len(held.asked) == 1
    now[0] = 20.0
    assert aside(RUN) is None
    ended(aside)
    assert aside(RUN) is SECOND
