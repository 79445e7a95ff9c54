"""The services as a whole: started, asked whether they answer, stopped in order."""

import http.client
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fp_operator.programs import HEALTH
from fp_operator.stack import Away, Program, Supervisor
from fp_runtime.deadline import until

OWNER = "services"
REHEARSAL = "rehearsal"
"""The program that rehearses a teardown: it ends by itself, so it is stopped with the services but not waited for."""
READY_S = 180.0


def start(state_dir: Path, programs: Sequence[Program], ports: Mapping[str, int], anew: bool) -> None:
    """Start what does not run, or everything `anew`, and wait until every service answers. Away naming one."""
    supervisor = Supervisor(state_dir)
    if anew:
        stop(state_dir)
    supervisor.update(OWNER, programs)
    for program in programs:
        supervisor.start(program.name)
    names = [program.name for program in programs]
    late: list[str] = list(names)

    def answering() -> bool:
        check_fatal(supervisor, state_dir, names)
        late[:] = [name for name in late if not _answers(supervisor, name, ports)]
        return not late

    try:
        until(answering, READY_S, "the services answer", interval_s=0.3)
    except TimeoutError as error:
        raise Away(
            f"service {late[0]}", f"did not answer within {READY_S:.0f} s", f"read {state_dir}/logs/{late[0]}.log"
        ) from error


def check_fatal(supervisor: Supervisor, state_dir: Path, names: Sequence[str] | None = None) -> None:
    """Away when the supervisor gave a program up."""
    states = supervisor.states()
    for name in states.keys() - {REHEARSAL} if names is None else names:
        if states[name].state == "FATAL":
            log = state_dir / "logs" / f"{name}.log"
            raise Away(f"service {name}", "ended again and again", f"read {log}, then `fp up`")


def running(state_dir: Path) -> bool:
    """Whether the supervisor runs every service it knows, and knows some."""
    supervisor = Supervisor(state_dir)
    if not supervisor.alive():
        return False
    states = [program.state for name, program in supervisor.states().items() if is_service(name)]
    return bool(states) and all(state == "RUNNING" for state in states)


def stop(state_dir: Path) -> list[str]:
    """Stop every service, all at once, and keep the servers; the names of those that ran."""
    supervisor = Supervisor(state_dir)
    ran = [name for name, state in supervisor.states().items() if not is_server(name) and state.pid]
    with ThreadPoolExecutor(max_workers=max(1, len(ran))) as pool:
        list(pool.map(supervisor.stop, ran))
    return ran


def is_service(program: str) -> bool:
    """Whether a supervised program belongs to the mesh (instances and the actuator), not to the servers."""
    return program == "actuator" or program.rpartition("-")[2].isdigit()


def is_server(program: str) -> bool:
    """Whether a supervised program is a server, which a teardown stops last."""
    return not is_service(program) and program != REHEARSAL


def answers(port: int, path: str = "/status") -> bool:
    """Whether an HTTP server answers on a loopback port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _answers(supervisor: Supervisor, name: str, ports: Mapping[str, int]) -> bool:
    port = ports.get(f"{HEALTH}{name}")
    return supervisor.pid(name) is not None if port is None else answers(port)
