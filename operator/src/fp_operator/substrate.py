"""`fp up` beyond the servers: topics, schema, roles, P(-1) and P0 with their evidence, then the services."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fp_contracts import control as c
from fp_contracts.canonical import digest_of
from fp_contracts.services import REQUIRED
from fp_operator import authority, build, mesh, p0
from fp_operator.controlroot import close_phase, open_phase
from fp_operator.handles import topic_drift
from fp_operator.prices import price_table
from fp_operator.programs import BUILD, PORTS, make_programs, role_of
from fp_operator.runplan import Digests
from fp_operator.spending import Spending
from fp_operator.stack import OnStep, Program, StackAddresses, Supervisor, borrow, held, keep_up, role_password, up
from fp_operator.stack.addresses import given_addresses, store_url
from fp_operator.stack.state import StateFolder, choose_ports
from fp_runtime.builds import package_of
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceStore, open_store
from fp_runtime.kafka import open_admin
from fp_runtime.postgres import ensure_roles, migrate
from fp_runtime.settings import RuntimeSettings

MEMORY = "substrate.json"
KEY_ID = "k1"
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


def bring_up(
    state_dir: Path, root: Path, on_step: OnStep, actor: str = "operator", reason: str = ""
) -> Environment:  # fmt: skip
    """Everything from authorities to services; UserError with the fix when something is in the way.

    What was begun here ends with this process, and when this fails or is interrupted, until all of it is ready.
    """
    known = authority.load(root / "docs" / "authority")
    StateFolder(state_dir).prepare()
    with held(state_dir, on_step):
        environment = _make_ready(state_dir, root, known, on_step, actor, reason)
        keep_up(state_dir)
    return environment


def _make_ready(
    state_dir: Path, root: Path, known: authority.Authority, on_step: OnStep, actor: str, reason: str
) -> Environment:  # fmt: skip
    on_step("authority", "as pinned", 0.0)
    spending = Spending(Supervisor(state_dir))
    store = open_store(given_addresses().get("evidence_url") or store_url(state_dir, "evidence"))
    gates = [_package(store, root, on_step, actor, reason)]
    opened = open_phase(store, "P0", actor, reason)
    addresses = up(state_dir, on_step=on_step, telemetry=True, keep=False)
    if not Supervisor(state_dir).alive():  # all servers are elsewhere, so nobody needed one so far
        Supervisor(state_dir).launch(mesh.OWNER, [], held=True)
    _timed("schema and roles", on_step, lambda: _database(state_dir, addresses))
    settings = operator_settings(state_dir, addresses)
    _timed("topics", on_step, lambda: make_topics(settings, state_dir))
    evaluation = p0.evaluate(p0.gather(state_dir, addresses, known, settings))
    gates.append(close_phase(store, opened, evaluation, spending.microusd(), spending.window_us()))
    on_step("P0", "closed on evidence", spending.window_us() / 1e6)
    digests = Digests(known.digest, known.handles_digest, image_manifest_digest(root), price_table()[1])
    ports = _ports(state_dir)
    programs = _programs(state_dir, addresses, ports, digests)
    anew = _remembered_build(state_dir) != digests.image_manifest
    _timed("services", on_step, lambda: mesh.start(state_dir, programs, ports, anew))
    environment = Environment(state_dir, addresses, ports, digests, tuple(gates))
    _remember(environment)
    return environment


def _package(store: EvidenceStore, root: Path, on_step: OnStep, actor: str, reason: str) -> c.GatePassed:
    """P(-1): what runs here, by digest, before anything of it starts."""
    began = time.monotonic()
    spending = Spending(Supervisor(root / "no stack yet"))
    opened = open_phase(store, "P(-1)", actor, reason)
    source = build.find_revision(root)
    if source.text is None:  # the evaluation only says that there is none
        raise UserError(f"P(-1) {build.MISSING}", f"source revision unknown: {source.why}", source.fix)
    evaluation = build.evaluate(build.gather(root, source.text))
    gate = close_phase(store, opened, evaluation, spending.microusd(), spending.window_us())
    on_step("P(-1)", "closed on evidence", time.monotonic() - began)
    return gate


def image_manifest_digest(root: Path) -> str:
    """Digest of the build that this process would start services from."""
    return digest_of(build.manifest(build.gather(root, None)))


def _timed(name: str, on_step: OnStep, work: Callable[[], object]) -> None:
    began = time.monotonic()
    on_step(name, "starting", 0.0)
    work()
    on_step(name, "ready", time.monotonic() - began)


def _database(state_dir: Path, addresses: StackAddresses) -> None:
    ensure_roles(addresses.pg_dsn, {role: role_password(state_dir, role) for role in ROLES})
    packages = dict.fromkeys(["fp_runtime", "fp_sr", *(package_of(service) for service in REQUIRED)])
    migrate(addresses.pg_dsn, list(packages))


def make_topics(settings: RuntimeSettings, state_dir: Path) -> None:
    """The topics of the profile; UserError when there are some of an older number of lanes, which nothing mends."""
    with closing(open_admin(settings)) as admin:
        admin.create_topics()
        drift = topic_drift(admin.describe(), settings.profile)
    if drift is not None:
        own = "delete these topics of your own servers, or "
        folder = f"`fp down`, then remove {state_dir} or name a new folder by FP_STATE_DIR"
        raise UserError("topics", drift, (own if "kafka_bootstrap" in given_addresses() else "") + folder)


def _ports(state_dir: Path) -> dict[str, int]:
    folder = StateFolder(state_dir)
    known = folder.ports()
    names = [f"service:{name}" for name in PORTS]
    missing = [name for name in names if name not in known]
    if missing:
        known = {**known, **choose_ports(missing, known.values())}
        folder.save_ports(known)
    return {name: known[f"service:{name}"] for name in PORTS}


def _programs(
    state_dir: Path, addresses: StackAddresses, ports: Mapping[str, int], digests: Digests
) -> list[Program]:  # fmt: skip
    shared = {
        "FP_AUTHORITY_DIGEST": digests.authority,
        "FP_HANDLES_DIGEST": digests.handles,
        BUILD: digests.image_manifest,
    }
    tracking_url = os.environ.get("FP_TRACKING_URL") or store_url(state_dir, "tracking")
    keys = producer_keys(StateFolder(state_dir))
    return make_programs(
        addresses, state_dir, ports, lambda role: role_password(state_dir, role), shared, keys, tracking_url
    )  # fmt: skip


def producer_keys(folder: StateFolder) -> str:
    """The keys that sign credentials, as the services' setting has them: kid:hex."""
    return f"{KEY_ID}:{folder.secret('producer_key').encode().hex()}"


def _remembered_build(state_dir: Path) -> str | None:
    path = state_dir / MEMORY
    return orjson.loads(path.read_bytes())["digests"]["image_manifest"] if path.is_file() else None


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
    """The environment that `fp up` made ready; its servers are asked for. UserError when there is none.

    Servers that do not run are started for the verb under way, and stopped again when it is done.
    """
    path = state_dir / MEMORY
    if not path.is_file():
        raise UserError("environment", "not up", "run `fp up` first")
    document = orjson.loads(path.read_bytes())
    gates = tuple(c.GatePassed.model_validate_json(orjson.dumps(gate)) for gate in document["gates"])
    borrowed = borrow(state_dir)
    telemetry = not borrowed or Supervisor(state_dir).alive()  # who only reads sends none
    addresses = up(state_dir, on_step=on_step, telemetry=telemetry, keep=not borrowed)
    return Environment(state_dir, addresses, _ports(state_dir), Digests(**document["digests"]), gates)
