"""`fp down`: services first, then P17 over what is left, then the servers, then an addendum."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from fp_contracts.canonical import digest_of, sha256_hex
from fp_contracts.control import GateBlocked, GatePassed
from fp_contracts.fold import RunState
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import PHASES
from fp_operator import bundles, handles, mesh, pinning, substrate, teardown
from fp_operator.runs import Reader, reading
from fp_operator.stack import OnStep, Supervisor
from fp_operator.stack import down as stop_servers
from fp_operator.stack.strays import strays
from fp_operator.substrate import Environment
from fp_operator.teardown import TeardownFacts
from fp_runtime import gate, meter
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceKeyError, EvidenceMissing, EvidenceStore, open_store, put_json
from fp_runtime.participant import now_us
from fp_runtime.postgres import Connection, transaction

SERVERS = ("kafka", "postgres", "valkey", "telemetry")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a teardown came to: the run it closed, or why P17 stays open; `left` = what the last scan found."""

    run: str | None
    p17: str
    left: tuple[str, ...]


def bring_down(state_dir: Path, actor: str, reason: str, on_step: OnStep) -> Ended:
    """Tear down whatever runs; P17 of the last run closes if it has a verdict. Repeatable."""
    supervisor = Supervisor(state_dir)
    if not supervisor.alive():
        stop_servers(state_dir, on_step=on_step)
        return Ended(None, "nothing ran", _residue(state_dir))
    environment = _environment(state_dir)
    ran = mesh.stop(state_dir)
    on_step("services", f"{len(ran)} stopped", 0.0)
    run, p17 = (None, "never up") if environment is None else _close(environment, actor, reason)
    on_step("P17", p17, 0.0)
    stop_servers(state_dir, on_step=on_step)
    left = _residue(state_dir)
    if environment is not None and run is not None and p17 in ("PASS", "BLOCKED"):
        _addendum(open_store(environment.addresses.evidence_url), run, left)
    return Ended(run, p17, left)


def _environment(state_dir: Path) -> Environment | None:
    """What `fp up` made, None when it never got so far."""
    try:
        return substrate.remembered(state_dir, lambda *_: None)
    except UserError:
        return None


def _close(environment: Environment, actor: str, reason: str) -> tuple[str | None, str]:
    """(run, state of its P17) after this teardown's evaluation."""
    with reading(environment.state_dir) as reader:
        try:
            state = reader.state(None)
        except UserError:
            return None, "no run yet"
        run = state.platform_run_id
        store = open_store(environment.addresses.evidence_url)
        if state.verdict is None:
            _abandon(store, run, actor, reason)
            return run, "OPEN: abandoned without a verdict"
        if state.state_of("P17") != "OPEN":
            return run, f"{state.state_of('P17')} before"
        closure = _judge(reader, state, store, actor, reason)
        pinning.publish(environment, state, [(closure, ("P17", "1"))])
        return run, "PASS" if isinstance(closure, GatePassed) else "BLOCKED"


def _judge(
    reader: Reader, state: RunState, store: EvidenceStore, actor: str, reason: str
) -> GatePassed | GateBlocked:  # fmt: skip
    run = state.platform_run_id
    with transaction(reader.conn) as cur:
        spend = meter.book(cur, run, "P17", state.attempt_of("P17"), earliest_open=True)
    facts = gather(reader.environment, reader.conn, state, store, spend.spend_microusd, actor, reason)
    closure = gate.journal(reader.conn, state, "P17", teardown.evaluate(facts), now_us())
    gate.put_evidence(store, closure, run)
    return closure.event


def gather(
    environment: Environment, conn: Connection, state: RunState, store: EvidenceStore, spend_microusd: int,
    actor: str, reason: str,
) -> TeardownFacts:  # fmt: skip
    """Facts of P17 as of now."""
    states = {name: program.state for name, program in Supervisor(environment.state_dir).states().items()}
    pids = {program.pid for program in Supervisor(environment.state_dir).states().values()}
    ports = [name for name, port in environment.ports.items() if mesh.answers(port)]
    assert state.verdict is not None
    return TeardownFacts(
        verdict_sha256=state.verdict.verdict_ref.sha256,
        stopped={name: word for name, word in states.items() if mesh.is_service(name)},
        servers={name: word for name, word in states.items() if not mesh.is_service(name)},
        strays=tuple(_unsupervised(environment.state_dir, pids)),
        open_ports=tuple(ports),
        spend_microusd=spend_microusd,
        month_spend_microusd=handles.month_spend(environment.settings()),
        objects=reread(store, state),
        actor=actor,
        reason=reason,
        at_us=now_us(),
    )


def reread(store: EvidenceStore, state: RunState) -> Mapping[str, str | None]:
    """Every object that a gate names re-hashed, every other object of the run read: key -> fault or None."""
    named = {key: sha256 for key, (_, _, sha256) in bundles.producers(state).items()}
    if state.verdict is not None:
        named[state.verdict.verdict_ref.key] = state.verdict.verdict_ref.sha256
    keys = {item.key for item in store.list(bundles.run_root(state.platform_run_id))} | set(named)
    return {key: _fault(store, key, named.get(key)) for key in sorted(keys)}


def _fault(store: EvidenceStore, key: str, sha256: str | None) -> str | None:
    try:
        found = sha256_hex(store.get(key))
    except (EvidenceMissing, EvidenceKeyError, OSError) as error:
        return f"not readable: {type(error).__name__}"
    return None if sha256 in (None, found) else f"sha256 {found[:12]}…, recorded {str(sha256)[:12]}…"


def _unsupervised(state_dir: Path, supervised: set[int]) -> list[str]:
    """Marked processes outside the trees of supervised programs and the supervisor itself."""
    found = []
    for process in strays(state_dir):
        family = {process.pid, *(parent.pid for parent in process.parents())}
        is_daemon = any("supervisord" in part for part in process.cmdline())
        if not family & supervised and not is_daemon:
            found.append(f"{process.pid} {process.name()}")
    return found


def _abandon(store: EvidenceStore, run: str, actor: str, reason: str) -> None:
    key = f"{bundles.run_root(run)}teardown/abandoned.json"
    if not store.exists(key):
        put_json(store, key, {"platform_run_id": run, "actor": actor, "reason": reason, "at_us": now_us()})


def _residue(state_dir: Path) -> tuple[str, ...]:
    return tuple(f"{process.pid} {process.name()}" for process in strays(state_dir)) if state_dir.exists() else ()


def _addendum(store: EvidenceStore, run: str, left: tuple[str, ...]) -> None:
    """After the servers stopped: nothing runs, and the teardown's own evidence still reads. Tied to the verdict."""
    spec, execution = PHASES["P17"], phase_execution_id(run, "P17", 1)
    key = spec.evidence_key(run, execution, "addendum")
    if store.exists(key):
        return
    bodies = {name: store.get(spec.evidence_key(run, execution, name)) for name in spec.evidence}
    document = {
        "platform_run_id": run, "verdict_sha256": orjson.loads(bodies["snapshot"])["verdict_sha256"],
        "teardown": {name: sha256_hex(body) for name, body in bodies.items()},
        "residue_after_servers": list(left), "at_us": now_us(),
    }  # fmt: skip
    put_json(store, key, document | {"digest": digest_of(document)})
