"""P2 DAEMONS_READY: every required service is alive and bound to this run's pins (gates.md). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts.canonical import digest_of
from fp_contracts.control import ServiceHeartbeat
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_contracts.runconfig import RunHeader
from fp_contracts.services import instances

HEALTH, BINDING = PHASES["P2"].blockers
FRESH_US = 30_000_000


@dataclass(frozen=True, slots=True)
class ReadinessFacts:
    """What P2 rests on. `manifest` is the digest manifest as read back from P(-1)'s evidence, None = not readable."""

    header: RunHeader
    heartbeats: Mapping[str, ServiceHeartbeat]
    now_us: int
    manifest: Mapping[str, Any] | None
    reporter: str | None
    instance: str


def evaluate_p2(facts: ReadinessFacts) -> Evaluation:
    """Liveness may still come; a wrong binding stays wrong for this run."""
    required = instances(facts.header.config.members, facts.header.config.writers)
    found = {name: facts.heartbeats[name] for name in required if name in facts.heartbeats}
    missing = [name for name in required if name not in found]
    stale = [name for name, beat in found.items() if facts.now_us - beat.at_us > FRESH_US]
    silent = [name for name, beat in found.items() if _silent(beat, facts)]
    unready = [name for name, beat in found.items() if not beat.ready]
    locked = facts.reporter == facts.instance
    return Evaluation(
        (
            _none("services without a heartbeat", missing, HEALTH),
            _none("services with a stale heartbeat", stale, HEALTH),
            _none("services that are not ready", unready, HEALTH),
            _none("services without telemetry", silent, HEALTH),
            Predicate("reporter lock", facts.reporter or "free", facts.instance, locked, HEALTH),
            *_bindings(facts, found),
        ),
        {
            "daemon_readiness": {
                "required": list(required),
                "missing": missing,
                "reporter": facts.reporter,
                "heartbeats": {
                    name: {"at_us": beat.at_us, "telemetry_us": beat.telemetry_us, "ready": beat.ready}
                    for name, beat in sorted(found.items())
                },
            },
            "binding_matrix": {
                "image_manifest_digest": facts.header.config.image_manifest_digest,
                "services": {
                    name: {
                        "build_digest": beat.build_digest,
                        "run_config_digest": beat.run_config_digest,
                        "profile": beat.profile,
                    }
                    for name, beat in sorted(found.items())
                },
            },
        },
    )  # fmt: skip


def _silent(beat: ServiceHeartbeat, facts: ReadinessFacts) -> bool:
    """Whether its telemetry does not arrive. Profile local substitutes heartbeats for telemetry of who exports none."""
    if beat.telemetry_us is None:
        return facts.header.config.profile != "local"
    return facts.now_us - beat.telemetry_us > FRESH_US


def _bindings(facts: ReadinessFacts, found: Mapping[str, ServiceHeartbeat]) -> tuple[Predicate, ...]:
    header = facts.header
    pinned = header.config.image_manifest_digest
    digest = "not readable" if facts.manifest is None else digest_of(facts.manifest)
    builds: Mapping[str, str] = {} if facts.manifest is None else facts.manifest.get("services", {})
    foreign = [name for name, beat in found.items() if beat.build_digest != builds.get(beat.service)]
    drifted = [name for name, beat in found.items() if beat.run_config_digest != header.run_config_digest]
    elsewhere = [name for name, beat in found.items() if beat.profile != header.config.profile]
    return (
        Predicate("digest manifest", digest, pinned, digest == pinned, BINDING, final=True),
        _none("services of another build", foreign, BINDING, final=True),
        _none("services bound to another configuration", drifted, BINDING, final=True),
        _none("services of another profile", elsewhere, BINDING, final=True),
    )


def _none(name: str, found: list[str], code: str, final: bool = False) -> Predicate:
    return Predicate(name, ", ".join(found) or "none", "none", not found, code, final)
