"""Start the embedded servers: ports, files, processes, and the wait for the first answered request of each."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from fp_operator.stack.kafka import Kafka
from fp_operator.stack.postgres import Postgres
from fp_operator.stack.program import Program
from fp_operator.stack.refusals import full_disk, refused
from fp_operator.stack.server import Away, NotReady, Server
from fp_operator.stack.state import StateFolder, choose_ports, is_free
from fp_operator.stack.supervisor import Supervisor
from fp_operator.stack.telemetry import TelemetrySink
from fp_operator.stack.valkey import Valkey
from fp_runtime.deadline import until
from fp_runtime.errors import UserError

OnStep = Callable[[str, str, float], None]
"""Called with a server's name, its state (preparing, starting, ready, external, stopping, stopped) and seconds."""

OWNER = "servers"
_READY_TIMEOUT_S = 120
_PORT_TRIES = 3
_PORTS = {
    "kafka": ("kafka", "kafka_controller"),
    "postgres": ("postgres",),
    "valkey": ("valkey",),
    "telemetry": ("telemetry",),
}


class PortTaken(Exception):
    """Another program took the server's port between choosing it and listening on it."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self.server = server


def serialised(on_step: OnStep | None) -> OnStep:
    """Servers start in parallel; the callback sees one step at a time."""
    lock = threading.Lock()

    def step(name: str, state: str, seconds: float) -> None:
        if on_step:
            with lock:
                on_step(name, state, seconds)

    return step


def start_servers(
    folder: StateFolder, supervisor: Supervisor, names: Sequence[str], step: OnStep, die_with_caller: bool
) -> dict[str, str]:
    """Start what does not run, wait until all are ready; their addresses by field name. A lost port is replaced."""
    taken: set[str] = set()
    for _ in range(_PORT_TRIES):
        ports = _choose(folder, supervisor, names, taken)
        servers = {name: build(name, folder, ports) for name in names}
        try:
            _run(supervisor, list(servers.values()), step, die_with_caller)
        except PortTaken as lost:
            taken = {lost.server}
            continue
        return {field: address for server in servers.values() for field, address in _address(server).items()}
    raise UserError(
        f"{', '.join(taken)} did not start",
        f"another program took its port, {_PORT_TRIES} times in a row",
        "end what takes ports between 20000 and 32000, then `fp up`",
    )


def build(name: str, folder: StateFolder, ports: Mapping[str, int]) -> Server:
    """The server of that name in the state folder."""
    home: Path = folder.path / name
    match name:
        case "kafka":
            return Kafka(home, ports["kafka"], ports["kafka_controller"])
        case "postgres":
            return Postgres(home, ports["postgres"], folder.secret("pg:fp_owner"))
        case "valkey":
            return Valkey(home, ports["valkey"], folder.secret("valkey"))
        case "telemetry":
            return TelemetrySink(home, ports["telemetry"])
    raise ValueError(f"no server is called {name!r}")


def _address(server: Server) -> dict[str, str]:
    match server:
        case Kafka():
            return {"kafka_bootstrap": server.bootstrap}
        case Postgres():
            return {"pg_dsn": server.dsn}
        case Valkey():
            return {"redis_url": server.url}
        case TelemetrySink():
            return {"otlp_endpoint": server.endpoint, "telemetry_url": server.lines.as_uri()}
    raise ValueError(f"no address is known for {server.name}")


def _choose(folder: StateFolder, supervisor: Supervisor, names: Sequence[str], taken: set[str]) -> dict[str, int]:
    """Last time's ports; new ones where there are none, or where somebody else sits on a stopped server's port."""
    ports = folder.ports()
    states = supervisor.states() if supervisor.alive() else {}
    for name in names:
        runs = name in states and bool(states[name].pid)
        mine = {port: ports[port] for port in _PORTS[name] if port in ports}
        usable = len(mine) == len(_PORTS[name]) and (runs or all(is_free(port) for port in mine.values()))
        if name in taken or not usable:
            ports |= choose_ports(_PORTS[name], taken=ports.values())
    folder.save_ports(ports)
    return ports


def _run(supervisor: Supervisor, servers: Sequence[Server], step: OnStep, die_with_caller: bool) -> None:
    with ThreadPoolExecutor(len(servers)) as pool:
        programs = list(pool.map(partial(_prepare, step), servers))
    if supervisor.alive():
        supervisor.update(OWNER, programs)
    else:
        supervisor.launch(OWNER, programs, die_with_caller, held=True)
    given_up = threading.Event()
    with ThreadPoolExecutor(len(servers)) as pool:
        jobs = [pool.submit(_start, supervisor, step, given_up, server) for server in servers]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:  # Ctrl-C too: nobody waits for the others
            given_up.set()
            raise


def _prepare(step: OnStep, server: Server) -> Program:
    step(server.name, "preparing", 0.0)
    try:
        return server.prepare()
    except OSError as error:
        raise refused(error) from error


def _start(supervisor: Supervisor, step: OnStep, given_up: threading.Event, server: Server) -> None:
    began = time.monotonic()
    log = supervisor.logs / f"{server.name}.log"
    read_from = log.stat().st_size if log.exists() else 0
    step(server.name, "starting", 0.0)
    supervisor.start(server.name)
    last = ""

    def ready() -> bool:
        nonlocal last
        if given_up.is_set():
            return True
        try:
            server.probe()
        except NotReady as error:
            last = str(error)
            _check(supervisor, server, log, read_from)
            return False
        return True

    try:
        until(ready, _READY_TIMEOUT_S, f"{server.name} answers", interval_s=0.05)
    except TimeoutError as error:
        raise UserError(f"{server.name} is not ready", f"{error} ({last})", f"see {log}") from error
    if not given_up.is_set():
        step(server.name, "ready", time.monotonic() - began)


def _check(supervisor: Supervisor, server: Server, log: Path, read_from: int) -> None:
    """Raise when waiting on is of no use; a server that is being retried (BACKOFF) is given its time."""
    state = supervisor.states()[server.name].state
    if state not in ("BACKOFF", "FATAL", "EXITED", "STOPPED"):
        return
    lines = _tail(log, read_from)
    if any("Address already in use" in line for line in lines):
        raise PortTaken(server.name)
    if any(full_disk(line) for line in lines):
        raise Away(f"{server.name} did not start", f"the disk of {log.parent} is full", "free 1 GB, then `fp up` again")
    if state != "BACKOFF":
        why = lines[-1] if lines else f"its process is {state.lower()} and its log is empty"
        raise UserError(f"{server.name} did not start", why, f"see {log}")


def _tail(log: Path, read_from: int) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(read_from)
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
