"""`fp up` beyond the servers: topics, schema, roles, P(-1) and P0 with their evidence, then the services."""

import secrets
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fp_contracts import control as c
from fp_contracts.canonical import canonical_bytes, digest_of
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.ids import h32
from fp_contracts.phases import PHASES
from fp_contracts.pins import MONTHLY_LIMIT_MICROUSD, alert_level
from fp_contracts.services import REQUIRED
from fp_operator import authority, build, handles
from fp_operator.authority import Authority
from fp_operator.prices import price_table
from fp_operator.programs import PORTS, make_programs, role_of
from fp_operator.runplan import Digests, envelopes
from fp_operator.stack import OnStep, StackAddresses, Supervisor, role_password, up
from fp_operator.stack.state import StateFolder, choose_ports
from fp_runtime.builds import package_of
from fp_runtime.deadline import until
from fp_runtime.errors import UserError
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_admin
from fp_runtime.meter import Usage, price
from fp_runtime.postgres import ensure_roles, migrate
from fp_runtime.settings import RuntimeSettings

MEMBERS: Mapping[str, int] = {"rtdl": 2, "df": 1, "cm_ls": 1}
MEMORY = "substrate.json"
STACKS = ("core", "streaming", "runtime", "data_ml", "ops")
MISSING, LOCKED = PHASES["P0"].blockers
ROLES = tuple(sorted({role_of(service) for service in REQUIRED} | {"fp_operator"}))


@dataclass(frozen=True, slots=True)
class Environment:
    """A ready environment: addresses, ports, digests, and the gates of P(-1) and P0 to be published on runs."""

    state_dir: Path
    addresses: StackAddresses
    ports: Mapping[str, int]
    digests: Digests
    gates: tuple[c.GatePassed, ...]

    def settings(self) -> RuntimeSettings:
        """Settings of the operator's own clients, under its own role."""
        return operator_settings(self.state_dir, self.addresses)


def operator_settings(state_dir: Path, addresses: StackAddresses) -> RuntimeSettings:
    """The operator reads everything and writes control, receipts and meter rows."""
    return RuntimeSettings(
        instance="operator-0",
        kafka_bootstrap=addresses.kafka_bootstrap,
        pg_dsn=addresses.pg_dsn_as("fp_operator", role_password(state_dir, "fp_operator")),
        evidence_url=addresses.evidence_url,
        archive_url=addresses.archive_url,
        oracle_url=addresses.oracle_url,
    )


def bring_up(state_dir: Path, root: Path, on_step: OnStep) -> Environment:
    """Everything from authorities to services; UserError with the fix when something is in the way."""
    started = time.monotonic()
    known = authority.load(root / "docs" / "authority")
    on_step("authority", "as pinned", 0.0)
    addresses = up(state_dir, on_step=on_step)
    _timed("schema and roles", on_step, lambda: _database(state_dir, addresses))
    settings = operator_settings(state_dir, addresses)
    _timed("topics", on_step, lambda: _topics(settings))
    facts = build.gather(root, revision_of(root))
    digests = Digests(known.digest, known.handles_digest, digest_of(build.manifest(facts)), price_table()[1])
    packaging = build.evaluate(facts)
    substrate = evaluate_p0(resolve(state_dir, addresses, known, settings))
    spend = _own_spend(time.monotonic() - started)
    gates = tuple(
        close(settings, phase, evaluation, digests, cost)
        for phase, evaluation, cost in (("P(-1)", packaging, 0), ("P0", substrate, spend))
    )
    on_step("P(-1) and P0", "closed on evidence", time.monotonic() - started)
    ports = _ports(state_dir)
    _timed("services", on_step, lambda: _services(state_dir, addresses, ports, digests))
    environment = Environment(state_dir, addresses, ports, digests, gates)
    _remember(environment)
    return environment


def _timed(name: str, on_step: OnStep, work: Callable[[], object]) -> None:
    began = time.monotonic()
    on_step(name, "starting", 0.0)
    work()
    on_step(name, "ready", time.monotonic() - began)


def _database(state_dir: Path, addresses: StackAddresses) -> None:
    ensure_roles(addresses.pg_dsn, {role: role_password(state_dir, role) for role in ROLES})
    packages = dict.fromkeys(["fp_runtime", "fp_sr", *(package_of(service) for service in REQUIRED)])
    migrate(addresses.pg_dsn, [name for name in packages if name != "fp_ofs_trigger"])


def _topics(settings: RuntimeSettings) -> None:
    admin = open_admin(settings)
    try:
        admin.create_topics()
    finally:
        admin.close()


def _ports(state_dir: Path) -> dict[str, int]:
    folder = StateFolder(state_dir)
    known = folder.ports()
    names = [f"service:{name}" for name in PORTS]
    missing = [name for name in names if name not in known]
    if missing:
        known = {**known, **choose_ports(missing, known.values())}
        folder.save_ports(known)
    return {name: known[f"service:{name}"] for name in PORTS}


def _services(state_dir: Path, addresses: StackAddresses, ports: Mapping[str, int], digests: Digests) -> None:
    folder, supervisor = StateFolder(state_dir), Supervisor(state_dir)
    shared = {
        "FP_PRODUCER_KEYS": f"k1:{secret_hex(folder)}",
        "FP_AUTHORITY_DIGEST": digests.authority,
        "FP_HANDLES_DIGEST": digests.handles,
    }
    password = lambda role: role_password(state_dir, role)  # noqa: E731 - a one-line closure over the folder
    programs = make_programs(addresses, state_dir, ports, password, shared, MEMBERS)
    supervisor.update("services", programs)
    for program in programs:
        supervisor.start(program.name)
    names = {program.name for program in programs}

    def running() -> bool:
        states = supervisor.states()
        fatal = [name for name in names if states[name].state == "FATAL"]
        if fatal:
            raise UserError(
                f"service {fatal[0]}", "ended again and again at its start", f"read {state_dir}/logs/{fatal[0]}.log"
            )
        return all(states[name].state == "RUNNING" for name in names)

    try:
        until(running, 60.0, "the services", interval_s=0.2)
    except TimeoutError as error:
        raise UserError("services", str(error), f"look into {state_dir}/logs, then `fp up` again") from error


def secret_hex(folder: StateFolder) -> str:
    """The key that signs producer tokens, as hex."""
    return folder.secret("producer_key").encode().hex()


def revision_of(root: Path) -> str | None:
    """The source revision: of the git checkout, or FP_REVISION where there is none."""
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


@dataclass(frozen=True, slots=True)
class SubstrateFacts:
    """What P0 rests on: stack -> what realises it and whether it is clean; handle -> fault or None; budget."""

    stacks: Mapping[str, tuple[str, bool]]
    handles: Mapping[str, str | None]
    lock_fault: str | None
    month_spend_microusd: int | None


def resolve(state_dir: Path, addresses: StackAddresses, known: Authority, settings: RuntimeSettings) -> SubstrateFacts:
    """Facts of P0: each stack asked, each handle resolved, the month's spend read."""
    faults = handles.resolve_all(known.handles, state_dir, addresses, settings)

    def clean(handle_class: str) -> bool:
        return not any(faults[handle.name] for handle in known.handles if handle.handle_class == handle_class)

    stacks = {
        "core": ("object stores", clean("s3_path_pattern")),
        "streaming": ("Kafka topics", clean("topic")),
        "runtime": ("PostgreSQL, Valkey", clean("lock") and clean("iam_role")),
        "data_ml": ("no part of the spine", True),
        "ops": ("supervisor, meter", Supervisor(state_dir).alive()),
    }
    return SubstrateFacts(stacks, faults, handles.lock_fault(state_dir), handles.month_spend(settings))


def evaluate_p0(facts: SubstrateFacts) -> Evaluation:
    """P0: five stacks clean, every handle resolves, state lock held, budget queryable and below alert 3."""
    unclean = [name for name in STACKS if not facts.stacks.get(name, ("", False))[1]]
    faults = [f"{name}: {fault}" for name, fault in facts.handles.items() if fault is not None]
    spend = facts.month_spend_microusd
    posture = "not queryable" if spend is None else f"{spend} µUSD, alert {alert_level(spend)}"
    below = spend is not None and alert_level(spend) < 3
    return Evaluation(
        (
            Predicate("stacks applied clean", ", ".join(unclean) or "all five", "all five", not unclean, MISSING, True),
            Predicate("required handles", "; ".join(faults) or f"{len(facts.handles)} resolve", "all resolve",
                      not faults and bool(facts.handles), MISSING, True),
            Predicate("state and lock", facts.lock_fault or "held", "held", facts.lock_fault is None, LOCKED, True),
            Predicate("budget and alerts", posture, "queryable, below alert 3", below, MISSING, True),
        ),
        {
            "stack_snapshots": {name: {"here": here, "clean": ok} for name, (here, ok) in facts.stacks.items()},
            "handle_conformance": {name: fault or "resolved" for name, fault in facts.handles.items()},
            "budget": {"limit_microusd": MONTHLY_LIMIT_MICROUSD, "month_spend_microusd": spend},
        },
    )  # fmt: skip


def close(
    settings: RuntimeSettings, phase: str, evaluation: Evaluation, digests: Digests, spend_microusd: int
) -> c.GatePassed:
    """Evidence of P(-1) or P0 under the control root, as the gate that runs publish by reference; UserError if not."""
    failed = [p for p in evaluation.predicates if not p.ok]
    if failed:
        p = failed[0]
        raise UserError(f"{phase} {p.code}", f"{p.name}: {p.observed}, required {p.required}", "see `fp doctor`")
    store = open_store(settings.evidence_url, settings.s3_endpoint)
    bodies = {name: canonical_bytes(document) for name, document in evaluation.documents.items()}
    limit = next(e for e in envelopes(1) if e.phase == phase)
    execution = h32("control", phase, digests.image_manifest, secrets.token_hex(8))
    root = f"evidence/dev_full/run_control/{execution}"
    store.put(f"{root}/envelope.json", canonical_bytes(limit.model_dump(mode="json")))
    refs = tuple(store.put(f"{root}/{name}.json", body) for name, body in bodies.items())
    receipt = c.Receipt(
        phase=phase, attempt=1, spend_microusd=spend_microusd, first_sample=0, last_sample=0, window_us=0,
        artifacts=tuple(ref.key for ref in refs), risk_retired=PHASES[phase].risk,
    )  # fmt: skip
    checks = tuple(
        c.Check(name=p.name, observed=p.observed, required=p.required, ok=p.ok) for p in evaluation.predicates
    )
    return c.GatePassed(
        phase=phase, attempt=1, phase_execution_id=execution, checks=checks, evidence=refs, receipt=receipt
    )


def _own_spend(seconds: float) -> int:
    """What `fp up` itself used, by the price table: its CPU time and children's, micro-USD."""
    usage = time.process_time()
    return price(Usage(cpu_us=int((usage + seconds * 0.5) * 1_000_000)), price_table()[0])


def _remember(environment: Environment) -> None:
    document: dict[str, Any] = {
        "gates": [gate.model_dump(mode="json") for gate in environment.gates],
        "digests": {
            "authority": environment.digests.authority, "handles": environment.digests.handles,
            "image_manifest": environment.digests.image_manifest, "price_table": environment.digests.price_table,
        },
    }  # fmt: skip
    path = environment.state_dir / MEMORY
    part = path.with_suffix(".part")
    part.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    part.replace(path)


def remembered(state_dir: Path, on_step: OnStep) -> Environment:
    """The environment that `fp up` made ready; its servers are asked for. UserError when there is none."""
    path = state_dir / MEMORY
    if not path.is_file():
        raise UserError("environment", "not up", "run `fp up` first")
    document = orjson.loads(path.read_bytes())
    gates = tuple(c.GatePassed.model_validate_json(orjson.dumps(gate)) for gate in document["gates"])
    return Environment(
        state_dir, up(state_dir, on_step=on_step), _ports(state_dir), Digests(**document["digests"]), gates
    )
