"""The state folder: the one place on disk of a stack; its ports, its secrets and its lock."""

import contextlib
import errno
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fp_operator.stack.refusals import refused
from fp_operator.stack.server import Away
from fp_runtime.deadline import until
from fp_runtime.errors import UserError

FORMAT = 1
_MIN_FREE_BYTES = 1_000_000_000
_PORTS = range(20_000, 32_000)  # below the kernel's range for outgoing connections, so that none of them takes ours
_LOCK_WAIT_S = 180


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Layout: `stack.json`, `secrets.json` (0600), `lock`, `logs/`, `supervisor/`, one folder per server and store."""

    path: Path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def prepare(self) -> None:
        """Make the folder; UserError when it cannot be written, the disk is nearly full or it is of another version."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(error, self.path) from error
        if (fault := self.fault()) is not None:
            raise fault
        found = self._document().get("format", FORMAT)
        if found != FORMAT:
            raise UserError(
                f"cannot use the state folder {self.path}",
                f"it was made by another version (format {found}, this is {FORMAT})",
                "choose another one, or `fp down` and delete it",
            )

    def fault(self) -> UserError | None:
        """Why nothing more can be kept in the folder, which is there: it may not be written, or its disk is full."""
        if not self.path.is_dir():
            return refused(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), self.path)
        if not os.access(self.path, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(self.path).f_flag & os.ST_RDONLY else errno.EACCES
            return refused(OSError(code, os.strerror(code)), self.path)
        free = shutil.disk_usage(self.path).free
        if free >= _MIN_FREE_BYTES:
            return None
        return Away(
            "cannot start the stack",
            f"only {free // 1_000_000} MB are free on the disk of {self.path}",
            "free 1 GB or choose another state folder (FP_STATE_DIR=…)",
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One `up` or `down` at a time; waits for the other one."""
        with (self.path / "lock").open("w") as file:
            try:
                until(lambda: _try_lock(file.fileno()), _LOCK_WAIT_S, "the lock of the state folder")
            except TimeoutError as error:
                raise UserError(
                    "the stack is busy", f"another `fp up` or `fp down` holds {file.name}", "wait for it or end it"
                ) from error
            yield

    def ports(self) -> dict[str, int]:
        """The ports chosen last time."""
        ports: dict[str, int] = self._document().get("ports", {})
        return ports

    def save_ports(self, ports: Mapping[str, int]) -> None:
        """Keep the ports for the next start."""
        _write(self.path / "stack.json", {"format": FORMAT, "ports": dict(ports)}, 0o644)

    def secret(self, name: str) -> str:
        """The secret of that name, made at its first use and kept in a file only the owner can read."""
        path = self.path / "secrets.json"
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if name not in known:
            known[name] = secrets.token_hex(24)
            _write(path, known, 0o600)
        return known[name]

    def _document(self) -> dict[str, dict[str, int]]:
        path = self.path / "stack.json"
        try:
            document: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise UserError(f"cannot read {path}", str(error), "`fp down`, delete that file and `fp up`") from error
        return document


def choose_ports(names: Iterable[str], taken: Iterable[int] = ()) -> dict[str, int]:
    """A different free loopback port for each name."""
    used = set(taken)
    shuffled = random.SystemRandom().sample(_PORTS, len(_PORTS))
    free = (port for port in shuffled if port not in used and is_free(port))
    try:
        return {name: next(free) for name in names}
    except StopIteration as error:
        raise UserError(
            "cannot start the stack",
            f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free",
            "end what listens there",
        ) from error


def is_free(port: int) -> bool:
    """Whether a server could listen on that loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, document: Mapping[str, object], mode: int) -> None:
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, sort_keys=True)
        file.write("\n")
    part.replace(path)
