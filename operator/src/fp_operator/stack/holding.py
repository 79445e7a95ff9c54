"""A stack that is not finished lives as long as somebody holds it: who makes it ready, or only reads from it.

A hold is a shared lock of a file, which the kernel lets go of when its holder dies; held.py, within the supervisor,
waits for the last one. `keep` is the hand-over: one file goes, and from then on nobody needs to hold the stack. So a
kill at any moment finds it either unfinished, and it ends whole, or kept, and it stays whole.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fp_operator.stack.server import Away
from fp_runtime.deadline import until

_ENDS_S = 120
FOLDER_MODE = 0o700


def hold_file(folder: Path) -> Path:
    """The file whose lock is the hold, below the supervisor's folder."""
    return folder / "hold"


def unfinished_file(folder: Path) -> Path:
    """The file that is there while the stack needs to be held."""
    return folder / "unfinished"


def keep(folder: Path) -> None:
    """From now on the stack stays when nobody holds it."""
    unfinished_file(folder).unlink(missing_ok=True)


@contextmanager
def holding(folder: Path, end: Callable[[], None]) -> Iterator[None]:
    """Hold the stack of that supervisor's folder. Whoever leaves last ends it by `end`, unless it was kept."""
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with hold_file(folder).open("wb") as file:
        try:
            until(lambda: _locked(file.fileno(), fcntl.LOCK_SH), _ENDS_S, "the stack that is ending has ended")
        except TimeoutError as error:
            raise Away("the stack", str(error), "`fp down`, then try again") from error
        try:
            yield
        finally:
            # As the only holder, and nobody can join until the stack has ended.
            if unfinished_file(folder).exists() and _locked(file.fileno(), fcntl.LOCK_EX):
                end()


def _locked(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
