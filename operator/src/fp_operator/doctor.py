"""`fp doctor`: authorities, handles, servers and services asked one by one, each with the way to mend it. Read-only."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fp_contracts.pins import alert_level
from fp_contracts.services import instances
from fp_operator import authority, build, handles, mesh, project, substrate
from fp_operator.programs import HEALTH, MEMBERS, WRITERS
from fp_operator.stack import ProgramState, StackAddresses, Supervisor
from fp_operator.stack.addresses import STORES, given_addresses, store_url
from fp_operator.stack.complaints import RECENT_S, ended_lately, last_error
from fp_operator.stack.start import build as server_of
from fp_operator.stack.state import StateFolder
from fp_runtime.errors import UserError

OFTEN = 3
"""A drill kills a member once; one that ended so often of late is in trouble."""
SERVERS: Mapping[str, str] = {
    "kafka": "kafka_bootstrap", "postgres": "pg_dsn", "valkey": "redis_url", "telemetry": "otlp_endpoint",
}  # fmt: skip
"""Server -> the address that stands for it when it is elsewhere."""
SERVICES = (*instances(MEMBERS, WRITERS), "actuator", "meter-0")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was asked: what was seen, or the fault and its fix."""

    what: str
    seen: str
    fault: str | None = None
    fix: str = ""


def examine(state_dir: Path) -> list[Finding]:
    """Everything that a run rests on. Starts nothing, changes nothing."""
    found = [_authority(), _revision(), _state_folder(state_dir), *programs(state_dir, given_addresses())]
    addresses = _addresses(state_dir)
    if addresses is None:
        return [*found, Finding("handles", "", "the environment is not up", "fp up")]
    return [*found, *_handles(state_dir, addresses), _budget(state_dir, addresses)]


def _authority() -> Finding:
    try:
        known = authority.load(project.root() / "docs" / "authority")
    except UserError as error:
        return Finding(error.what, "", error.why, error.fix)
    return Finding("authorities", f"as pinned, {len(known.handles)} handles")


def _revision() -> Finding:
    try:
        source = build.find_revision(project.root())
    except UserError as error:
        return Finding("source revision", "", error.why, error.fix)
    return Finding("source revision", source.text or "", None if source.text else source.why, source.fix)


def _state_folder(state_dir: Path) -> Finding:
    """Whether it may be written, or made, and has room; it is not made here."""
    place = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    fault = StateFolder(place).fault()
    free = f"{state_dir}, {shutil.disk_usage(place).free / 1e9:.0f} GB free"
    return Finding("state folder", free) if fault is None else Finding("state folder", "", fault.why, fault.fix)


def programs(state_dir: Path, given: Mapping[str, str]) -> list[Finding]:
    """The supervisor, and every program that belongs to a whole environment; `given`: the addresses of servers that
    are elsewhere.
    """
    supervisor = Supervisor(state_dir)
    if not supervisor.alive():
        return [Finding("supervisor", "", "none answers: no server and no service runs", "fp up")]
    states, ports = supervisor.states(), StateFolder(state_dir).ports()
    ended = ended_lately(supervisor.logs / "supervisord.log", time.time())
    missing = [name for name in _expected(given) if name not in states]
    absent = [Finding(f"program {name}", "", "not started", "fp up") for name in missing]
    known = [
        _program(state, ended[name], supervisor.logs / f"{name}.log", ports.get(f"service:{HEALTH}{name}"))
        for name, state in states.items()
    ]
    return [Finding("supervisor", "answers"), *absent, *known]


def _expected(given: Mapping[str, str]) -> list[str]:
    """Names of the programs of a whole environment."""
    servers = [name for name, field in SERVERS.items() if field not in given]
    return [*servers, *SERVICES]


def _program(program: ProgramState, ended: int, log: Path, health: int | None) -> Finding:
    what, fault = f"program {program.name}", None
    over = program.name == mesh.REHEARSAL and program.state == "EXITED"
    if program.state != "RUNNING" and not over:
        fault = program.state
    elif ended >= OFTEN:
        fault = f"runs, but ended {ended} times in the last {RECENT_S // 60:.0f} minutes"
    elif health is not None and not mesh.answers(health):
        fault = f"RUNNING, but its health port {health} is silent"
    if fault is None:
        return Finding(what, f"{program.state}, pid {program.pid}")
    if ended and "ended" not in fault:
        fault += f", ended {ended} times in the last {RECENT_S // 60:.0f} minutes"
    said = last_error(log) if ended or program.state == "FATAL" else ""
    return Finding(what, "", fault + (f"; its log says: {said}" if said else ""), f"read {log}, then `fp up`")


def _addresses(state_dir: Path) -> StackAddresses | None:
    """Where the servers are, without starting one; None when they do not run."""
    if not (state_dir / substrate.MEMORY).is_file() or not Supervisor(state_dir).alive():
        return None
    given, folder = given_addresses(), StateFolder(state_dir)
    ports = folder.ports()
    own = {f"{store}_url": store_url(state_dir, store) for store in STORES}
    for name, field, attribute in (
        ("kafka", "kafka_bootstrap", "bootstrap"), ("postgres", "pg_dsn", "dsn"), ("valkey", "redis_url", "url"),
    ):  # fmt: skip
        if field not in given:
            own[field] = getattr(server_of(name, folder, ports), attribute)
    return StackAddresses(**(own | given))


def _handles(state_dir: Path, addresses: StackAddresses) -> list[Finding]:
    known = authority.load(project.root() / "docs" / "authority")
    settings = substrate.operator_settings(state_dir, addresses)
    faults = handles.resolve_all(known.handles, state_dir, addresses, settings)
    return [
        Finding(f"handle {handle.name}", f"{handle.local}: {handle.purpose}", faults[handle.name],
                f"{handle.local} realises it: `fp up` makes it")
        for handle in known.handles
    ]  # fmt: skip


def _budget(state_dir: Path, addresses: StackAddresses) -> Finding:
    spend = handles.month_spend(substrate.operator_settings(state_dir, addresses))
    if spend is None:
        return Finding("budget", "", "the month's spend cannot be read", "fp up")
    level = alert_level(spend)
    fault = "alert 3: phases may not advance" if level == 3 else None
    return Finding("budget", f"{spend / 1e6:.4f} USD this month, alert {level}", fault, "raise it by a reviewed change")
