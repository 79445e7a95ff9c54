"""One training from its request to what it publishes. Everything is write-once, the result last."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from fp_contracts.bundle import (
    BUNDLES,
    CANDIDATE,
    MANIFEST_FILE,
    BundleRef,
    MfResult,
    TrainRequest,
    candidate_note,
    tracked_metrics,
    training_key,
)
from fp_contracts.canonical import canonical_bytes, parse_strict, sha256_hex
from fp_contracts.control import Blocker, EvidenceRef
from fp_contracts.dataset import DatasetManifest
from fp_mf import documents
from fp_mf.active import find_active
from fp_mf.errors import QUALITY, Blocked, fail
from fp_mf.evaluate import Fitted, Trained, train
from fp_mf.progress import Progress
from fp_mf.table import read_dataset
from fp_mf.tracking import Record, Tracker
from fp_runtime.beside import Call, Here
from fp_runtime.evidence import (
    EvidenceBroken,
    EvidenceConflict,
    EvidenceKeyError,
    EvidenceMissing,
    EvidenceStore,
    put_json,
    read,
)
from fp_runtime.failpoint import Failpoint, hit

PICTURES = "fp_mf.pictures:draw"


class Places(NamedTuple):
    """Where a job reads and writes: the datasets, the active bundle's store, the outputs, the tracker."""

    datasets: EvidenceStore
    active: EvidenceStore
    out: EvidenceStore
    tracker: Tracker


def getter(store: EvidenceStore) -> Callable[[str], bytes]:
    """The bytes under a key; KeyError when there are none."""

    def get(key: str) -> bytes:
        try:
            return store.get(key)
        except (EvidenceMissing, EvidenceKeyError) as error:
            raise KeyError(key) from error

    return get


def run(
    request: TrainRequest, places: Places, progress: Progress, *, dry: bool = False, drawing: Call | None = None
) -> MfResult:
    """Train, examine and publish; or say why not. A job that was killed is run again and gives the same bundle.

    `drawing`: where PICTURES is called, in this process unless given.
    Errors: Unavailable when a store or the tracker is down (nothing that a gate would read is then published),
    Cancelled from `progress`.
    """
    try:
        published = _published(request, places.out)
        if published is not None:
            return published
        drawing = drawing or Here(PICTURES)
        dataset, trained, drift = _trained(request, places, progress, None if dry else drawing)
        if dry:
            return _result(request, trained, "DRY_RUN", {})
        return _publish(request, places, progress, dataset, trained, drift, drawing)
    except Blocked as blocked:
        return _blocked(request, blocked)


def _trained(
    request: TrainRequest, places: Places, progress: Progress, drawing: Call | None
) -> tuple[DatasetManifest, Trained, dict[str, int]]:
    """(dataset, candidate, drift against the active bundle); the fit is noted and its pictures begun on the way."""
    dataset, table = read_dataset(getter(places.datasets), request, progress)
    active = find_active(getter(places.active), request)

    def on_fitted(fitted: Fitted) -> None:
        if drawing is not None:
            _note_fit(request, places.out, fitted.model_bytes)
            drawing.begin(fitted, active.drift(fitted))

    trained = train(request, table, active.bundle, progress, active.notes, on_fitted)
    return dataset, trained, active.drift(trained)


def _note_fit(request: TrainRequest, out: EvidenceStore, model: bytes) -> None:
    """Say what was fitted before it is examined: a run that is killed and repeated must say the same."""
    try:
        put_json(out, training_key(request.digest, CANDIDATE), candidate_note(request.digest, sha256_hex(model)))
    except EvidenceConflict as error:
        fail(f"an earlier run of this request fitted another model: {error}")
    hit(Failpoint.MF_AFTER_FIT)


def _blocked(request: TrainRequest, blocked: Blocked) -> MfResult:
    return MfResult(
        platform_run_id=request.platform_run_id, train_request_digest=request.digest, status="BLOCKED",
        eligible=False, reasons=(blocked.reason,), blockers=(Blocker(code=blocked.code, reason=blocked.reason),),
    )  # fmt: skip


def _result(request: TrainRequest, trained: Trained, status: str, refs: Mapping[str, Any]) -> MfResult:
    reasons = tuple(f"{check.name}: {check.observed}, required {check.required}" for check in trained.failed)
    return MfResult.model_validate(
        {
            "platform_run_id": request.platform_run_id,
            "train_request_digest": request.digest,
            "status": status,
            "eligible": not reasons,
            "reasons": reasons,
            "blockers": tuple(Blocker(code=QUALITY, reason=reason) for reason in reasons),
            "summary": trained.summary,
            "metrics": {
                "rows": sum(len(part.labels) for part in (trained.split.train, trained.split.test)),
                "features": len(trained.split.train.names),
            },
            **refs,
        }
    )


def _published(request: TrainRequest, out: EvidenceStore) -> MfResult | None:
    """The result of an earlier run of this request, everything it names read back; None when there is none."""
    key = training_key(request.digest, "result.json")
    if not out.exists(key):
        return None
    try:
        found = MfResult.model_validate_json(out.get(key))
        named = [
            found.eval_report,
            found.eval_scores,
            found.eval_rows,
            found.mlflow_refs,
            found.bundle_receipt,
            found.safe_disable,
        ]
        named += [bundle.manifest for bundle in (found.bundle, found.challenger) if bundle]
        files = parse_strict(read(out, found.bundle_receipt))["files"] if found.bundle_receipt else []
        for ref in [*(ref for ref in named if ref), *(EvidenceRef.model_validate(file) for file in files)]:
            read(out, ref)
    except (ValidationError, EvidenceMissing, EvidenceBroken) as error:
        fail(f"what this training published is damaged: {error}")
    return found.model_copy(update={"status": "ALREADY_PUBLISHED"})


def _publish(
    request: TrainRequest, places: Places, progress: Progress, dataset: DatasetManifest, trained: Trained,
    drift: Mapping[str, int], drawing: Call,
) -> MfResult:  # fmt: skip
    out, digest = places.out, request.digest
    progress("publish", 0, 3)
    full = canonical_bytes(documents.report(request, dataset, trained, drift))
    scores = documents.scores_parquet(trained)
    drawn: dict[str, bytes] = drawing.answer()
    tracked = _tracked(request, places, trained, {"eval_report.json": full, **drawn})
    progress("publish", 1, 3)
    try:
        refs: dict[str, Any] = {
            "pictures": tuple(out.put(training_key(digest, f"pictures/{name}"), body) for name, body in drawn.items()),
            "eval_report": out.put(training_key(digest, "eval_report.json"), full),
            "eval_scores": out.put(training_key(digest, "eval_scores.parquet"), scores),
            "eval_rows": put_json(
                out, training_key(digest, "eval_rows.json"), documents.eval_rows(trained).model_dump(mode="json")
            ),
            "mlflow_refs": tracked,
        }
        if trained.failed:
            return _result(request, trained, "BLOCKED", refs)
        files = documents.bundle_files(request, dataset, trained)
        refs |= _put_bundle(request, out, files, documents.challenger_files(request, dataset, trained))
        progress("publish", 2, 3)
        result = _result(request, trained, "TRAINED", refs)
        put_json(out, training_key(digest, "result.json"), result.model_dump(mode="json"))
    except EvidenceConflict as error:
        fail(f"an earlier run of this request gave other bytes: {error}")
    progress("publish", 3, 3)
    return result


def _tracked(
    request: TrainRequest, places: Places, trained: Trained, files: Mapping[str, bytes]
) -> EvidenceRef:  # fmt: skip
    """The reference to the tracker's run and what reads back from it.

    An earlier run's stands, since trackers choose ids of their own.
    """
    key = training_key(request.digest, "mlflow_refs.json")
    if places.out.exists(key):
        body = places.out.get(key)
        return places.out.put(key, body)
    tracked = places.tracker.log(
        Record(
            request.digest,
            {"fp.run": request.platform_run_id, "fp.eligible": str(not trained.failed).lower()},
            {
                "family": request.family, "seed": str(request.seed), "policy_rev": request.policy_rev,
                "feature_set": request.feature_set, "dataset_fingerprint": request.dataset.dataset_fingerprint,
                **{name: str(value) for name, value in trained.settings.model_dump().items()},
            },
            tracked_metrics(trained.summary),
            files,
        )
    )  # fmt: skip
    return put_json(
        places.out, key,
        {
            **tracked._asdict(), "train_request_digest": request.digest,
            "read_back_ppm": places.tracker.read_back(tracked),
        },
    )  # fmt: skip


def _put_bundle(
    request: TrainRequest, out: EvidenceStore, files: Mapping[str, bytes], beside: Mapping[str, bytes] | None
) -> dict[str, Any]:
    disable = documents.safe_disable(request, files)
    challenger, beside_refs = _put_files(out, beside) if beside is not None else (None, [])
    bundle, refs = _put_files(out, files)
    receipt = {
        "bundle": bundle.model_dump(mode="json"),
        "files": [ref.model_dump(mode="json") for ref in (*refs, *beside_refs)],
        "provenance": documents.manifest_of(files).model_dump(mode="json"),
        "challenger": None if challenger is None else challenger.model_dump(mode="json"),
    }
    return {
        "bundle": bundle,
        "challenger": challenger,
        "safe_disable": put_json(out, training_key(request.digest, "safe_disable.json"), disable),
        "bundle_receipt": put_json(out, training_key(request.digest, "bundle_receipt.json"), receipt),
    }


def _put_files(out: EvidenceStore, files: Mapping[str, bytes]) -> tuple[BundleRef, list[EvidenceRef]]:
    manifest = documents.manifest_of(files)
    # The manifest goes last: where one lies, everything it names lies.
    names = sorted(files, key=lambda name: (name == MANIFEST_FILE, name))
    refs = [out.put(f"{BUNDLES}/{manifest.bundle_id}/{name}", files[name]) for name in names]
    return BundleRef(bundle_id=manifest.bundle_id, model_digest=manifest.model_digest, manifest=refs[-1]), refs
