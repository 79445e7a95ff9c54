"""Deploy and monitor of the lanes ofs and mf: what really ran, and what telemetry and the tracker gave back. Pure."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fp_contracts.bundle import EvalReport, tracked_metrics
from fp_contracts.canonical import digest_of
from fp_contracts.jobrun import PARITY_MEASURES, QUALITY_MEASURES
from fp_contracts.learning import DRILLED
from fp_verify.cells import Check
from fp_verify.log import Documents, Log
from fp_verify.reading import at, embedded, none, same

Proof = tuple[list[Check], dict[str, Any]]
JOB_OF = {"P13": "fingerprint", "P14": "eval_report"}
"""Phase to the evidence that holds how its job ended."""


def ended(documents: Documents, phase: str) -> Any:
    """The event of a job's end, as read back from its topic."""
    return at(documents.get((phase, JOB_OF[phase])), "job", "ended")


def result(documents: Documents, phase: str) -> Any:
    """The last line of a job; None unless it has the bytes that the event names."""
    job = at(documents.get((phase, JOB_OF[phase])), "job")
    found = at(job, "result")
    return embedded(found) if at(found, "ref") == at(job, "ended", "result") else None


def _release(log: Log, documents: Documents, phase: str) -> tuple[list[Check], Any]:
    """The pinned release and what the job's own process measured of itself."""
    manifest, header = documents.get(("P(-1)", "digest_manifest")), log.state.header
    runtime, package = at(result(documents, phase), "runtime"), DRILLED[phase]
    return [
        same("digest of the manifest", digest_of(manifest) if manifest else None,
             header.config.image_manifest_digest if header else None),
        same("job", at(runtime, "package"), package),
        same("build digest of the job's process", at(runtime, "build_digest"), at(manifest, "jobs", package)),
        same("lock file above the job's code", at(runtime, "environment_lock"), at(manifest, "environment_lock")),
        none("installed in other versions than locked", at(runtime, "unlocked") or []),
    ], runtime  # fmt: skip


def ofs_deploy(log: Log, documents: Documents) -> Proof:
    """The job that ran is the pinned one, and every object that it was given was resolved by it or by P12's."""
    checks, runtime = _release(log, documents, "P13")
    built, told = documents.get(("P13", "fingerprint")), result(documents, "P13")
    named = at(built, "named_inputs") or {}
    before = at(embedded(at(documents.get(("P12", "readiness")), "job", "result")), "inputs") or {}
    read = {**before, **(at(told, "inputs") or {})}
    return [
        *checks,
        ("engine", str(at(told, "engine")), "one", bool(at(told, "engine"))),
        ("topics with inputs", str(len(named)), "at least 1", bool(named)),
        none("topics whose inputs were not resolved as pinned", [t for t, one in named.items() if read.get(t) != one]),
    ], {"runtime": runtime, "engine": at(told, "engine"), "inputs": read}


def mf_deploy(log: Log, documents: Documents) -> Proof:
    """The training that ran is the pinned one, in the environment that request and bundle name."""
    checks, runtime = _release(log, documents, "P14")
    lock = at(runtime, "environment_lock")
    bundle = embedded(at(documents.get(("P14", "bundle_receipt")), "manifest"))
    request = at(documents.get(("P14", "eval_report")), "request")
    return [
        *checks,
        same("environment that the training was asked for", at(request, "environment_lock_digest"), lock),
        same("environment that the bundle names", at(bundle, "environment_lock_digest"), lock),
        same("request of the bundle", at(bundle, "train_request_digest"), digest_of(request) if request else None),
    ], {"runtime": runtime, "bundle_id": at(bundle, "bundle_id")}


def ofs_monitor(_: Log, documents: Documents) -> Proof:
    """What the build's process sent came back: every stage to its end, every figure as the reports have it."""
    shown = documents.get(("P13", "telemetry"))
    instance = at(result(documents, "P13"), "runtime", "instance")
    points = [one for one in at(shown, "points") or [] if at(one, "attributes", "job") == instance]
    stages: dict[str, tuple[Any, Any]] = {}
    found: dict[str, Any] = {}
    for point in points:
        attributes, value = at(point, "attributes"), at(point, "value")
        if at(point, "metric") == "fp.job.progress":
            stages[str(at(attributes, "stage"))] = (value, at(attributes, "total"))
        elif at(point, "metric") == "fp.job.quality":
            found[str(at(attributes, "measure"))] = value
    reports = {
        **_figures(documents, "quality", QUALITY_MEASURES), **_figures(documents, "parity", PARITY_MEASURES),
    }  # fmt: skip
    return [
        same("job that the points are of", at(shown, "subject"), instance),
        ("stages", str(len(stages)), "at least 1", bool(stages)),
        none("stages that did not end", [name for name, (done, total) in stages.items() if done != total]),
        none("figures that differ from the reports",
             [f"{n}: {found.get(n)}, reported {v}" for n, v in reports.items() if v is None or found.get(n) != v]),
    ], {"source": at(shown, "source"), "stages": {n: list(v) for n, v in stages.items()}, "figures": found}  # fmt: skip


def _figures(documents: Documents, name: str, measures: tuple[str, ...]) -> dict[str, Any]:
    report = embedded(documents.get(("P13", name)))
    return {measure: at(report, measure) for measure in measures}


def mf_monitor(_: Log, documents: Documents) -> Proof:
    """The tracker gave back what was evaluated; the drift alarm rang for a drift that was made, and not without."""
    refs, report = (embedded(documents.get(("P14", name))) for name in ("mlflow_refs", "eval_report"))
    asked = at(documents.get(("P14", "eval_report")), "request")
    trial = at(report, "drift_trial")
    mark, moved = at(trial, "mark_ppm"), at(trial, "moved")
    quiet, rang = (_ringing(at(trial, state, "psi_ppm"), mark) for state in ("undrifted", "drifted"))
    return [
        ("tracker", f"{at(refs, 'tracker')} {at(refs, 'run_id')}", "one that keeps its runs",
         at(refs, "tracker") not in (None, "none")),
        same("request of the tracked run", at(refs, "train_request_digest"), digest_of(asked) if asked else None),
        same("metrics read back, ppm", at(refs, "read_back_ppm"), _tracked(at(report, "summary"))),
        ("alarm without a drift", ", ".join(quiet or []) or "quiet", "quiet", quiet == []),
        same("alarm on the drift that was made", rang, [moved] if moved else None),
        ("alarms as told", "recomputed", "the same",
         (at(trial, "undrifted", "alarm"), at(trial, "drifted", "alarm")) == (quiet, rang)),
    ], {"tracker": at(refs, "tracker"), "run_id": at(refs, "run_id"), "read_back_ppm": at(refs, "read_back_ppm"),
        "drift_trial": trial}  # fmt: skip


def _tracked(summary: Any) -> dict[str, int] | None:
    try:
        return tracked_metrics(EvalReport.model_validate(summary, strict=False))
    except ValidationError:
        return None


def _ringing(moved: Any, mark: Any) -> list[str] | None:
    """Names whose PSI reaches the mark; None without figures."""
    if not isinstance(moved, Mapping) or not moved or not isinstance(mark, int) or mark <= 0:
        return None
    return [name for name, value in moved.items() if isinstance(value, int) and value >= mark]


def mpr_monitor(log: Log, documents: Documents) -> Proof:
    """fp.bundle.active, read back, moved in every partition at the positions that the control log names."""
    shown = documents.get(("P15", "telemetry"))
    last: dict[tuple[Any, ...], Any] = {}
    for point in at(shown, "points") or []:
        attributes = at(point, "attributes") or {}
        if at(point, "metric") == "fp.bundle.active" and attributes.get("run") == log.run:
            place = tuple(attributes.get(name) for name in ("partition", "revision", "merged_n", "bundle"))
            last[place] = at(point, "value")
    newest: dict[int, int] = {}
    for event in log.state.bundles:
        newest[event.partition] = max(event.revision, newest.get(event.partition, 0))
    wrong = []
    for e in log.state.bundles:
        place = (e.partition, e.revision, e.merged_n, e.bundle_ref or "guardrails")
        if last.get(place) != int(e.revision == newest[e.partition]):
            wrong.append(f"revision {e.revision} of partition {e.partition} at {e.merged_n}: {last.get(place)}")
    held = {place[0] for place, value in last.items() if value == 1}
    active = sum(1 for value in last.values() if value == 1)
    return [
        ("switches on the control log", str(len(log.state.bundles)), "at least 1", bool(log.state.bundles)),
        none("switches that the metric does not show at their position", wrong),
        same("bundles in use at the end", active, len(held) if held else None),
    ], {"source": at(shown, "source"), "positions": [[*map(str, place), value] for place, value in last.items()]}
