"""P12–P15 for the control thread: ask for the job, read back what it left, walk the corridor, evaluate.

Without scope `full` nothing is asked and nothing evaluated: the phases stay OPEN.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fp_contracts.bundle import BundleManifest, BundleRef, MfResult, TrainJob, TrainRequest
from fp_contracts.canonical import canonical_bytes, digest_of
from fp_contracts.control import EvidenceRef, GatePassed
from fp_contracts.dataset import OfsRequest
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.fold import RunState
from fp_contracts.learning import DRILLED
from fp_contracts.phases import PHASES
from fp_contracts.registry import BundlePublished, capabilities_of, scope_of
from fp_ofs_trigger import domain, gates, gates_mf, gates_mpr, seen
from fp_ofs_trigger.candidate import Candidate, Evaluated
from fp_ofs_trigger.corridor import ACTOR, Corridor, requester_of
from fp_ofs_trigger.domain import ArchivedObject
from fp_ofs_trigger.drill import report_of as drill_report_of
from fp_ofs_trigger.jobs import Asked, JobDesk
from fp_ofs_trigger.registry_desk import RegistryDesk
from fp_ofs_trigger.reports import Artifact, fetch, parsed, report_of
from fp_runtime.controllog import Event
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore, read
from fp_runtime.telemetry_read import Telemetry


class Archive(Protocol):
    """The replay basis: what the archive holds, and what P11 reconciled of it."""

    def objects(self, run: str) -> list[ArchivedObject]:
        """Objects of the topics that learning reads."""
        ...

    def reconciled(self, state: RunState) -> dict[str, int]:
        """Archived records per topic by P11's evidence; empty when that cannot be read back."""
        ...


@dataclass(frozen=True, slots=True)
class Places:
    """Where jobs read and write, as they are told."""

    archive_url: str
    learning_url: str
    s3_endpoint: str | None
    tracking_url: str
    job_memory_bytes: int


class LearningDesk:
    """Evaluates the learning phases of one run at a time. One thread."""

    def __init__(
        self, places: Places, jobs: JobDesk, learning: EvidenceStore, evidence: EvidenceStore, archive: Archive,
        registry: RegistryDesk, corridor: Corridor, now_us: Callable[[], int], telemetry: Telemetry,
    ) -> None:  # fmt: skip
        self._places = places
        self._jobs = jobs
        self._learning = learning
        self._evidence = evidence
        self._archive = archive
        self._registry = registry
        self._corridor = corridor
        self._now_us = now_us
        self._telemetry = telemetry
        self._since: dict[tuple[str, int], int] = {}

    def react(self, state: RunState) -> Sequence[Event]:
        """Tell what the drills of the jobs did, once each job has ended."""
        open_drills = [drill for key, drill in state.drills.items() if key not in state.drill_reports]
        phases = [(phase, drill) for drill in open_drills for phase, job in DRILLED.items() if drill.instance == job]
        told = [drill_report_of(asked, self._jobs.ended(state, phase)) for phase, asked in phases if _full(state)]
        return [(report, (report.drill_id,)) for report in told if report is not None]

    def p12(self, state: RunState) -> Evaluation | None:
        """Pin the basis and the label as-of, have leakage examined."""
        if not _full(state):
            return None
        asked = self._asked(state, "P12", lambda: self._ofs_request(state, "input"))
        request = OfsRequest.model_validate_json(asked.request)
        report = report_of(self._learning, self._jobs.ended(state, "P12"), gates.INPUT_NAMES)
        assert state.header is not None
        uncovered = domain.uncovered(_records(self._archive, state), self._archive.reconciled(state))
        ended = state.windows_ended.get(1)
        known_until_us = domain.as_of_us(state.header.config) if ended is not None else -1
        return gates.evaluate_p12(gates.InputFacts(request.intent, known_until_us, tuple(uncovered), report))

    def p13(self, state: RunState) -> Evaluation | None:
        """Have the dataset built from exactly what P12 committed."""
        if not _full(state):
            return None
        readiness = self._committed(state, "P12", "readiness")
        committed, left = readiness.field("window_fingerprint"), _material(readiness)
        standing = self._jobs.standing(state, "P12")
        if standing is None:
            return _stuck("P13", "the request of P12 is not journaled")
        request = OfsRequest.model_validate_json(standing.request).model_copy(
            update={"stage": "dataset", "material": left}
        )
        asked = self._asked(state, "P13", lambda: _bytes(request))
        built = OfsRequest.model_validate_json(asked.request)
        report = report_of(self._learning, self._jobs.ended(state, "P13"), gates.DATASET_NAMES)
        shown = seen.of_job(self._telemetry, report, self._now_us())
        return gates.evaluate_p13(gates.DatasetFacts(built, committed, left, report, shown))

    def p14(self, state: RunState) -> Evaluation | None:
        """Have a candidate trained on P13's dataset."""
        if not _full(state):
            return None
        manifest = _ref(self._committed(state, "P13", "manifest"))
        fingerprint = self._committed(state, "P13", "fingerprint").field("dataset_fingerprint")
        if manifest is None or not isinstance(fingerprint, str):
            return _stuck("P14", "the evidence of P13 does not read back")
        lock = self._pinned_lock(state)
        if lock is None:
            return _stuck("P14", "the pinned release does not name its lock file")
        asked = self._asked(state, "P14", lambda: self._train_job(state, manifest, fingerprint, lock))
        request = TrainJob.model_validate_json(asked.request).request
        report = report_of(self._learning, self._jobs.ended(state, "P14"), gates_mf.MF_NAMES)
        result = report.parsed(MfResult)
        bundle, model_fault = self._bundle(None if result is None else result.bundle)
        beside = self._bundle(result.challenger) if result is not None and result.challenger is not None else None
        dataset = fetch(self._learning, "manifest", manifest)
        return gates_mf.evaluate_p14(gates_mf.TrainFacts(request, dataset, report, bundle, model_fault, beside))

    def p15(self, state: RunState) -> Evaluation | None:
        """Lead the candidate through the corridor."""
        if not _full(state):
            return None
        assert state.header is not None
        candidate = self._candidate(state)
        if candidate is None:
            return _stuck("P15", "the candidate of P14 does not read back")
        trail = self._corridor.turn(state, candidate, domain.serving_of(state.header.config))
        window, now_us = gates_mpr.WINDOW, self._now_us()
        reconciled = state.reconciled.get(window)
        since_us = now_us
        if reconciled is not None:
            since_us = self._since.setdefault((state.platform_run_id, state.attempt_of("P15")), now_us)
        shown = seen.of_bundles(self._telemetry, state, since_us, now_us)
        facts = gates_mpr.MprFacts(trail, state.windows_ended.get(window), reconciled, shown)
        return gates_mpr.evaluate_p15(facts)

    # --- requests ---

    def _asked(self, state: RunState, phase: str, make: Callable[[], bytes]) -> Asked:
        assert state.header is not None
        limits = domain.limits_of(phase, state.header.config, self._places.job_memory_bytes)
        return self._jobs.asked(state, phase, make, limits)

    def _ofs_request(self, state: RunState, stage: str) -> bytes:
        assert state.header is not None
        objects = self._archive.objects(state.platform_run_id)
        basis = domain.basis_of(objects, state.header)
        request = OfsRequest.model_validate(
            {
                "intent": domain.intent_of(state.header, basis), "archive_url": self._places.archive_url,
                "archive_endpoint": self._places.s3_endpoint, "out_endpoint": self._places.s3_endpoint,
                "archive_objects": tuple(found.ref for found in objects), "stage": stage, "requested_by": ACTOR,
            }
        )  # fmt: skip
        return _bytes(request)

    def _train_job(self, state: RunState, manifest: EvidenceRef, fingerprint: str, lock: str) -> bytes:
        assert state.header is not None
        scope = scope_of(state.header)
        active = self._registry.registry(scope.bundle_slot).scope(scope).active
        request = domain.train_request_of(state.header, manifest, fingerprint, active, lock)
        job = TrainJob(
            request=request, dataset_url=self._places.learning_url,
            active_url=self._places.learning_url if active else None, s3_endpoint=self._places.s3_endpoint,
            tracking_url=self._places.tracking_url or None,
        )  # fmt: skip
        return _bytes(job)

    # --- what is read back ---

    def _pinned_lock(self, state: RunState) -> str | None:
        """sha256 of the lock file by the release that the run pins; None when that does not read back."""
        assert state.header is not None
        manifest = self._committed(state, "P(-1)", "digest_manifest")
        pinned = state.header.config.image_manifest_digest
        lock = manifest.field("environment_lock")
        known = manifest.document is not None and digest_of(manifest.document) == pinned
        return lock if known and isinstance(lock, str) else None

    def _committed(self, state: RunState, phase: str, name: str) -> Artifact:
        """A document of a passed phase's evidence, by the gate event's own reference."""
        attempt = state.attempts.get(phase)
        event = attempt.event if attempt is not None else None
        refs = event.evidence if isinstance(event, GatePassed) else ()
        ref = next((ref for ref in refs if ref.key.endswith(f"/{name}.json")), None)
        return fetch(self._evidence, name, ref)

    def _bundle(self, ref: BundleRef | None) -> tuple[Artifact, str | None]:
        """The manifest of a bundle read back, and what is wrong with its model file."""
        if ref is None:
            return Artifact("bundle", None, None, "not named"), "no bundle"
        bundle = fetch(self._learning, "bundle", ref.manifest)
        manifest = parsed(bundle, BundleManifest)
        if manifest is None:
            return bundle, "no manifest"
        folder = ref.manifest.key.rpartition("/")[0]
        model = EvidenceRef(
            key=f"{folder}/{manifest.model_file}", sha256=manifest.model_sha256, size=manifest.model_size
        )
        try:
            read(self._learning, model)
        except (EvidenceMissing, EvidenceBroken) as error:
            return bundle, f"{type(error).__name__}: {model.key}"
        return bundle, None

    def _candidate(self, state: RunState) -> Candidate | None:
        """What P14 closed on, read back anew: a bundle that changed since is no candidate."""
        assert state.header is not None
        report = report_of(self._learning, self._jobs.ended(state, "P14"), gates_mf.MF_NAMES)
        result, asked = report.parsed(MfResult), self._jobs.standing(state, "P14")
        if result is None or result.bundle is None or result.eval_report is None or asked is None:
            return None
        bundle, model_fault = self._bundle(result.bundle)
        manifest = parsed(bundle, BundleManifest)
        if manifest is None:
            return None
        request = TrainJob.model_validate_json(asked.request).request
        faults = [] if result.eligible else [f"not eligible: {'; '.join(result.reasons)[:200]}"]
        faults += [model_fault] if model_fault else []
        published = _published(state, request, manifest, result.bundle, result, self._now_us())
        summary, told = result.summary, report.artifacts["eval_report"].field("scores_sha256")
        evaluated = Evaluated(summary.candidate.rows if summary else 0, told if isinstance(told, str) else None)
        return Candidate(published, tuple(faults), evaluated, *self._challenger(state, request, result))

    def _challenger(
        self, state: RunState, request: TrainRequest, result: MfResult
    ) -> tuple[BundlePublished | None, str | None]:
        """The baseline as it would be published, and why it cannot be; (None, None) when none was trained."""
        if result.challenger is None:
            return None, None
        bundle, fault = self._bundle(result.challenger)
        manifest = parsed(bundle, BundleManifest)
        if manifest is None or fault is not None:
            return None, fault or "no manifest"
        published = _published(state, request, manifest, result.challenger, result, self._now_us())
        return published.model_copy(update={"eval_rows": None}), None


def _published(
    state: RunState, request: TrainRequest, manifest: BundleManifest, bundle: BundleRef, result: MfResult, now_us: int
) -> BundlePublished:
    assert state.header is not None
    assert result.eval_report is not None
    return BundlePublished(
        scope=scope_of(state.header), bundle=bundle, feature_set=manifest.feature_set,
        feature_schema_digest=manifest.feature_schema_digest, policy_rev=manifest.policy_rev,
        capabilities=capabilities_of(manifest), dataset_fingerprint=request.dataset.dataset_fingerprint,
        eval_report=result.eval_report, eval_rows=result.eval_rows, requester=requester_of(state), at_us=now_us,
    )  # fmt: skip


def _full(state: RunState) -> bool:
    return state.header is not None and domain.full(state.header.config)


def _records(archive: Archive, state: RunState) -> dict[str, int]:
    return domain.archived_records(archive.objects(state.platform_run_id))


def _material(readiness: Artifact) -> EvidenceRef | None:
    """What P12's job kept for the dataset, by P12's own evidence; None: it kept nothing."""
    found = readiness.field("job", "result", "document", "material")
    return None if found is None else EvidenceRef.model_validate(found)


def _ref(committed: Artifact) -> EvidenceRef | None:
    found = committed.field("ref")
    return None if found is None else EvidenceRef.model_validate(found)


def _bytes(request: OfsRequest | TrainJob) -> bytes:
    return canonical_bytes(request.model_dump(mode="json"))


def _stuck(phase: str, why: str) -> Evaluation:
    """What the phases before left cannot be read back: nothing is asked for."""
    code = PHASES[phase].blockers[0]
    return Evaluation((Predicate("input of the phase", why, "reads back", False, code, final=True),), {})
