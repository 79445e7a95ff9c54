"""What the supervisor can run: one value per program, rendered to supervisord's configuration."""

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fp_operator.stack.account import Account

TETHER = Path(__file__).with_name("tether.py")
_RESTART = {"always": "true", "failure": "unexpected", "never": "false"}


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process. Lower `priority` starts first and stops last (servers < 200, services from 500)."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    account: Account | None = None
    autorestart: Literal["always", "failure", "never"] = "always"
    start_retries: int = 10
    """How often a start that ends within a second is repeated (after 1, 2, 3, … s) before it is FATAL."""
    stop_signal: str = "TERM"
    stop_seconds: int = 15
    priority: int = 500
    stdout: Path | None = None
    """Where standard output goes instead of the log file (standard error always goes to the log)."""

    def env_file_name(self) -> str:
        """Name that changes with the content, so that a changed environment is a changed program."""
        text = json.dumps(dict(self.env), sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"

    def command(self, folder: Path, marker: str) -> list[str]:
        """The tethered command line; `marker` names the state folder in the environment of the process."""
        tether = [sys.executable, "-I", "-S", str(TETHER), "--supervised", "--death-signal", self.stop_signal]
        tether += ["--env", str(folder / "env" / self.env_file_name()), "--mark", marker]
        if self.account:
            tether += ["--user", f"{self.account.uid}:{self.account.gid}"]
        return [*tether, "--", *self.argv]


def render_program(program: Program, folder: Path, logs: Path, marker: str) -> str:
    """The `[program:…]` section; supervisord expands `%`, so every `%` is doubled."""
    log = logs / f"{program.name}.log"
    settings = {
        "command": shlex.join(program.command(folder, marker)),
        "directory": str(program.cwd or "/"),
        "priority": str(program.priority),
        "autostart": "false",
        "autorestart": _RESTART[program.autorestart],
        "exitcodes": "0",
        "startsecs": "1",
        "startretries": str(program.start_retries),
        "stopsignal": program.stop_signal,
        "stopwaitsecs": str(program.stop_seconds),
        "stdout_logfile": str(program.stdout or log),
        "stdout_logfile_maxbytes": "50MB",
        "stdout_logfile_backups": "1",
        "redirect_stderr": "false" if program.stdout else "true",
    }
    if program.stdout:
        settings |= {"stderr_logfile": str(log), "stderr_logfile_maxbytes": "50MB", "stderr_logfile_backups": "1"}
    return _section(f"program:{program.name}", settings)


def render_supervisord(folder: Path, logs: Path, root: bool) -> str:
    """The main configuration: a unix socket for orders, programs from `conf.d/`."""
    daemon = {
        "logfile": str(logs / "supervisord.log"),
        "logfile_maxbytes": "10MB",
        "logfile_backups": "1",
        "pidfile": str(folder / "supervisord.pid"),
        "childlogdir": str(logs),
        "directory": "/",
        "nodaemon": "true",
        "silent": "true",
        "minfds": "256",  # it closes so many before each exec, deaf to signals meanwhile; the tether raises the limit
        "umask": "022",
    }
    if root:
        daemon["user"] = "root"  # said on purpose: otherwise supervisord warns at every start
    factory = {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"}
    sections: Sequence[tuple[str, Mapping[str, str]]] = (
        ("unix_http_server", {"file": str(folder / "s.sock"), "chmod": "0700"}),
        ("supervisord", daemon),
        ("rpcinterface:supervisor", factory),
        ("include", {"files": str(folder / "conf.d" / "*.conf")}),
    )
    return "\n".join(_section(name, settings) for name, settings in sections)


def _section(name: str, settings: Mapping[str, str]) -> str:
    lines = [f"{key} = {value.replace('%', '%%')}" for key, value in settings.items()]
    return f"[{name}]\n" + "\n".join(lines) + "\n"
