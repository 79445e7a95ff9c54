"""`fp doctor`: authorities, handles, servers and services asked one by one, each with the way to mend it. Read-only."""

from dataclasses import dataclass
from pathlib import Path

from fp_contracts.pins import alert_level
from fp_operator import authority, handles, mesh, project, substrate
from fp_operator.programs import HEALTH
from fp_operator.stack import StackAddresses, Supervisor
from fp_operator.stack.addresses import STORES, given_addresses, store_url
from fp_operator.stack.start import build as server_of
from fp_operator.stack.state import StateFolder
from fp_runtime.errors import UserError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was asked: what was seen, or the fault and its fix."""

    what: str
    seen: str
    fault: str | None = None
    fix: str = ""


def examine(state_dir: Path) -> list[Finding]:
    """Everything that a run rests on. Starts nothing, changes nothing."""
    found = [_authority(), *_programs(state_dir)]
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


def _programs(state_dir: Path) -> list[Finding]:
    supervisor = Supervisor(state_dir)
    if not supervisor.alive():
        return [Finding("supervisor", "", "no supervisor answers", "fp up")]
    ports = StateFolder(state_dir).ports()
    found = [Finding("supervisor", "answers")]
    for name, program in supervisor.states().items():
        port = ports.get(f"service:{HEALTH}{name}")
        fix = f"read {state_dir / 'logs' / name}.log, then `fp up`"
        if program.state != "RUNNING":
            found.append(Finding(f"program {name}", "", program.state, fix))
        elif port is not None and not mesh.answers(port):
            found.append(Finding(f"program {name}", "", f"RUNNING, but its health port {port} is silent", fix))
        else:
            found.append(Finding(f"program {name}", f"RUNNING, pid {program.pid}"))
    return found


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
