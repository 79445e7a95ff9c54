"""`fp down`: services first, then P17 over what is left, then the servers, then an addendum."""

from dataclasses import dataclass
from pathlib import Path

import orjson

from fp_contracts.canonical import canonical_bytes, digest_of, sha256_hex
from fp_contracts.control import GateBlocked, GatePassed
from fp_contracts.fold import RunState, fold
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import ORDER, PHASES
from fp_operator import bundles, handles, mesh, namespace, pinning, resuming, signing, substrate, teardown
from fp_operator.ending import end_noted, tear_down
from fp_operator.namespace import Namespace
from fp_operator.rereading import recorded, reread
from fp_operator.residue import processes, scan
from fp_operator.resuming import Reset
from fp_operator.runs import Reader, reading
from fp_operator.stack import OnStep, Supervisor
from fp_operator.substrate import Environment
from fp_operator.teardown import TeardownFacts
from fp_runtime import gate, meter
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceStore, open_store, put_json
from fp_runtime.participant import now_us
from fp_runtime.postgres import Connection, transaction


@dataclass(frozen=True, slots=True)
class Ended:
    """What a teardown came to: the run it closed, or why P17 stays open; `left` = what the last scan found; `closed`
    = how many of its phases are.
    """

    run: str | None
    p17: str
    left: tuple[str, ...]
    closed: int = 0


def bring_down(state_dir: Path, actor: str, reason: str, on_step: OnStep) -> Ended:
    """Tear down whatever runs; P17 of the last run closes if it has a verdict. Repeatable."""
    environment = _environment(state_dir) if Supervisor(state_dir).alive() else None
    space = Namespace(state_dir, {} if environment is None else environment.ports)
    closing = _Closing(environment, actor, reason, on_step)
    began = Supervisor(state_dir).alive()
    tear_down(space, None, on_step, closing.judge if began else lambda: None)
    left = tuple(processes(space)) if state_dir.exists() else ()
    if not began:
        return Ended(None, "nothing ran", left)
    if environment is not None and closing.run is not None and closing.p17 in ("PASS", "BLOCKED"):
        _addendum(open_store(environment.addresses.evidence_url), closing.run, closing.attempt, left, state_dir)
    return Ended(closing.run, closing.p17, left, closing.closed)


class _Closing:
    """P17 of the last run, judged once services are gone and while the servers still answer."""

    def __init__(self, environment: Environment | None, actor: str, reason: str, on_step: OnStep) -> None:
        self._environment = environment
        self._who = (actor, reason)
        self._on_step = on_step
        self.run: str | None = None
        self.p17 = "never up"
        self.attempt = 1
        self.closed = 0

    def judge(self) -> None:
        """End what rehearsals left, then close P17 on what is there."""
        if self._environment is not None:
            ended = end_noted(self._environment.state_dir, self._environment.addresses, lambda *_: None)
            if ended:
                self._on_step("rehearsals", f"{ended} left unfinished, torn down", 0.0)
            state, self.p17 = _close(self._environment, *self._who)
            if state is not None:
                self.run, self.attempt = state.platform_run_id, state.attempt_of("P17")
                self.closed = sum(state.passed(phase) for phase in ORDER)
        self._on_step("P17", self.p17, 0.0)


def _environment(state_dir: Path) -> Environment | None:
    """What `fp up` made, None when it never got so far."""
    try:
        return substrate.remembered(state_dir, lambda *_: None)
    except UserError:
        return None


def _close(environment: Environment, actor: str, reason: str) -> tuple[RunState | None, str]:
    """(last run, state of its P17) after this teardown's evaluation."""
    with reading(environment.state_dir) as reader:
        try:
            state = reader.state(None)
        except UserError:
            return None, "no run yet"
        run = state.platform_run_id
        store = open_store(environment.addresses.evidence_url)
        if state.verdict is None:
            _abandon(store, run, actor, reason)
            return state, "OPEN: abandoned without a verdict"
        if state.passed("P17"):
            return state, "PASS before"
        if state.state_of("P17") == "BLOCKED":  # what was left may be gone by now: another attempt (spec §6)
            again = Reset("P17", state.attempt_of("P17") + 1, "service_runtime", ())
            resuming.resume(environment, state, again, actor, reason)
            state = reader.state(run)
        closure = _judge(reader, state, store, actor, reason)
        pinning.publish(environment, state, [(closure, ("P17", str(closure.attempt)))])
        return fold(state, closure), "PASS" if isinstance(closure, GatePassed) else "BLOCKED"


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
    residue = scan(Namespace(environment.state_dir, environment.ports), None, tended=True)
    scratch = [found for space in namespace.noted(environment.state_dir) for found in
               scan(space, environment.addresses)]  # fmt: skip
    assert state.verdict is not None
    return TeardownFacts(
        verdict_sha256=state.verdict.verdict_ref.sha256,
        stopped={name: word for name, word in states.items() if not mesh.is_server(name)},
        servers={name: word for name, word in states.items() if mesh.is_server(name)},
        strays=tuple(found.name for found in residue if found.kind == "process"),
        open_ports=tuple(found.name for found in residue if found.kind == "port"),
        scratch=tuple(f"{found.kind} {found.name}" for found in scratch),
        spend_microusd=spend_microusd,
        month_spend_microusd=handles.month_spend(environment.settings()),
        objects=reread(store, bundles.run_root(state.platform_run_id), recorded(state)),
        actor=actor,
        reason=reason,
        at_us=now_us(),
    )


def _abandon(store: EvidenceStore, run: str, actor: str, reason: str) -> None:
    key = f"{bundles.run_root(run)}teardown/abandoned.json"
    if not store.exists(key):
        put_json(store, key, {"platform_run_id": run, "actor": actor, "reason": reason, "at_us": now_us()})


def _addendum(store: EvidenceStore, run: str, attempt: int, left: tuple[str, ...], state_dir: Path) -> None:
    """After the servers stopped: nothing runs, and the teardown's own evidence still reads. Signed over the verdict."""
    spec, execution = PHASES["P17"], phase_execution_id(run, "P17", attempt)
    key = spec.evidence_key(run, execution, "addendum")
    if store.exists(key):
        return
    bodies = {name: store.get(spec.evidence_key(run, execution, name)) for name in spec.evidence}
    document = {
        "platform_run_id": run, "verdict_sha256": orjson.loads(bodies["snapshot"])["verdict_sha256"],
        "teardown": {name: sha256_hex(body) for name, body in bodies.items()},
        "residue_after_servers": list(left), "at_us": now_us(),
    }  # fmt: skip
    seals = {"digest": digest_of(document), "signature": signing.sign(state_dir, canonical_bytes(document))}
    put_json(store, key, document | seals)
