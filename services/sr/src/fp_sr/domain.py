"""Pinning a run: what must hold before a header is committed (gates.md P1). Pure."""

from dataclasses import dataclass
from typing import NamedTuple

from fp_contracts import topics
from fp_contracts.control import GatePassed, RunPinRequested
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.fold import RunState
from fp_contracts.ids import h32, is_hex32, is_run_id
from fp_contracts.phases import ORDER, PHASES
from fp_contracts.pins import substitutions
from fp_contracts.runconfig import RunConfig, RunHeader, config_digest

PIN, DIGEST = PHASES["P1"].blockers


@dataclass(frozen=True, slots=True)
class Environment:
    """What this environment is: a pin made for another one is refused."""

    profile: str
    topic_prefix: str
    authority_digest: str
    handles_digest: str


class RunLock(NamedTuple):
    """Who holds the lock of an environment: its open run as recorded, and when that was (µs)."""

    run: str
    run_config_digest: str
    recorded_us: int


def check_lock(header: RunHeader, held: RunLock | None) -> Predicate:
    """The open run on record is this one, by its configuration."""
    observed = "nobody" if held is None else f"{held.run} {held.run_config_digest}"
    required = f"{header.platform_run_id} {header.run_config_digest}"
    return _holds("run lock held", observed, required, observed == required)


def check_pin(
    state: RunState, envelope_digest: str, environment: Environment, open_run: str | None
) -> tuple[Predicate, ...]:
    """All predicates of a pin request; every false one is final, since a request never changes."""
    request = state.pin_request
    assert request is not None
    config = request.config
    digest = config_digest(config)
    return (
        _holds("run id", state.platform_run_id, "platform_YYYYMMDDTHHMMSSZ[-suffix]", is_run_id(state.platform_run_id)),
        _holds("scenario id", request.scenario_run_id, "32 hex digits", is_hex32(request.scenario_run_id)),
        _holds("run lock", open_run or "free", "free", open_run in (None, state.platform_run_id)),
        _holds("packaging and substrate gates", _gates(state), "P(-1) PASS, P0 PASS", _substrate(state)),
        _holds("profile", config.profile, environment.profile, config.profile == environment.profile),
        _lanes(config, environment),
        _substituted(config, environment),
        _holds("windows", _windows(config), "start < end, adjacent", _windows_hold(config)),
        _holds("envelopes", f"{len(config.envelopes)}", f"one for each of {len(ORDER)} phases", _enveloped(config)),
        _holds("policies", config.policy_initial, "pinned revisions only", _policies_hold(config)),
        _equal("run_config_digest", envelope_digest, digest),
        _equal("authority digest", config.authority_digest, environment.authority_digest),
        _equal("handle registry digest", config.handles_digest, environment.handles_digest),
    )


def make_header(state: RunState, starts: dict[str, dict[str, int]], pin: tuple[int, int], pinned_us: int) -> RunHeader:
    """The header of a request; `pin` = (control partition, offset of the request)."""
    request = state.pin_request
    assert isinstance(request, RunPinRequested)
    writers = request.config.writers
    return RunHeader(
        platform_run_id=state.platform_run_id,
        scenario_run_id=request.scenario_run_id,
        config=request.config,
        run_config_digest=config_digest(request.config),
        start_offsets=starts,
        lane_writers={str(lane): writers[lane % len(writers)] for lane in range(request.config.lanes)},
        pinned_us=pinned_us,
        pin_partition=pin[0],
        pin_offset=pin[1],
    )


def ready_id(header: RunHeader) -> str:
    """The one READY identity of a run: H(run, scenario, digest, READY)."""
    return h32("READY", header.platform_run_id, header.scenario_run_id, header.run_config_digest)


def pin_evaluation(predicates: tuple[Predicate, ...], header: RunHeader | None, lock: dict[str, str]) -> Evaluation:
    """P1 as an evaluation: the header, the lock receipt and the start offsets are its evidence."""
    if header is None:
        return Evaluation(predicates, {"run_lock_receipt": lock})
    return Evaluation(
        (*predicates, _recorded(header)),
        {
            "run_header": header.model_dump(mode="json"),
            "run_lock_receipt": lock,
            "start_offsets": {"start_offsets": header.start_offsets},
        },
    )


def _holds(name: str, observed: str, required: str, ok: bool) -> Predicate:
    return Predicate(name, observed, required, ok, PIN, final=True)


def _equal(name: str, observed: str, required: str) -> Predicate:
    return Predicate(name, observed, required, observed == required, DIGEST, final=True)


def _substrate(state: RunState) -> bool:
    return state.passed("P(-1)") and state.passed("P0")


def _gates(state: RunState) -> str:
    return ", ".join(f"{key} {state.state_of(key)}" for key in ("P(-1)", "P0"))


def _recorded(header: RunHeader) -> Predicate:
    """The header names every topic with every partition that its profile gives it: who works on the run counts them."""
    pinned = {name: topic.partitions for name, topic in topics.pinned(header.config.profile).items()}
    found = {name: len(starts) for name, starts in header.start_offsets.items()}
    observed, required = (f"{len(of)} topics, {sum(of.values())} partitions" for of in (found, pinned))
    return _holds("start offsets", observed, required, found == pinned)


def _lanes(config: RunConfig, environment: Environment) -> Predicate:
    """A lane is a partition of the ingress topics: a run with another number would write where nobody reads."""
    lanes = topics.pinned(environment.profile)[topics.TRAFFIC].partitions
    required = f"{lanes}, as the ingress topics of profile {environment.profile} have partitions: pin that many"
    return _holds("lanes", str(config.lanes), required, config.lanes == lanes)


def _substituted(config: RunConfig, environment: Environment) -> Predicate:
    found = sorted(substitutions(config.profile))
    strict = config.profile == "dev_full"
    ok = not strict or not (found or environment.topic_prefix)
    seen = ", ".join(found) or "none"
    return _holds("substitutions", seen, "none in dev_full, declared elsewhere", ok)


def _windows(config: RunConfig) -> str:
    return ", ".join(f"[{w.start_us}, {w.end_us})" for w in config.windows)


def _windows_hold(config: RunConfig) -> bool:
    starts_before_end = all(w.start_us < w.end_us for w in config.windows)
    adjacent = all(a.end_us == b.start_us for a, b in zip(config.windows, config.windows[1:], strict=False))
    return starts_before_end and adjacent


def _enveloped(config: RunConfig) -> bool:
    return {envelope.phase for envelope in config.envelopes} == set(ORDER)


def _policies_hold(config: RunConfig) -> bool:
    revisions = {config.policy_initial, *(switch.policy_rev for switch in config.policy_switches)}
    times = [switch.effective_us for switch in config.policy_switches]
    return revisions <= set(config.policies) and times == sorted(set(times))


def substrate_gates(state: RunState) -> list[GatePassed]:
    """The gates of P(-1) and P0 as the operator published them on the run."""
    return [event for event in state.history if isinstance(event, GatePassed) and event.phase in ("P(-1)", "P0")]
