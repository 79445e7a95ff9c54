"""Starting a run: the world it replays, the drill it carries, the pin; and whether the services are there for it."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fp_contracts.ids import is_hex32, is_run_id
from fp_contracts.runconfig import Realism, RunConfig
from fp_df.catalogue import policies
from fp_operator import mesh, pinning, project, runplan, substrate
from fp_operator.pinning import Pinned
from fp_operator.stack import OnStep
from fp_operator.substrate import Environment
from fp_runtime import openrun
from fp_runtime.errors import UserError
from fp_runtime.postgres import connect
from fp_wsp.world import WorldManifest

DRILLED, DRILL_AT = "rtdl-1", "rtdl.before_publish"
JOB_DRILLS = ("fp_ofs:ofs.after_rows:kill:1", "fp_mf:mf.after_fit:kill:1")
"""In a full run the dataset build is killed when its rows are put, the training when its model is fitted."""
_ROWS_PER_TURN = 250
"""Fewer payments than one turn of an rtdl member can take in: it publishes at least once per so many."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the operator asks for; None = a fresh id, the declared disturbances. `pace_per_s` 0 = as fast as it goes."""

    world: str = "sample"
    run: str | None = None
    scenario: str | None = None
    scope: str = "spine"
    drill: bool = True
    pace_per_s: int = 0
    actor: str = "operator"
    reason: str = ""
    realism: Realism | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """An order made exact, before anything is published."""

    run: str
    scenario: str
    world: WorldManifest
    config: RunConfig
    drills: tuple[str, ...]


def ready_environment(folder: Path, on_step: OnStep, actor: str = "operator", reason: str = "") -> Environment:
    """The environment with its services running this build: as it is, or brought up."""
    root = project.root()
    if mesh.running(folder) and (folder / substrate.MEMORY).is_file():
        environment = substrate.remembered(folder, on_step)
        if environment.digests.image_manifest == substrate.image_manifest_digest(root):
            return environment
    return substrate.bring_up(folder, root, on_step, actor, reason)


def check(order: Order) -> None:
    """UserError for what can be seen to be wrong before anything is started."""
    if order.run is not None and not is_run_id(order.run):
        raise UserError(
            f"run id {order.run[:60]!r}", "not platform_YYYYMMDDTHHMMSSZ[-suffix]", "leave it out, or mend it"
        )
    if order.scenario is not None and not is_hex32(order.scenario):
        raise UserError(
            f"scenario id {order.scenario[:60]!r}", "not 32 lower-case hex digits", "leave it out, or mend it"
        )


def plan(environment: Environment, order: Order) -> Planned:
    """The configuration that the order pins. UserError for an unknown world."""
    world = find_world(environment.addresses.oracle_url, order.world)
    digests = {revision: digest for revision, (_, digest) in policies().items()}
    config = runplan.make_config(
        world, environment.digests, digests, scope=order.scope, realism=order.realism, pace_per_s=order.pace_per_s
    )  # fmt: skip
    return Planned(
        order.run or pinning.new_run_id(), order.scenario or pinning.new_scenario_id(), world, config,
        drills_of(order, world.rows),
    )  # fmt: skip


def start(environment: Environment, planned: Planned, actor: str, reason: str = "") -> Pinned:
    """Ask sr for the run. UserError when another one is open: sr would block it, and it would stand in the way."""
    with closing(connect(environment.settings().pg_dsn, "fp-run")) as conn:
        other = openrun.find(conn)
        known = conn.execute(
            "SELECT run FROM sr.run WHERE run = %(run)s UNION SELECT run FROM ops.gate_closure WHERE run = %(run)s",
            {"run": planned.run},
        ).fetchone()
    if known is not None and (other is None or other.platform_run_id != planned.run):
        raise UserError(
            f"run {planned.run}", "was asked for before, and is over", "leave the id out, or give a new one"
        )
    if other is not None:
        run = other.platform_run_id
        raise UserError(f"run {run}", "is open, and one goes at a time", f"fp watch {run}, or fp stop {run} --reason …")
    pinned = pinning.request(
        environment, planned.run, planned.scenario, planned.config, actor, planned.drills, reason
    )  # fmt: skip
    project.remember_latest(environment.state_dir, planned.run, "")
    return pinned


def drills_of(order: Order, rows: int) -> tuple[str, ...]:
    """What an order has killed: one rtdl member, in scope full the two learning jobs as well; nothing undrilled."""
    if not order.drill:
        return ()
    return (drill_spec(rows), *(JOB_DRILLS if order.scope == "full" else ()))


def drill_spec(rows: int) -> str:
    """Kill one rtdl member about a quarter of its way; a turn count that a stream of `rows` payments surely reaches."""
    turns = max(1, rows // _ROWS_PER_TURN // 4)
    return f"{DRILLED}:{DRILL_AT}:kill:{turns}"


def find_world(oracle_url: str, name: str) -> WorldManifest:
    """`sample`, `tiny`, a fingerprint or a unique beginning of one, or the name of an imported world."""
    from fp_operator.worlds import samples  # here: its parquet and SQL engines cost every other verb a second

    if name == samples.SAMPLE:
        return samples.sample_world(oracle_url)
    if name == samples.TINY:
        return samples.tiny_world(oracle_url)
    found = [w for w in worlds_of(oracle_url) if w.fingerprint.startswith(name) or w.name == name]
    if len(found) != 1:
        why = "there is no such world" if not found else f"it stands for {len(found)} worlds"
        raise UserError(f"world {name[:64]}", why, "see `fp world list`")
    return found[0]


def worlds_of(oracle_url: str) -> list[WorldManifest]:
    """Every sealed world of an oracle store."""
    from fp_wsp.world_store import list_worlds  # here: parquet costs every other verb half a second

    return [world.manifest for world in list_worlds(oracle_url)]
