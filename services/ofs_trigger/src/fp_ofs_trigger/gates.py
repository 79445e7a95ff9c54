"""P12 and P13: what a run may learn from, and the dataset (gates.md). Pure: read-back reports in, evaluation out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import BuildIntent, DatasetManifest, OfsRequest, OfsResult, dataset_fingerprint
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_ofs_trigger.domain import named_inputs
from fp_ofs_trigger.reports import Artifact, JobReport, parsed
from fp_ofs_trigger.seen import Seen

LEAKAGE, BASIS = PHASES["P12"].blockers
BUILD, MANIFEST = PHASES["P13"].blockers
INPUT_NAMES = ("readiness", "leakage")
MUST_CHECK = ("label_after_as_of", "feature_after_decision", "immature", "truth_columns")
DATASET_NAMES = ("manifest", "quality", "parity", "rollback_recipe", "leakage", "readiness")


@dataclass(frozen=True, slots=True)
class InputFacts:
    """P12. `known_until_us`: up to where the label lane is closed; `uncovered`: topics with too little in the basis."""

    intent: BuildIntent
    known_until_us: int
    uncovered: tuple[str, ...]
    job: JobReport


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """P13. `input_fingerprint`: what P12 committed; None when its evidence cannot be read back.

    `material`: what P12's job recomputed from the archive, found clean and kept.
    """

    request: OfsRequest
    input_fingerprint: str | None
    material: EvidenceRef | None
    job: JobReport
    seen: Seen

    @property
    def intent(self) -> BuildIntent:
        """What the dataset is built from."""
        return self.request.intent


def job_predicates(job: JobReport, failed: str, codes: Sequence[str], done: Sequence[str]) -> tuple[Predicate, ...]:
    """Whether the job ended well, and each blocker it named. `failed`: the code of an end without a verdict."""
    if job.seen is None:
        return (Predicate("job ended", "running", "DONE", False, failed),)
    event = job.seen.event
    status = str(job.result.field("status"))
    if event.outcome not in ("DONE", "BLOCKED") or job.result.fault is not None:
        why = job.result.fault if event.outcome in ("DONE", "BLOCKED") else event.reason
        return (_is("job ended", f"{event.outcome}: {why}"[:200], "DONE", False, failed),)
    named = [
        _is("job's own word", blocker.reason[:200], "no blocker", False,
            blocker.code if blocker.code in codes else failed)
        for blocker in event.blockers
    ]  # fmt: skip
    ok = event.outcome == "DONE" and status in done
    return (_is("job ended", f"{event.outcome} {status}", f"DONE {' or '.join(done)}", ok, failed), *named)


def evaluate_p12(facts: InputFacts) -> Evaluation:
    """As-of pinned and in the past, basis complete, no leakage by checks that were seen to fail, window committed."""
    rule, fingerprint = facts.intent.labels, dataset_fingerprint(facts.intent)
    own = (
        _is("label as-of", str(rule.as_of_us), f"at most {facts.known_until_us}, where the label lane is closed",
            rule.as_of_us <= facts.known_until_us, LEAKAGE),
        _is("basis covers what was reconciled", "; ".join(facts.uncovered[:3]) or "all", "all", not facts.uncovered,
            BASIS),
    )  # fmt: skip
    if not all(predicate.ok for predicate in own):
        return Evaluation(own, _input_documents(facts, fingerprint))
    predicates = own + job_predicates(facts.job, BASIS, PHASES["P12"].blockers, ("INPUT_READY", "ALREADY_PUBLISHED"))
    if all(predicate.ok for predicate in predicates):
        predicates += _leakage(facts, fingerprint)
    return Evaluation(predicates, _input_documents(facts, fingerprint))


def _leakage(facts: InputFacts, fingerprint: str) -> tuple[Predicate, ...]:
    job, result = facts.job, facts.job.parsed(OfsResult)
    same = None if result is None else result.dataset_fingerprint
    checks, horizon_us = findings(job.artifacts["leakage"]), job.artifacts["readiness"].field("label_horizon_us")
    missing = [name for name in MUST_CHECK if name not in {found for found, _, _ in checks}]
    dirty = [name for name, violations, _ in checks if violations != 0]
    blind = [name for name, _, caught in checks if not caught]
    return (
        _none("reports that do not read back", job.faults(), BASIS),
        _is("window fingerprint", str(same), fingerprint, same == fingerprint, BASIS),
        _is(
            "labels complete up to",
            str(horizon_us),
            f"at least {facts.intent.labels.as_of_us}",
            isinstance(horizon_us, int) and horizon_us >= facts.intent.labels.as_of_us,
            LEAKAGE,
        ),
        _none("leakage checks that were not made", missing, LEAKAGE),
        _none("leakage checks with violations", dirty, LEAKAGE),
        _none("leakage checks that miss their own poison", blind, LEAKAGE),
    )


def findings(artifact: Artifact) -> list[tuple[str, int, bool]]:
    """(check, violations in the data, whether its poison was caught) of a leakage report; a row without them fails."""
    rows = artifact.field("findings")
    if not isinstance(rows, list):
        return []
    found = []
    for row in rows:
        violations = row.get("violations") if isinstance(row, dict) else None
        caught = row.get("poison_caught") is True if isinstance(row, dict) else False
        name = str(row.get("name")) if isinstance(row, dict) else "?"
        found.append((name, violations if isinstance(violations, int) else -1, caught))
    return found


def evaluate_p13(facts: DatasetFacts) -> Evaluation:
    """The dataset is built from what P12 committed, whole, equal to what was served, and can be rolled back."""
    fingerprint = dataset_fingerprint(facts.intent)
    own = (
        _is("fingerprint that P12 committed", str(facts.input_fingerprint), fingerprint,
            facts.input_fingerprint == fingerprint, MANIFEST),
    )  # fmt: skip
    predicates = own + job_predicates(
        facts.job, BUILD, (*PHASES["P12"].blockers, *PHASES["P13"].blockers), ("PUBLISHED", "ALREADY_PUBLISHED")
    )
    predicates = tuple(_as_p13(predicate) for predicate in predicates)
    if all(predicate.ok for predicate in predicates):
        predicates += (*_dataset(facts, fingerprint), *facts.seen.waiting(BUILD))
    return Evaluation(predicates, _dataset_documents(facts, fingerprint))


def _as_p13(predicate: Predicate) -> Predicate:
    """A build that finds its input unready is a failed build here: only P13's codes may block P13."""
    if predicate.code in PHASES["P13"].blockers:
        return predicate
    return Predicate(predicate.name, predicate.observed, predicate.required, predicate.ok, BUILD, predicate.final)


def _dataset(facts: DatasetFacts, fingerprint: str) -> tuple[Predicate, ...]:
    job = facts.job
    manifest = parsed(job.artifacts["manifest"], DatasetManifest)
    if manifest is None:
        return (_none("reports that do not read back", job.faults() or ["manifest breaks its contract"], MANIFEST),)
    counts, parity, reused = manifest.label_counts, job.artifacts["parity"], job.result.field("material")
    kept = None if facts.material is None else facts.material.model_dump(mode="json")
    parts = counts.fraud + counts.legit + counts.filtered + counts.immature + counts.conflict + counts.suspected
    payments, equal = parity.field("payments"), parity.field("equal")
    recipe = job.artifacts["rollback_recipe"]
    moves = [str(made.get("move")) for made in recipe.field("executed") or [] if isinstance(made, dict)]
    return (
        _none("reports that do not read back", job.faults(), MANIFEST),
        _is("manifest's fingerprint", manifest.dataset_fingerprint, fingerprint,
            manifest.dataset_fingerprint == fingerprint == dataset_fingerprint(manifest.intent), MANIFEST),
        _equal("rows = labelled frauds + legit", manifest.rows, counts.fraud + counts.legit, BUILD),
        _equal("payments = all label counts", counts.payments, parts + counts.unlabelled, BUILD),
        _equal("rows = rows of the files", manifest.rows, sum(found.rows for found in manifest.files), MANIFEST),
        _is("features recomputed", "by P12's job, reused by hash" if reused else "by this job", "by either, from the "
            "archive", reused in (None, kept), BUILD),
        _is("online/offline parity", f"{equal} of {payments}", "all",
            isinstance(payments, int) and payments == counts.payments and equal == payments, BUILD),
        _is("parity report", str(parity.field("ok")), "True", parity.field("ok") is True, BUILD),
        _is("rollback recipe executed", " ".join(moves), "activate roll_back re_activate, read back",
            moves == ["activate", "roll_back", "re_activate"] and recipe.field("ok") is True, BUILD),
    )  # fmt: skip


def _input_documents(facts: InputFacts, fingerprint: str) -> dict[str, Any]:
    rule = facts.intent.labels
    return {
        "readiness": {
            "window_fingerprint": fingerprint,
            "label_as_of_us": rule.as_of_us,
            "known_until_us": facts.known_until_us,
            "maturity_days": rule.maturity_days,
            "resolution": rule.resolution,
            "basis": [part.model_dump(mode="json") for part in facts.intent.basis],
            "uncovered": list(facts.uncovered),
            "job": job_document(facts.job),
            **_evidence(facts.job, "readiness"),
        },
        "leakage_report": {"window_fingerprint": fingerprint, **_evidence(facts.job, "leakage")},
    }


def _dataset_documents(facts: DatasetFacts, fingerprint: str) -> dict[str, Any]:
    named = {
        "manifest": "manifest", "quality": "quality", "parity": "parity", "rollback_recipe": "rollback_recipe",
    }  # fmt: skip
    documents: dict[str, Any] = {name: _evidence(facts.job, source) for name, source in named.items()}
    documents["fingerprint"] = {
        "dataset_fingerprint": fingerprint,
        "input_fingerprint": facts.input_fingerprint,
        "row_digest": facts.job.result.field("row_digest"),
        "reused_material": facts.job.result.field("material"),
        "intent": facts.intent.model_dump(mode="json"),
        "named_inputs": {topic: one.model_dump(mode="json") for topic, one in named_inputs(facts.request).items()},
        "job": job_document(facts.job),
    }
    documents["telemetry"] = facts.seen.document()
    return documents


def job_document(job: JobReport) -> Mapping[str, Any]:
    """The end of a job, with where on its topic it was read back."""
    if job.seen is None:
        return {"ended": None}
    seen = job.seen
    place = {"topic": seen.topic, "partition": seen.partition, "offset": seen.offset}
    return {"ended": seen.event.model_dump(mode="json"), "read_back": place, "result": job.result.evidence()}


def _evidence(job: JobReport, name: str) -> dict[str, Any]:
    found = job.artifacts.get(name)
    return {} if found is None else found.evidence()


def _is(name: str, observed: str, required: str, ok: bool, code: str) -> Predicate:
    return Predicate(name, observed, required, ok, code, final=True)


def _equal(name: str, left: int, right: int, code: str) -> Predicate:
    return _is(name, f"{left} = {right}", "both sides equal", left == right, code)


def _none(name: str, found: Sequence[str], code: str) -> Predicate:
    return _is(name, "; ".join(found[:3]) or "none", "none", not found, code)
