"""P0: facts of the substrate, and their evaluation (pure): stacks, handles, lock, budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_contracts.pins import MONTHLY_LIMIT_MICROUSD, alert_level
from fp_operator import handles, signing
from fp_operator.authority import Authority
from fp_operator.stack import StackAddresses, Supervisor
from fp_runtime.settings import RuntimeSettings

STACKS = ("core", "streaming", "runtime", "data_ml", "ops")
MISSING, LOCKED = PHASES["P0"].blockers


@dataclass(frozen=True, slots=True)
class SubstrateFacts:
    """What P0 rests on: stack -> what realises it and whether it is clean; handle -> fault or None; budget;
    the public key that later signatures are checked with.
    """

    stacks: Mapping[str, tuple[str, bool]]
    handles: Mapping[str, str | None]
    lock_fault: str | None
    month_spend_microusd: int | None
    signing_key: str = ""


def gather(state_dir: Path, addresses: StackAddresses, known: Authority, settings: RuntimeSettings) -> SubstrateFacts:
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
    lock_fault, month = handles.lock_fault(state_dir), handles.month_spend(settings)
    return SubstrateFacts(stacks, faults, lock_fault, month, signing.public_key(state_dir))


def evaluate(facts: SubstrateFacts) -> Evaluation:
    """P0: five stacks clean, every handle resolves, state lock held, budget queryable and below alert 3."""
    unclean = [name for name in STACKS if not facts.stacks.get(name, ("", False))[1]]
    faults = [f"{name}: {fault}" for name, fault in facts.handles.items() if fault is not None]
    spend = facts.month_spend_microusd
    posture = "not queryable" if spend is None else f"{spend} µUSD, alert {alert_level(spend)}"
    below = spend is not None and alert_level(spend) < 3
    snapshots: dict[str, dict[str, object]] = {
        name: {"here": here, "clean": ok} for name, (here, ok) in facts.stacks.items()
    }
    snapshots["ops"]["signing_key"] = facts.signing_key
    return Evaluation(
        (
            Predicate("stacks applied clean", ", ".join(unclean) or "all five", "all five", not unclean, MISSING, True),
            Predicate("required handles", "; ".join(faults) or f"{len(facts.handles)} resolve", "all resolve",
                      not faults and bool(facts.handles), MISSING, True),
            Predicate("state and lock", facts.lock_fault or "held", "held", facts.lock_fault is None, LOCKED, True),
            Predicate("budget and alerts", posture, "queryable, below alert 3", below, MISSING, True),
        ),
        {
            "stack_snapshots": snapshots,
            "handle_conformance": {name: fault or "resolved" for name, fault in facts.handles.items()},
            "budget": {"limit_microusd": MONTHLY_LIMIT_MICROUSD, "month_spend_microusd": spend},
        },
    )  # fmt: skip
