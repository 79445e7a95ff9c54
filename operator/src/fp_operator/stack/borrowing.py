"""A stack that a verb started only for itself: held until the verb is done, then stopped again.

The scope is the whole verb and not one reading of it, because some verbs read twice, or go on with what they found.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from fp_operator.stack.stack import embeds_servers, held
from fp_operator.stack.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class _Verb:
    """The verb under way: what it borrowed, and how it speaks to its user."""

    borrowed: ExitStack
    say: Callable[[str], None]


_verb: ContextVar[_Verb | None] = ContextVar("verb", default=None)


@contextmanager
def giving_back(say: Callable[[str], None]) -> Iterator[None]:
    """One verb; what it borrows within is given back at its end, which `say` tells."""
    with ExitStack() as borrowed:
        token = _verb.set(_Verb(borrowed, say))
        try:
            yield
        finally:
            _verb.reset(token)


def borrow(state_dir: Path) -> bool:
    """Hold the stack, running or about to be started, until the verb under way ends; False when none is under way."""
    verb = _verb.get()
    if verb is None:
        return False

    def step(_: str, state: str, __: float) -> None:
        if state == "stopped":
            verb.say("servers started to read; stopped again")

    starts = embeds_servers() and not Supervisor(state_dir).alive()
    verb.borrowed.enter_context(held(state_dir, step))
    if starts:
        verb.say("the servers do not run: starting them to read")
    return True
