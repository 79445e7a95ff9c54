"""The embedded stack: real servers under one state folder, started, checked, repaired and stopped."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fp_operator.stack.addresses import (
    STORES,
    VARIABLES,
    StackAddresses,
    check_form,
    default_state_dir,
    given_addresses,
    store_url,
)
from fp_operator.stack.holding import holding, keep
from fp_operator.stack.kafka import probe_kafka
from fp_operator.stack.postgres import probe_postgres
from fp_operator.stack.server import Away, NotReady
from fp_operator.stack.start import OnStep, serialised, start_servers
from fp_operator.stack.state import StateFolder
from fp_operator.stack.strays import end_strays
from fp_operator.stack.supervisor import Supervisor
from fp_operator.stack.valkey import probe_redis
from fp_runtime.errors import UserError

_EXTERNAL: Mapping[str, tuple[str, Callable[[str], None]]] = {
    "kafka": ("kafka_bootstrap", lambda address: probe_kafka(address, timeout_s=10)),
    "postgres": ("pg_dsn", lambda address: probe_postgres(address, timeout_s=10)),
    "valkey": ("redis_url", lambda address: probe_redis(address, timeout_s=10)),
}


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """One supervised program; `state` is supervisord's word (RUNNING, STARTING, BACKOFF, STOPPED, FATAL, …)."""

    name: str
    state: str
    pid: int
    started_us: int


def up(
    state_dir: Path | None = None,
    *,
    on_step: OnStep | None = None,
    telemetry: bool = False,
    die_with_caller: bool = False,
    keep: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> StackAddresses:
    """Make every server ready and return the addresses; what already runs is kept, what is missing is started.

    A server whose address is in `environ` is asked for, not started. UserError when something is in the way; a stack
    that this call began and could not make ready is stopped again, also when this process is killed. Without `keep`
    what was begun here lasts as long as the caller is in `held`.
    """
    folder = StateFolder((state_dir or default_state_dir(environ)).absolute())
    folder.prepare()
    step = serialised(on_step)
    given = given_addresses(environ)
    wanted = [name for name in _EXTERNAL if not _uses_external(name, given, step)]
    wanted += ["telemetry"] if telemetry and "otlp_endpoint" not in given else []
    with held(folder.path, step):
        with folder.lock():
            own = _bring_up(folder, wanted, step, die_with_caller)
        if keep:
            keep_up(folder.path)
    for store in STORES:
        if f"{store}_url" not in given:
            (folder.path / store).mkdir(exist_ok=True)
            own[f"{store}_url"] = store_url(folder.path, store)
    return StackAddresses(**(own | given))


@contextmanager
def held(state_dir: Path, step: OnStep) -> Iterator[None]:
    """Within, a stack that is begun and not yet kept goes on; it is stopped when the last one leaves, or is killed."""

    def end() -> None:
        if Supervisor(state_dir).alive():
            down(state_dir, on_step=step)

    with holding(Supervisor(state_dir).folder, end):
        yield


def keep_up(state_dir: Path) -> None:
    """The stack is finished: it stays until `down`, whoever dies."""
    keep(Supervisor(state_dir).folder)


def down(state_dir: Path | None = None, *, on_step: OnStep | None = None) -> None:
    """Stop everything that belongs to the state folder, services first; data and ports are kept. Repeatable."""
    path = (state_dir or default_state_dir()).absolute()
    if path.exists():
        with StateFolder(path).lock():
            _stop(path, serialised(on_step))


def status(state_dir: Path | None = None) -> list[ProgramStatus]:
    """Servers and services of the state folder; empty when no supervisor runs."""
    supervisor = Supervisor((state_dir or default_state_dir()).absolute())
    if not supervisor.alive():
        return []
    return [ProgramStatus(s.name, s.state, s.pid, s.started_us) for s in supervisor.states().values()]


def embeds_servers(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether any server that holds data is our own: its address is not given."""
    return any(field not in given_addresses(environ) for field, _ in _EXTERNAL.values())


def role_password(state_dir: Path, role: str) -> str:
    """The password of a service's PostgreSQL role: made once, kept in the 0600 file of the state folder."""
    return StateFolder(state_dir).secret(f"pg:{role}")


def _uses_external(name: str, given: Mapping[str, str], step: OnStep) -> bool:
    field, probe = _EXTERNAL[name]
    if field not in given:
        return False
    check_form(field, given[field])
    began = time.monotonic()
    try:
        probe(given[field])
    except ValueError as error:  # of that form, but for instance with a port that is no number
        raise UserError(VARIABLES[field], str(error), "correct it, or unset it to use the embedded one") from error
    except NotReady as error:
        raise Away(
            f"the {name} server given in {VARIABLES[field]} does not answer",
            " ".join(str(error).split()).rstrip("."),
            "start it, or unset the variable to use the embedded one",
        ) from error
    step(name, "external", time.monotonic() - began)
    return True


def _bring_up(folder: StateFolder, wanted: list[str], step: OnStep, die_with_caller: bool) -> dict[str, str]:
    supervisor = Supervisor(folder.path)
    if not supervisor.alive():
        end_strays(folder.path)
    return start_servers(folder, supervisor, wanted, step, die_with_caller) if wanted else {}


def _stop(path: Path, step: OnStep) -> None:
    began = time.monotonic()
    step("stack", "stopping", 0.0)
    supervisor = Supervisor(path)
    if supervisor.alive():
        supervisor.shutdown()
    end_strays(path)
    step("stack", "stopped", time.monotonic() - began)
