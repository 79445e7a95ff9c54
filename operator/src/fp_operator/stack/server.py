"""What the stack asks of a server it embeds."""

from pathlib import Path
from typing import Protocol

from fp_operator.stack.program import Program
from fp_runtime.errors import UserError


class Away(UserError):
    """What a command needs cannot be had now, and no other words would change that: exit code 4 (unavailable)."""


class NotReady(Exception):
    """The server does not answer a real request yet; the text says how."""


class Server(Protocol):
    """One embedded server. `prepare` and `probe` may be repeated at will."""

    @property
    def name(self) -> str: ...

    @property
    def ports(self) -> tuple[int, ...]: ...

    def prepare(self) -> Program:
        """Make its folders and files (once) and say how it is run."""

    def probe(self) -> None:
        """One real request; NotReady when it is not answered."""


def private_folder(path: Path) -> Path:
    """The folder, made for its owner only."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
