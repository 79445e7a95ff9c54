"""P3 (a sound world) and P6 (a stream that moves, without lag and ambiguity), as pure evaluations (gates.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_wsp.world import WorldManifest

MISSING, CONTRACT = PHASES["P3"].blockers
STALL, UNKNOWN = PHASES["P6"].blockers
_ABSENT = ("FILE_MISSING", "HASH_DIFFERS", "UNREADABLE")


@dataclass(frozen=True, slots=True)
class WorldFacts:
    """What the oracle store holds of the pinned world: `problems` as (flaw, where, detail)."""

    pinned: str
    manifest: WorldManifest | None
    problems: Sequence[tuple[str, str, str]]
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """The stream as of now; counts of lines. `open_unknowns`: None while a gateway has not said its count."""

    sent: int
    classed: int
    before: int
    ended: bool
    lag_ms: int
    lag_limit_ms: int
    open_unknowns: int | None
    lanes: Mapping[str, int]
    rate_per_s: int
    waived_empty: bool = False


def evaluate_p3(facts: WorldFacts) -> Evaluation:
    """Required outputs are there and hash as sealed; the stream view keeps its contract."""
    found = facts.manifest.fingerprint if facts.manifest else facts.fault or "missing"
    missing = [problem for problem in facts.problems if problem[0] in _ABSENT]
    broken = [problem for problem in facts.problems if problem[0] not in _ABSENT]
    files = () if facts.manifest is None else (*facts.manifest.stream, *facts.manifest.truth)
    return Evaluation(
        (
            Predicate("sealed world", found, facts.pinned, found == facts.pinned, MISSING, final=True),
            Predicate("required outputs", _seen(missing), "all present, hashes equal",
                      facts.manifest is not None and not missing, MISSING, final=True),
            Predicate("stream-view contract", _seen(broken), "sorted, counts equal, no truth column", not broken,
                      CONTRACT, final=True),
        ),
        {
            "readiness": {
                "manifest_fingerprint": facts.pinned,
                "world": None if facts.manifest is None else facts.manifest.name,
                "payments": 0 if facts.manifest is None else facts.manifest.rows,
                "problems": [list(problem) for problem in facts.problems],
            },
            "required_outputs": {
                "files": [{"key": f.key, "sha256": f.sha256, "size": f.size, "rows": f.rows} for f in files]
            },
        },
    )  # fmt: skip


def evaluate_p6(facts: StreamFacts) -> Evaluation:
    """Counters move (or all is sent), the oldest unclassed batch is young, nothing is ambiguous."""
    moving = facts.classed > facts.before or (facts.ended and (facts.classed > 0 or facts.waived_empty))
    return Evaluation(
        (
            Predicate("counters move", f"{facts.before} → {facts.classed} lines classed", "rising, or all classed",
                      moving, STALL),
            Predicate("lag", f"{facts.lag_ms} ms", f"at most {facts.lag_limit_ms} ms",
                      facts.lag_ms <= facts.lag_limit_ms, STALL),
            Predicate("open unknowns", "not known" if facts.open_unknowns is None else str(facts.open_unknowns), "0",
                      facts.open_unknowns == 0, UNKNOWN),
        ),
        {
            "counters": {
                "sent": facts.sent, "classed": facts.classed, "lanes": dict(facts.lanes),
                "rate_per_s": facts.rate_per_s, "all_sent": facts.ended,
            },
            "lag_posture": {
                "lag_ms": facts.lag_ms, "lag_limit_ms": facts.lag_limit_ms, "open_unknowns": facts.open_unknowns,
            },
        },
    )  # fmt: skip


def _seen(problems: Sequence[tuple[str, str, str]]) -> str:
    if not problems:
        return "no problem"
    flaw, where, detail = problems[0]
    return f"{len(problems)}, first {flaw} at {where}: {detail}"
