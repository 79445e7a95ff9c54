"""supervisord as a value: write its configuration, launch it, and give orders over its unix socket."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import sys
import xmlrpc.client
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fp_operator.stack.holding import hold_file, unfinished_file
from fp_operator.stack.program import TETHER, Program, render_program, render_supervisord
from fp_operator.stack.server import Away
from fp_runtime.deadline import until
from fp_runtime.errors import UserError

HELD = Path(__file__).with_name("held.py")
_SOCKET_PATH_LIMIT = 90  # of 107: supervisord binds a temporary name with its pid first
_ORDER_TIMEOUT_S = 60
_ALREADY_STARTED, _NOT_RUNNING, _ALREADY_ADDED = 60, 70, 90
_RUNNING = ("RUNNING", "STARTING", "BACKOFF")


@dataclass(frozen=True, slots=True)
class ProgramState:
    """`state` is supervisord's word: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL, …; `pid` 0 = no process."""

    name: str
    state: str
    pid: int
    exit_status: int
    started_us: int
    why: str


@dataclass(frozen=True, slots=True)
class Supervisor:
    """One supervisord of one state folder; programs are kept in sets, one per `owner` ("servers", "services")."""

    state_dir: Path

    @property
    def folder(self) -> Path:
        return self.state_dir / "supervisor"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

    def write_config(self, owner: str, programs: Sequence[Program]) -> None:
        """Replace the owner's set of programs on disk. Environments go to 0600 files: they may hold passwords."""
        for folder, mode in ((self.folder, 0o700), (self.folder / "conf.d", 0o700), (self.folder / "env", 0o700)):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        for program in programs:
            _write_private(self.folder / "env" / program.env_file_name(), json.dumps(dict(program.env)))
        sections = [render_program(p, self.folder, self.logs, str(self.state_dir)) for p in programs]
        _write_private(self.folder / "conf.d" / f"{owner}.conf", "\n".join(sections))
        main = render_supervisord(self.folder, self.logs, root=os.geteuid() == 0)
        _write_private(self.folder / "supervisord.conf", main)

    def launch(
        self, owner: str, programs: Sequence[Program], die_with_caller: bool = False, held: bool = False
    ) -> None:  # fmt: skip
        """Start supervisord in its own session, knowing only these programs; returns when it takes orders.

        With `die_with_caller` it ends when the calling process dies, with `held` when nobody holds a stack that was not
        kept (holding.py); else only by `shutdown`.
        """
        if len(str(self.folder / "s.sock")) > _SOCKET_PATH_LIMIT:
            raise UserError(
                "cannot start the supervisor", f"the path of {self.state_dir} is too long", "use a shorter state folder"
            )
        for leftover in ("conf.d", "env"):
            shutil.rmtree(self.folder / leftover, ignore_errors=True)
        self.write_config(owner, programs)
        unfinished_file(self.folder).unlink(missing_ok=True)
        if held:
            unfinished_file(self.folder).touch()
        tether = [sys.executable, "-I", "-S", str(TETHER), "--announce", "--mark", str(self.state_dir)]
        tether += ["--death-signal", "TERM"] if die_with_caller else []
        out = self.logs / "supervisord.out"
        pid = _spawn([*tether, "--", *self._command(held)], out)
        try:
            until(lambda: self.alive() or not _lives(pid), 30, "supervisord takes orders")
        except TimeoutError as error:
            raise UserError("the supervisor does not answer", str(error), f"see {out}") from error
        if not self.alive():
            lines = out.read_text(errors="replace").strip().splitlines() or ["no message"]
            raise UserError("the supervisor did not start", lines[-1], f"see {out}")

    def _command(self, held: bool) -> list[str]:
        configured = ["-c", str(self.folder / "supervisord.conf")]
        if held:
            files = [str(hold_file(self.folder)), str(unfinished_file(self.folder))]
            return [sys.executable, "-P", str(HELD), *files, *configured]
        return [sys.executable, "-m", "supervisor.supervisord", *configured]

    def alive(self) -> bool:
        """Whether a supervisor answers on the socket."""
        try:
            self._order(lambda rpc: rpc.supervisor.getState())
        except SupervisorDown:
            return False
        return True

    def update(self, owner: str, programs: Sequence[Program]) -> None:
        """Make the owner's set exactly `programs`: gone ones are stopped, changed ones restarted, new ones known."""
        running = {s.name for s in self.states().values() if s.state in _RUNNING}
        self.write_config(owner, programs)
        ((added, changed, removed),) = self._order(lambda rpc: rpc.supervisor.reloadConfig())
        for name in (*removed, *changed):
            self.stop(name)
            self._order(lambda rpc, name=name: rpc.supervisor.removeProcessGroup(name))  # type: ignore[misc]
        for name in (*added, *changed):
            self._tolerate(_ALREADY_ADDED, "addProcessGroup", name)
        for name in changed:
            if name in running:
                self.start(name)

    def start(self, name: str) -> None:
        """Start and return at once; a program that already runs is left alone."""
        self._tolerate(_ALREADY_STARTED, "startProcess", name, False)

    def stop(self, name: str) -> None:
        """Stop and wait until it has ended (SIGKILL after its `stop_seconds`)."""
        self._await_exec(name)
        self._tolerate(_NOT_RUNNING, "stopProcess", name, True)

    def signal(self, name: str, signal_name: str) -> None:
        """Send a signal, e.g. "KILL"; the supervisor restarts what dies by it according to `autorestart`."""
        self._await_exec(name)
        self._order(lambda rpc: rpc.supervisor.signalProcess(name, signal_name))

    def states(self) -> dict[str, ProgramState]:
        """Every known program by name."""
        return {info["name"]: _state(info) for info in self._order(lambda rpc: rpc.supervisor.getAllProcessInfo())}

    def pid(self, name: str) -> int | None:
        """The process id, or None while there is no process."""
        found = self.states().get(name)
        return found.pid if found and found.pid else None

    def shutdown(self, timeout_s: float = 90) -> None:
        """Stop every program in reverse order of priority, then the supervisor; returns when its process is gone."""
        self._await_exec(*self.states())
        pid = self.daemon_pid()
        self._order(lambda rpc: rpc.supervisor.shutdown())
        until(lambda: not _lives(pid), timeout_s, "supervisord has ended")

    def daemon_pid(self) -> int:
        """The supervisor's own process id; SupervisorDown."""
        return int(self._order(lambda rpc: rpc.supervisor.getPID()))

    def _await_exec(self, *names: str) -> None:
        """Between fork and exec a child still has supervisord's handlers, and would swallow a signal."""
        states, daemon = self.states(), _command_line(self.daemon_pid())
        pids = [states[name].pid for name in names if name in states and states[name].pid]
        until(lambda: all(_command_line(pid) != daemon for pid in pids), 30, "every program has been executed")

    def _tolerate(self, code: int, method: str, *arguments: Any) -> None:
        try:
            self._order(lambda rpc: getattr(rpc.supervisor, method)(*arguments))
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != code:
                raise

    def _order(self, call: Callable[[xmlrpc.client.ServerProxy], Any]) -> Any:
        try:
            with _proxy(self.folder / "s.sock") as rpc:
                return call(rpc)
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorDown(
                "the stack's supervisor does not answer", str(error) or type(error).__name__, "run `fp up`"
            ) from error


class SupervisorDown(Away):
    """No supervisor answers on the socket of this state folder."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ORDER_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ORDER_TIMEOUT_S)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._unix = _UnixConnection(path)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return self._unix

    def close(self) -> None:
        self._unix.close()


@contextlib.contextmanager
def _proxy(path: Path) -> Iterator[xmlrpc.client.ServerProxy]:
    transport = _UnixTransport(path)
    try:
        yield xmlrpc.client.ServerProxy("http://localhost", transport=transport, allow_none=True)
    finally:
        transport.close()


def _state(info: dict[str, Any]) -> ProgramState:
    started_us = int(info["start"]) * 1_000_000
    return ProgramState(info["name"], info["statename"], info["pid"], info["exitstatus"], started_us, info["spawnerr"])


def _spawn(argv: list[str], out: Path) -> int:
    """A child in its own session, without a Popen object that would have to be kept for its whole life."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(out), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)


def _command_line(pid: int) -> list[str] | None:
    """None = no such process, or none that can be asked."""
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return None


def _lives(pid: int) -> bool:
    """Whether the process runs; a dead child of ours is reaped on the way."""
    try:
        process = psutil.Process(pid)
        process.wait(timeout=0)
    except psutil.TimeoutExpired:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    return False


def _write_private(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)
