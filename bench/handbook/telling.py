"""Progress on stderr: one line at a time, and programs whose end must be a good one."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

EVERY_S = 10.0
_BEGAN = time.monotonic()


def tell(text: str) -> None:
    """One line, with the minutes since the start."""
    print(f"{(time.monotonic() - _BEGAN) / 60:5.1f} min  {text}", file=sys.stderr, flush=True)


class Paced:
    """Whether a line of progress is due."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._next_s = 0.0

    def due(self) -> bool:
        """At most once in `every_s` seconds."""
        now = time.monotonic()
        if now < self._next_s:
            return False
        self._next_s = now + self._every_s
        return True


class Counting:
    """Progress over a known number of things: rate and ETA."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._began = time.monotonic()
        self._paced = Paced()

    def at(self, done: int) -> None:
        """Tell how far it is, when it is time."""
        if not self._paced.due() or not done:
            return
        rate = done / max(time.monotonic() - self._began, 1e-9)
        left = max(0, self._total - done) / rate
        tell(f"{self._what}: {done:,} of {self._total:,}, {rate:,.0f}/s, ETA {left:.0f} s")


def ended(what: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """What a program wrote on stdout; SystemExit when it failed. Its stderr is ours."""
    tell(f"{what}: begins")
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, env=env, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{what} ended with {done.returncode}")
    return done.stdout
