"""A stack that is begun ends with the last who holds it, however that one ends; one that was kept stays."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fp_operator.stack import Supervisor, SupervisorDown, down, held, keep_up
from fp_operator.stack.strays import strays
from fp_runtime.deadline import until

HOLDER = """
import itertools, sys
from pathlib import Path
from fp_operator.stack import Program, Supervisor, held, keep_up
folder = Path(sys.argv[1])
with held(folder, lambda name, state, _: print(name, state, flush=True)):
    Supervisor(folder).launch("servers", [Program("base", ("sleep", "1002"))], held=True)
    Supervisor(folder).start("base")
    for line in itertools.chain(["begun\\n"], sys.stdin):
        if line == "keep\\n":
            keep_up(folder)
        print(line, end="", flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state folder; whatever runs there is ended."""
    with tempfile.TemporaryDirectory(prefix="fp-held-") as name:
        (Path(name) / "logs").mkdir()
        yield Path(name)
        down(Path(name))


class Holder:
    """A process that began a stack and holds it."""

    def __init__(self, folder: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=pipe, stdout=pipe, text=True)
        assert self.hear() == "begun\n"

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.hear() == f"{word}\n"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def leave(self) -> str:
        """What it says when it leaves by itself."""
        return self.process.communicate()[0]


def runs(folder: Path) -> bool:
    try:
        return Supervisor(folder).pid("base") is not None
    except SupervisorDown:
        return False


def test_a_killed_holder_takes_the_stack_with_it(folder: Path) -> None:
    holder = Holder(folder)
    assert runs(folder)
    holder.kill()
    until(lambda: strays(folder) == [], 20, "nothing is left")


def test_one_who_leaves_ends_what_was_not_kept_before_it_is_gone(folder: Path) -> None:
    assert Holder(folder).leave() == "stack stopping\nstack stopped\n"
    assert strays(folder) == []


@pytest.mark.parametrize("end", [Holder.kill, Holder.leave])
def test_what_was_kept_stays(folder: Path, end: object) -> None:
    holder = Holder(folder)
    holder.say("keep")
    end(holder)  # type: ignore[operator]
    with held(folder, lambda *_: None):  # nobody else holds it, and the supervisor waits for nobody any more
        assert runs(folder)
    assert runs(folder)


def test_it_goes_on_for_the_second_when_the_first_is_killed(folder: Path) -> None:
    holder = Holder(folder)
    with held(folder, lambda *_: None):
        holder.kill()
        assert runs(folder)
    assert strays(folder) == []


def test_the_second_may_keep_what_the_first_began(folder: Path) -> None:
    holder = Holder(folder)
    with held(folder, lambda *_: None):
        keep_up(folder)
    assert holder.leave() == ""
    assert runs(folder)
