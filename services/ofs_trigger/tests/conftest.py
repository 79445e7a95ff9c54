"""The learning lane of one run in memory: real stores, bus, registry and gates; jobs are acted by the tests."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts import topics
from fp_contracts.bundle import (
    CANDIDATE,
    BundleManifest,
    BundleRef,
    EvalReport,
    Metrics,
    MfResult,
    TimeBounds,
    TrainJob,
    bundle_id,
    model_digest,
    training_key,
)
from fp_contracts.canonical import canonical_bytes, digest_of, sha256_hex
from fp_contracts.dataset import (
    Column,
    DataFile,
    DatasetManifest,
    LabelCounts,
    OfsRequest,
    OfsResult,
    dataset_fingerprint,
    dataset_key,
)
from fp_contracts.fold import RunState, fold
from fp_contracts.phases import ORDER, PHASES
from fp_contracts.registry import RegistryPayload, bundle_text
from fp_contracts.runconfig import RunHeader, SpendLimit, Window, config_digest
from fp_ofs_trigger.aliases import Aliases, NoAliases
from fp_ofs_trigger.corridor import Corridor
from fp_ofs_trigger.domain import BASIS_TOPICS, ArchivedObject
from fp_ofs_trigger.drill import drill_of
from fp_ofs_trigger.evaluators import LearningDesk, Places
from fp_ofs_trigger.executor import Executor
from fp_ofs_trigger.jobs import Asked, EndSeen, JobDesk
from fp_ofs_trigger.registry_desk import Place, RegistryDesk, Stored
from fp_ofs_trigger.runners import Ended, Job, Progress
from fp_ofs_trigger.service import Heard, LearningEvents
from fp_runtime import gate
from fp_runtime.evidence import EvidenceConflict, EvidenceMissing, EvidenceStore, ref_of
from fp_runtime.evidence import Stored as Object
from fp_runtime.memory import MemoryBus
from fp_runtime.meter import Spend
from fp_runtime.telemetry_read import Point

EXAMPLE = Path(__file__).parents[3] / "tests/contract/examples/run_pinned.json"
NOW_US = 1_800_000_000_000_000
OPERATOR = "ana"
SCORES = "5c" * 32


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


LOCK = digest("uv.lock")
RELEASE = {"kind": "source", "services": {}, "jobs": {"fp_ofs": digest("ofs"), "fp_mf": digest("mf")},
           "environment_lock": LOCK}  # fmt: skip
RELEASE_KEY = "evidence/dev_full/run_control/" + "0" * 32 + "/digest_manifest.json"


class MemoryTelemetry:
    """telemetry_read.Telemetry: points come in `sent`; `source` "none" = nobody waits for them."""

    def __init__(self) -> None:
        self.source = "none"
        self.sent: list[Point] = []

    def points(self, wanted: Mapping[str, str]) -> list[Point]:
        return [point for point in self.sent if wanted.items() <= point.attributes.items()]


class MemoryStore:
    """evidence.EvidenceStore: write-once, in memory, since a disk's fsync is most of these tests' time."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, body: bytes) -> c.EvidenceRef:
        if self.objects.setdefault(key, body) != body:
            raise EvidenceConflict(key)
        return ref_of(key, body)

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise EvidenceMissing(key)
        return self.objects[key]

    def list(self, prefix: str) -> list[Object]:
        return sorted(Object(key, len(body)) for key, body in self.objects.items() if key.startswith(prefix))

    def exists(self, key: str) -> bool:
        return key in self.objects


class MemoryJobs:
    """jobs.JobTable."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, str, int], Asked] = {}
        self.ends: dict[tuple[str, str], EndSeen] = {}

    def asked(self, run: str, phase: str, attempt: int) -> Asked | None:
        return self.jobs.get((run, phase, attempt))

    def ask(self, run: str, phase: str, attempt: int, asked: Asked) -> Asked:
        return self.jobs.setdefault((run, phase, attempt), asked)

    def end(self, run: str, request_id: str) -> EndSeen | None:
        return self.ends.get((run, request_id))

    def note_end(self, run: str, seen: EndSeen) -> None:
        self.ends.setdefault((run, seen.event.request_id), seen)


class MemoryRegistry:
    """registry_desk.RegistryTable with the constraints of the real one."""

    def __init__(self) -> None:
        self.stored: dict[str, list[Stored]] = {}
        self.revisions: set[tuple[object, int | None]] = set()
        self.facts: dict[str, Place] = {}

    def rows(self, slot: str) -> Sequence[Stored]:
        return list(self.stored.get(slot, []))

    def insert(self, row: Stored, event: RegistryPayload) -> bool:
        rows = self.stored.setdefault(event.scope.bundle_slot, [])
        revision: tuple[object, int | None] = (event.scope, getattr(event, "revision", None))
        if (
            row.n != len(rows) + 1
            or any(row.event_id == other.event_id for other in rows)
            or revision in self.revisions
        ):
            return False
        rows.append(row)
        if revision[1] is not None:
            self.revisions.add(revision)
        return True

    def places(self, slot: str) -> Mapping[str, Place]:
        return dict(self.facts)

    def note_place(self, event_id: str, place: Place) -> None:
        self.facts.setdefault(event_id, place)


class MemoryMarks:
    """corridor.Marks."""

    def __init__(self) -> None:
        self.marks: dict[tuple[str, str], int] = {}

    def first(self, run: str, name: str, now_us: int) -> int:
        return self.marks.setdefault((run, name), now_us)


class MemoryArchive:
    """evaluators.Archive: ten records per partition, all of them reconciled."""

    def __init__(self) -> None:
        self.rows = [
            ArchivedObject(
                topic, part, 0, 10, c.EvidenceRef(key=f"archive/run/{topic}/{part}", sha256="0" * 64, size=1), 10
            )
            for topic in BASIS_TOPICS
            for part in range(topics.TOPICS[topic].partitions)
        ]
        self.counts = {topic: 10 * topics.TOPICS[topic].partitions for topic in BASIS_TOPICS}

    def objects(self, run: str) -> list[ArchivedObject]:
        return self.rows

    def reconciled(self, state: RunState) -> dict[str, int]:
        return self.counts


class Jobs:
    """runners.Runner that acts the jobs: writes what they would write. A test changes one thing by a hook."""

    name = "acted"

    def __init__(self, store: EvidenceStore) -> None:
        self.store = store
        self.ran: list[str] = []
        self.end: dict[str, Ended] = {}
        self.change: dict[str, Callable[[dict[str, Any]], None]] = {}

    def run(self, job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Ended:
        phase = {"input": "P12", "dataset": "P13"}.get(json.loads(job.request).get("stage"), "P14")
        self.ran.append(phase)
        if phase in self.end:
            return self.end[phase]
        if job.failpoints:
            return self.killed(job, phase, progress)
        result = self.train(job) if phase == "P14" else self.dataset(job, phase)
        self._change("result", result)
        blocked = result["status"] == "BLOCKED"
        return Ended("BLOCKED" if blocked else "DONE", "", result, b"said", "acted", {"wall_ms": 5})

    def killed(self, job: Job, phase: str, progress: Callable[[Progress], None]) -> Ended:
        """As a job that is killed in mid-work leaves it: something is put, nothing makes it readable."""
        progress(Progress("publish", 1, 3))
        if phase == "P13":
            intent = OfsRequest.model_validate_json(job.request).intent
            self.store.put(dataset_key(dataset_fingerprint(intent), "rows/00000.parquet"), b"rows")
        else:
            self.store.put(training_key(TrainJob.model_validate_json(job.request).request.digest, CANDIDATE), b"note")
        return Ended("KILLED", "signal 9", None, b"", "pid 1", {"wall_ms": 3})

    def _change(self, name: str, document: dict[str, Any]) -> None:
        if name in self.change:
            self.change[name](document)

    def put(self, key: str, name: str, document: dict[str, Any]) -> c.EvidenceRef:
        self._change(name, document)
        return self.store.put(key, canonical_bytes(document))

    def dataset(self, job: Job, phase: str) -> dict[str, Any]:
        request = OfsRequest.model_validate_json(job.request)
        intent, fingerprint = request.intent, dataset_fingerprint(request.intent)

        def report(name: str, document: dict[str, Any]) -> c.EvidenceRef:
            return self.put(dataset_key(fingerprint, f"{name}.json"), name, document)

        names = ("label_after_as_of", "feature_after_decision", "immature", "truth_columns", "split_order")
        refs = {
            "readiness": report("readiness", {"label_horizon_us": intent.labels.as_of_us}),
            "leakage": report("leakage", {
                "findings": [{"name": name, "violations": 0, "planted": "x", "poison_caught": True} for name in names]
            }),
        }  # fmt: skip
        status = "INPUT_READY"
        if phase == "P13":
            status = "PUBLISHED"
            refs |= {
                "quality": report("quality", {"rows": 90}),
                "parity": report("parity", {"payments": 100, "equal": 100, "ok": True}),
                "rollback_recipe": report("rollback_recipe", {
                    "ok": True, "executed": [{"move": move} for move in ("activate", "roll_back", "re_activate")]
                }),
            }  # fmt: skip
            manifest = DatasetManifest(
                dataset_fingerprint=fingerprint, intent=intent, rows=90, row_digest=digest("rows"),
                files=(DataFile(key="rows", sha256=digest("f"), size=1, rows=90),),
                columns=(Column(name="amount", kind="float64", role="feature"),), feature_set=intent.feature_set,
                feature_schema_digest=intent.feature_schema_digest,
                label_counts=LabelCounts(payments=100, fraud=5, legit=85, filtered=0, immature=10, conflict=0,
                                         suspected=0, unlabelled=0),
                first_event_us=1, last_event_us=2, splits=(), readiness=refs["readiness"], leakage=refs["leakage"],
                quality=refs["quality"], parity=refs["parity"], pictures=(),
            )  # fmt: skip
            refs["manifest"] = report("manifest", manifest.model_dump(mode="json"))
        result = OfsResult.model_validate({
            "status": status, "dataset_fingerprint": fingerprint, "engine": "acted", "row_digest": digest("rows"),
            **refs,
        })  # fmt: skip
        return result.model_dump(mode="json")

    def train(self, job: Job) -> dict[str, Any]:
        request = TrainJob.model_validate_json(job.request).request
        folder, model = f"bundles/{request.digest}", b"model bytes"
        self.store.put(f"{folder}/model.ubj", model)
        fields: dict[str, Any] = {
            "format": "fp.bundle.v1", "family": "xgboost", "model_file": "model.ubj",
            "model_sha256": sha256_hex(model), "model_size": len(model), "feature_set": request.feature_set,
            "feature_schema_digest": request.feature_schema_digest, "feature_names": ["amount"],
            "policy_rev": request.policy_rev,
            "thresholds": {"step_up_ppm": 1, "review_ppm": 2, "block_ppm": 3}, "profile_sha256": None,
            "dataset_fingerprint": request.dataset.dataset_fingerprint,
            "dataset_sha256": request.dataset.manifest.sha256, "train_request_digest": request.digest,
            "code_release": request.code_release, "environment_lock_digest": request.environment_lock_digest,
        }  # fmt: skip
        self._change("fields", fields)
        fields["model_digest"] = model_digest(
            fields["model_sha256"], fields["feature_schema_digest"], fields["policy_rev"]
        )
        fields["bundle_id"] = bundle_id(fields)
        manifest = BundleManifest.model_validate_json(canonical_bytes(fields))
        beside = self.challenger(fields)
        reports = {
            name: self.put(f"{folder}/{name}.json", name, {"about": name, "scores_sha256": SCORES})
            for name in ("eval_report", "mlflow_refs", "bundle_receipt", "safe_disable")
        }
        metrics = Metrics(rows=100, frauds=5, average_precision_ppm=700_000, auc_ppm=None, card_precision_ppm=None,
                          calibration_error_ppm=None)  # fmt: skip
        summary = EvalReport(
            train_request_digest=request.digest, candidate=metrics, baseline=metrics, active=None, floor_ppm=500_000,
            windows=TimeBounds(train_start_us=0, train_end_us=10, test_start_us=20, test_end_us=30),
            average_precision_low_ppm=1, average_precision_high_ppm=2, shuffled_ap_ppm=50_000, prevalence_ppm=50_000,
            checks=(("label_shuffle", True),),
        )  # fmt: skip
        result = MfResult(
            platform_run_id=request.platform_run_id, train_request_digest=request.digest, status="TRAINED",
            eligible=True, reasons=(), blockers=(), summary=summary,
            bundle=BundleRef(
                bundle_id=manifest.bundle_id, model_digest=manifest.model_digest,
                manifest=self.put(f"{folder}/bundle.json", "bundle", manifest.model_dump(mode="json")),
            ),
            eval_report=reports["eval_report"], mlflow_refs=reports["mlflow_refs"],
            bundle_receipt=reports["bundle_receipt"], safe_disable=reports["safe_disable"], challenger=beside,
            eval_rows=self.put(f"{folder}/eval_rows.json", "eval_rows", {"event_ids": ["a", "b"]}),
        )  # fmt: skip
        return result.model_dump(mode="json")

    def challenger(self, candidate: dict[str, Any]) -> BundleRef:
        """The baseline's bundle, beside the candidate's."""
        model, fields = b"baseline bytes", {name: value for name, value in candidate.items() if name != "bundle_id"}
        fields |= {"family": "logistic", "model_file": "model.json", "model_sha256": sha256_hex(model),
                   "model_size": len(model)}  # fmt: skip
        self._change("challenger_fields", fields)
        fields["model_digest"] = model_digest(
            fields["model_sha256"], fields["feature_schema_digest"], fields["policy_rev"]
        )
        fields["bundle_id"] = bundle_id(fields)
        manifest = BundleManifest.model_validate_json(canonical_bytes(fields))
        folder = f"bundles/{manifest.bundle_id}"
        self.store.put(f"{folder}/model.json", model)
        named = self.put(f"{folder}/bundle.json", "challenger", manifest.model_dump(mode="json"))
        return BundleRef(bundle_id=manifest.bundle_id, model_digest=manifest.model_digest, manifest=named)


class Lane:
    """One run from the end of P11 on: `turn` lets gates, agents and df take one step each."""

    def __init__(self, state: RunState, aliases: Aliases | None = None) -> None:
        self.evidence, self.learning = MemoryStore(), MemoryStore()
        self.bus, self.jobs, self.registry, self.marks = MemoryBus(), MemoryJobs(), MemoryRegistry(), MemoryMarks()
        self.bus.create(topics.TOPICS)
        self.archive, self.acted = MemoryArchive(), Jobs(self.learning)
        self.aliases = aliases or NoAliases()
        self.telemetry = MemoryTelemetry()
        self.evidence.put(RELEASE_KEY, canonical_bytes(RELEASE))
        self.state, self.clock_us = state, NOW_US
        self.df_answers = True
        self.df_says: Callable[[c.BundleSwitched], c.BundleSwitched] = lambda event: event
        self.df_rescores: Callable[[c.BundleRescored], c.BundleRescored] = lambda event: event
        self.heard: dict[tuple[str, int], int] = {}
        self.waiting: dict[str, list[str]] = {}
        self.restart()

    def restart(self) -> None:
        """A new process: everything that was only in memory is gone."""
        now_us, producer = self.now_us, self.bus.producer()
        desk = RegistryDesk(self.registry, producer, lambda: self.bus.consumer("t"), "ofs_trigger-0", now_us)
        corridor = Corridor(desk, self.marks, self.aliases, now_us)
        places = Places("file:///archive", "file:///learning", None, "", 1 << 30)
        jobs = JobDesk(self.jobs, self.learning, producer, places.learning_url, "ofs_trigger-0", now_us)
        self.registry_desk = desk
        self.desk = LearningDesk(
            places, jobs, self.learning, self.evidence, self.archive, desk, corridor, now_us, self.telemetry
        )
        self.executor = Executor(
            self.jobs, self.learning, producer, {"fp_ofs": self.acted, "fp_mf": self.acted}, "ofs_trigger-0", now_us,
            lambda: self.state.platform_run_id, lambda phase: drill_of(self.state, phase),
        )  # fmt: skip
        self.events = LearningEvents(self.jobs, self.executor)

    def now_us(self) -> int:
        self.clock_us += 1_000
        return self.clock_us

    def tell(self, *events: c.ControlPayload) -> None:
        """Events on the control log."""
        for event in events:
            self.state = fold(self.state, event)

    def turn(self, phase: str, patience: bool = False) -> None:
        """Evaluate a phase once and close it when it is settled; agents and df then do their part."""
        evaluate = {"P12": self.desk.p12, "P13": self.desk.p13, "P14": self.desk.p14, "P15": self.desk.p15}[phase]
        if not self.state.may_open(phase):
            return
        evaluation = evaluate(self.state)
        if evaluation is None:
            return
        self.waiting[phase] = [found.name for found in evaluation.predicates if not found.ok]
        if evaluation.settled() or patience:
            closure = gate.closure_of(self.state, phase, evaluation, Spend(0, 0, 0, 0, 0), self.clock_us)
            gate.put_evidence(self.evidence, closure, self.state.platform_run_id)
            self.tell(closure.event)
            return
        self.agents()
        self.df()

    def agents(self) -> None:
        """Every learning record that was not heard yet goes through the agents; jobs run to their end."""
        for topic in (topics.OFS_REQUESTS, topics.MF_REQUESTS, topics.OFS_EVENTS, topics.MF_EVENTS):
            consumer = self.bus.consumer("t")
            for part in range(topics.TOPICS[topic].partitions):
                consumer.assign({(topic, part): self.heard.get((topic, part), 0)})
                for record in consumer.poll(100, 0.0):
                    self.heard[topic, part] = record.offset + 1
                    self.events.on_record(Heard(topic, part, record.offset, record.value))
            self.executor.join()

    def df(self) -> None:
        """df's members resolve what the registry topic says and report every revision once."""
        if not self.df_answers:
            return
        registry = self.registry_desk.registry_on_topic("payment_fraud")
        for offered in registry.published.values():
            if offered.eval_rows is not None:
                rescored = c.BundleRescored(
                    bundle_id=offered.bundle.bundle_id, model_digest=offered.bundle.model_digest, rows=100, missing=0,
                    scores_sha256=SCORES,
                )  # fmt: skip
                self.tell(self.df_rescores(rescored))
        for scope, found in registry.scopes.items():
            for at in found.activations:
                for part in range(6):
                    event = c.BundleSwitched(
                        bundle_slot=scope.bundle_slot, revision=at.revision,
                        bundle_ref=bundle_text(at.bundle) if at.bundle else None,
                        source="global" if at.bundle else "guardrails", effective_us=at.effective_us, partition=part,
                        merged_n=at.revision * 100 + part,
                    )  # fmt: skip
                    self.tell(self.df_says(event))

    def close(self, phase: str, turns: int = 12) -> str:
        """Turn until the phase has closed; its state."""
        for _ in range(turns):
            self.turn(phase)
            if self.state.state_of(phase) != "OPEN":
                break
        return self.state.state_of(phase)

    def through(self, phase: str) -> None:
        """Close everything before a phase."""
        for before in ("P12", "P13", "P14"):
            if before == phase:
                return
            assert self.close(before) == "PASS", self.blockers(before)

    def blockers(self, phase: str) -> list[str]:
        """Blocker codes and reasons of the current attempt."""
        attempt = self.state.attempts[phase]
        assert isinstance(attempt.event, c.GateBlocked), attempt.event
        return [f"{blocker.code} {blocker.reason}" for blocker in attempt.event.blockers]

    def evidence_of(self, phase: str, name: str) -> Any:
        """A document of the phase's current attempt."""
        event = self.state.attempts[phase].event
        assert event is not None
        return json.loads(self.evidence.get(PHASES[phase].evidence_key(
            self.state.platform_run_id, event.phase_execution_id, name)))  # fmt: skip

    def approve(self, actor: str = "ben") -> None:
        """A person approves the candidate that P14 closed on."""
        bundle = self.bundle()
        self.tell(c.BundleApprovalGiven(
            bundle_id=bundle.bundle_id, model_digest=bundle.model_digest, actor=actor, reason="report read"
        ))  # fmt: skip

    def bundle(self) -> BundleRef:
        """The candidate."""
        result = self.evidence_of("P14", "eval_report")["job"]["result"]["document"]
        return MfResult.model_validate_json(json.dumps(result)).bundle or pytest.fail("no bundle")

    def challenger(self) -> BundleRef:
        """The baseline's bundle."""
        result = self.evidence_of("P14", "eval_report")["job"]["result"]["document"]
        return MfResult.model_validate_json(json.dumps(result)).challenger or pytest.fail("no challenger")

    def end_window_2(self, ok: bool = True) -> None:
        """wsp ends window 2 and verdict reconciles it."""
        ref = c.EvidenceRef(key="w", sha256="0" * 64, size=1)
        check = c.Check(name="requests = snapshots", observed="9 = 9" if ok else "9 = 8", required="equal", ok=ok)
        self.tell(
            c.WindowEnded(window=2, lane_seqs={}, ledger_ref=ref),
            c.WindowReconciled(window=2, checks=(check,), report_ref=ref),
        )

    def active(self) -> BundleRef | None:
        """What the registry topic has active."""
        registry = self.registry_desk.registry_on_topic("payment_fraud")
        return next((found.active for found in registry.scopes.values()), None)

    def registry_types(self) -> list[str]:
        """Types of the journaled registry events, in order."""
        return [json.loads(row.body)["event_type"] for row in self.registry.rows("payment_fraud")]


def header_of(scope: str = "full", windows: int = 2) -> RunHeader:
    """The example header for a run of the scope; window 2 follows window 1."""
    header = RunHeader.model_validate_json(json.dumps(json.loads(EXAMPLE.read_text())["payload"]["header"]))
    start_us, end_us = header.config.windows[0].start_us, header.config.windows[0].end_us
    later = Window(start_us=end_us, end_us=end_us + (end_us - start_us) // 2)
    limits = tuple(
        SpendLimit(phase=key, max_spend_microusd=1_000, expected_duration_s=60, hard_stop="x", expected_artifacts=())
        for key in ORDER
    )
    config = header.config.model_copy(
        update={
            "scope": scope,
            "windows": (header.config.windows[0], later)[:windows],
            "envelopes": limits,
            "image_manifest_digest": digest_of(RELEASE),
        }
    )
    return header.model_copy(update={"config": config, "run_config_digest": config_digest(config)})


def after_spine(header: RunHeader) -> RunState:
    """The run as its control log says it after P11."""
    config, run = header.config, header.platform_run_id
    ref = c.EvidenceRef(key="w", sha256="0" * 64, size=1)
    state = RunState(run)
    for event in (
        c.RunPinRequested(scenario_run_id=header.scenario_run_id, config=config, actor=OPERATOR),
        c.RunPinned(header=header, header_ref=ref),
        c.BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=NOW_US),
        c.WindowEnded(window=1, lane_seqs={}, ledger_ref=ref),
    ):
        state = fold(state, event)
    for phase in ORDER[: ORDER.index("P12")]:
        receipt = c.Receipt(phase=phase, attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                            artifacts=(), risk_retired="x")  # fmt: skip
        state = fold(state, c.GatePassed(
            phase=phase, attempt=1, phase_execution_id="0" * 32, checks=(), receipt=receipt,
            evidence=(ref_of(RELEASE_KEY, canonical_bytes(RELEASE)),) if phase == "P(-1)" else (),
        ))  # fmt: skip
    return state


@pytest.fixture
def lane() -> Lane:
    """A full run with two windows, after P11."""
    return Lane(after_spine(header_of()))
