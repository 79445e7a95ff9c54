"""One call in a process beside this one, whose imports are paid while this one still works on the arguments.

The other process ends with its answer, and with this process: its standard input is then at its end.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol, Self


class BesideFailed(Exception):
    """The call raised, or its process ended without an answer."""


class Call(Protocol):
    """`module:function`, called once, its module imported no sooner than needed."""

    def begin(self, *args: Any) -> None:
        """Hand the arguments over."""
        ...

    def answer(self) -> Any:
        """What the call gave."""
        ...


class Here:
    """A Call in this process, when it is begun: what it raises goes through."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._answer: Any = None

    def begin(self, *args: Any) -> None:
        """See Call."""
        self._answer = _function(self._target)(*args)

    def answer(self) -> Any:
        """See Call."""
        return self._answer


class Beside:
    """A Call in another process, awaited later; arguments must pickle. A context: leaving it ends the process."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def begin(self, *args: Any) -> None:
        """See Call; BesideFailed."""
        try:
            pickle.dump(args, self._to)
            self._to.close()
        except BrokenPipeError as error:
            raise BesideFailed(f"{self._target} ended before it was asked") from error

    def answer(self) -> Any:
        """See Call; BesideFailed."""
        body = self._from.read()
        if self._process.wait() != 0 or not body:
            raise BesideFailed(f"{self._target} ended with exit code {self._process.returncode}")
        return pickle.loads(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with suppress(BrokenPipeError):
                pipe.close()


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def main(target: str) -> int:
    """Import, then wait for the arguments on standard input; the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # a cancel is the asking process's to hear; this one ends with it
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    call = _function(target)
    try:
        args = pickle.load(sys.stdin.buffer)
    except EOFError:
        return 0
    with answers:
        pickle.dump(call(*args), answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
