"""P14: a trained candidate, judged on a later window, with its provenance (gates.md). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts.bundle import BundleManifest, BundleRef, EvalReport, MfResult, TrainRequest
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_ofs_trigger.gates import job_document, job_predicates
from fp_ofs_trigger.reports import Artifact, JobReport, parsed

FAILED, QUALITY = PHASES["P14"].blockers
MF_NAMES = ("eval_report", "mlflow_refs", "bundle_receipt", "safe_disable")


@dataclass(frozen=True, slots=True)
class TrainFacts:
    """P14. `dataset`: P13's manifest as it reads back now; `bundle`: the candidate's; `model_fault`: of its file.

    `challenger`: as bundle and model fault, of the baseline; None when none was trained.
    """

    request: TrainRequest
    dataset: Artifact
    job: JobReport
    bundle: Artifact
    model_fault: str | None
    challenger: tuple[Artifact, str | None] | None = None


def evaluate_p14(facts: TrainFacts) -> Evaluation:
    """Trained on the dataset of P13, better than its floors on later payments, every byte of the bundle known."""
    unchanged = facts.dataset.fault is None
    predicates: tuple[Predicate, ...] = (
        _is("dataset of P13", facts.dataset.fault or "unchanged", "unchanged", unchanged, FAILED),
    )
    if unchanged:
        predicates += job_predicates(facts.job, FAILED, PHASES["P14"].blockers, ("TRAINED", "ALREADY_PUBLISHED"))
    if all(predicate.ok for predicate in predicates):
        predicates += _trained(facts)
    return Evaluation(predicates, _documents(facts))


def _trained(facts: TrainFacts) -> tuple[Predicate, ...]:
    result = facts.job.parsed(MfResult)
    if result is None or result.summary is None or result.bundle is None:
        return (_is("result", "breaks its contract or names no bundle", "a bundle and its summary", False, FAILED),)
    faults = facts.job.faults()
    return (
        _is("reports that do not read back", "; ".join(faults[:3]) or "none", "none", not faults, FAILED),
        _is("result of this request", result.train_request_digest, facts.request.digest,
            result.train_request_digest == facts.request.digest, FAILED),
        _is("environment lock of the job", _lock_of(result), facts.request.environment_lock_digest,
            _lock_of(result) in ("not said", facts.request.environment_lock_digest), FAILED),
        *_quality(result, result.summary),
        *_provenance(facts, result),
    )  # fmt: skip


def _lock_of(result: MfResult) -> str:
    """What the job's own process found; a remote job of another kind may say nothing, which its proof cell shows."""
    return (result.runtime.environment_lock if result.runtime else None) or "not said"


def _quality(result: MfResult, summary: EvalReport) -> tuple[Predicate, ...]:
    reached, windows = summary.candidate.average_precision_ppm, summary.windows
    failed = [name for name, ok in summary.checks if not ok]
    return (
        _is("average precision, ppm", str(reached), f"at least {summary.floor_ppm}",
            reached is not None and reached >= summary.floor_ppm, QUALITY),
        _is("test window after training", f"{windows.train_end_us}, then {windows.test_start_us}", "in this order",
            windows.train_end_us <= windows.test_start_us, QUALITY),
        _is("test rows with fraud", f"{summary.candidate.frauds} of {summary.candidate.rows}", "some, not all",
            0 < summary.candidate.frauds < summary.candidate.rows, QUALITY),
        _is("checks of the evaluation", "; ".join(failed[:3]) or f"{len(summary.checks)} held", "all hold, some made",
            not failed and bool(summary.checks), QUALITY),
        _is("eligible", "; ".join(result.reasons[:3]) or str(result.eligible), "True", result.eligible, QUALITY),
    )  # fmt: skip


def _provenance(facts: TrainFacts, result: MfResult) -> tuple[Predicate, ...]:
    request, manifest = facts.request, parsed(facts.bundle, BundleManifest)
    if manifest is None or result.bundle is None:
        why = facts.bundle.fault or "breaks its contract"
        return (_is("bundle manifest", why, "reads back", False, FAILED),)
    other = _otherwise(manifest, result.bundle, request)
    return (
        _is("provenance of the bundle", "; ".join(other) or "as asked", "as asked", not other, FAILED),
        _is("model file", facts.model_fault or "the named bytes", "the named bytes", facts.model_fault is None, FAILED),
        *_challenger(facts, result.challenger),
        _is("safe-disable path", str(facts.job.artifacts["safe_disable"].fault or "committed"), "committed",
            facts.job.artifacts["safe_disable"].fault is None, FAILED),
    )  # fmt: skip


def _challenger(facts: TrainFacts, named: BundleRef | None) -> tuple[Predicate, ...]:
    """The baseline's bundle is held to the provenance of the candidate's."""
    if facts.challenger is None or named is None:
        return ()
    bundle, model_fault = facts.challenger
    manifest = parsed(bundle, BundleManifest)
    fault = model_fault or (bundle.fault or "breaks its contract" if manifest is None else None)
    other = [] if manifest is None else _otherwise(manifest, named, facts.request)
    told = fault or "; ".join(other)
    return (_is("bundle of the challenger", told or "as asked", "as asked", not told, FAILED),)


def _otherwise(manifest: BundleManifest, ref: BundleRef, request: TrainRequest) -> list[str]:
    """What a manifest says otherwise than its reference and the request."""
    named: Mapping[str, tuple[Any, Any]] = {
        "bundle id": (manifest.bundle_id, ref.bundle_id),
        "model digest": (manifest.model_digest, ref.model_digest),
        "dataset fingerprint": (manifest.dataset_fingerprint, request.dataset.dataset_fingerprint),
        "dataset manifest": (manifest.dataset_sha256, request.dataset.manifest.sha256),
        "request": (manifest.train_request_digest, request.digest),
        "feature schema": (manifest.feature_schema_digest, request.feature_schema_digest),
        "policy": (manifest.policy_rev, request.policy_rev),
        "code release": (manifest.code_release, request.code_release),
        "environment": (manifest.environment_lock_digest, request.environment_lock_digest),
    }
    return [name for name, (found, wanted) in named.items() if found != wanted]


def _documents(facts: TrainFacts) -> dict[str, Any]:
    documents: dict[str, Any] = {
        name: found.evidence() if (found := facts.job.artifacts.get(name)) is not None else {} for name in MF_NAMES
    }
    documents["eval_report"]["job"] = job_document(facts.job)
    documents["eval_report"]["request"] = facts.request.model_dump(mode="json")
    documents["bundle_receipt"]["manifest"] = facts.bundle.evidence()
    documents["bundle_receipt"]["dataset"] = facts.dataset.evidence()["ref"]
    return documents


def _is(name: str, observed: str, required: str, ok: bool, code: str) -> Predicate:
    return Predicate(name, observed, required, ok, code, final=True)
