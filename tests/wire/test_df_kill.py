"""df, its action layer and the actuator as real processes on real servers: killed anywhere, P9 closes.

In a full run df is held where a bundle takes over, scores from there on and reports it; P9 stays on window 1.
"""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fp_contracts import registry, topics
from fp_contracts.bundle import BundleManifest, BundleRef
from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import (
    BudgetPosture,
    ControlPayload,
    EvidenceRef,
    GatePassed,
    PolicyActivated,
    Receipt,
    RunPinned,
    WindowEnded,
)
from fp_contracts.derive import vector_bytes, vector_text
from fp_contracts.fold import RunState
from fp_contracts.header import Header, Kind, pack, unpack
from fp_contracts.ids import phase_execution_id, run_tag
from fp_contracts.partition import partition_of
from fp_contracts.records import body_of
from fp_contracts.runconfig import (
    PolicySwitch,
    RunConfig,
    RunHeader,
    SpendLimit,
    Window,
    config_digest,
)
from fp_df import audit, facts, sample
from fp_df.catalogue import policies
from fp_df.gates import evaluate_p9
from fp_df.marks import Truth
from fp_df.models import Models
from fp_df.plan import STAGE, plan_of
from fp_df.replay import Replay, served_of
from fp_features import CORE_V1
from fp_features import pack as pack_vector
from fp_features import unpack as unpack_vector
from fp_models import pack as pack_bundle
from fp_models.logistic import LogisticModel
from fp_operator.stack import StackAddresses
from fp_runtime import controllog, kafka, outbox, progress
from fp_runtime.bus import FetchProfile, Out, Record
from fp_runtime.deadline import until
from fp_runtime.evidence import open_store, ref_of
from fp_runtime.postgres import connect, ensure_roles
from fp_runtime.settings import RuntimeSettings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
PASSWORD = "wire-df"
RUN = sample.RUN
COUNT = 240
END_US = sample.START_US + COUNT * 1_000_000 + 1
SWITCH_US = sample.START_US + 150 * 1_000_000
WAIT_S = 60.0
KILLS = {
    "df-0": ["df.before_commit", "df.after_commit", "df.after_publish"],
    "actions-0": ["al.after_call", "al.after_commit"],
}


def now_us() -> int:
    return time.time_ns() // 1_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cell:
    """One isolated environment: own topics, database, stores and actuator; starts and ends its own processes."""

    settings: RuntimeSettings
    owner_dsn: str
    environ: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)

    def start(self, instance: str) -> None:
        mode = [] if instance == "df-0" else [instance.rpartition("-")[0]]
        points = self.left.get(instance, [])
        armed = f"{points.pop(0)}:kill:1" if points else ""
        environ = {**self.environ, "FP_INSTANCE": instance, "FP_FAILPOINTS": armed}
        self.running[instance] = subprocess.Popen([sys.executable, "-m", "fp_df", *mode], env=environ)

    def revive(self) -> None:
        """Start what was killed again, with the next failpoint of its instance."""
        for instance, process in list(self.running.items()):
            code = process.poll()
            if code is not None:
                assert code == -signal.SIGKILL, f"{instance} ended with {code}"
                self.killed.append(instance)
                self.start(instance)

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tell(self, header: RunHeader, payload: ControlPayload, *salt: str) -> None:
        producer = kafka.open_producer(self.settings)
        controllog.publish(producer, controllog.header_pins(header), [(payload, salt)], "test", now_us())
        producer.close()

    def state(self) -> RunState:
        consumer = kafka.open_consumer(self.settings, "test.control", fetch=FetchProfile.CONTROL)
        state = controllog.read_run(consumer, RUN, 0)
        consumer.close()
        return state

    def write(self, outs: Sequence[Out]) -> None:
        producer = kafka.open_producer(self.settings)
        assert all(delivery.error is None for delivery in producer.publish(outs))
        producer.close()

    def read(self, topic: str, kind: Kind) -> list[Record]:
        """Records of a kind without repeats: the same (source, seq) must come with the same bytes."""
        consumer = kafka.open_consumer(self.settings, "test.read")
        ends = consumer.ends([(topic, part) for part in range(topics.TOPICS[topic].partitions)])
        consumer.assign(dict.fromkeys(ends, 0))
        done, found = dict.fromkeys(ends, 0), dict[tuple[int, str, int], Record]()
        while any(done[place] < end for place, end in ends.items()):
            for record in consumer.poll(500, 0.2):
                done[record.topic, record.partition] = record.offset + 1
                header = unpack(record.header)
                if header.kind is kind:
                    known = found.setdefault((record.partition, header.source, header.seq), record)
                    assert (known.value, known.header) == (record.value, record.header)
        consumer.close()
        seqs: dict[tuple[int, str], int] = {}
        for part, source, seq in found:
            seqs[part, source] = max(seqs.get((part, source), 0), seq)
        if kind is not Kind.ACTION_OUTCOME:
            assert sum(seqs.values()) == len(found), "a gap"
        return list(found.values())

    def wait(self, predicate: Any, what: str) -> None:
        def reached() -> bool:
            self.revive()
            return bool(predicate())

        until(reached, WAIT_S, what, interval_s=0.2)


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    ensure_roles(database, {"fp_df": PASSWORD})
    place = database.rpartition("/")[2]
    dsn = stack.pg_dsn_as("fp_df", PASSWORD).rpartition("/")[0] + f"/{place}"
    port = free_port()
    given = {
        "FP_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "FP_PG_DSN": dsn,
        "FP_EVIDENCE_URL": (tmp_path / "evidence").as_uri(),
        "FP_TOPIC_PREFIX": topic_prefix,
        "FP_ACTUATOR_PORT": str(port),
        "FP_ACTUATOR_FILE": str(tmp_path / "effects.db"),
        "FP_ACTUATOR_URL": f"http://127.0.0.1:{port}",
    }
    settings = RuntimeSettings(
        instance="test-0", kafka_bootstrap=stack.kafka_bootstrap, pg_dsn=dsn, topic_prefix=topic_prefix,
        evidence_url=given["FP_EVIDENCE_URL"],
    )  # fmt: skip
    admin = kafka.open_admin(settings)
    admin.create_topics()
    admin.close()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FP_")}
    made = Cell(settings, database, {**environ, **given}, left={name: list(points) for name, points in KILLS.items()})
    yield made
    made.stop()


def config_of(**changed: Any) -> RunConfig:
    """A spine run with one policy switch, unless changed."""
    digest = "a" * 64
    limit = SpendLimit(
        phase="P9", max_spend_microusd=10**9, expected_duration_s=60, hard_stop="4x",
        expected_artifacts=("decision_snapshot", "action_snapshot", "audit_snapshot"),
    )  # fmt: skip
    made = RunConfig(
        profile="local", scope="spine", manifest_fingerprint="b" * 64,
        windows=(Window(start_us=sample.START_US, end_us=END_US),), feature_schema_digest=CORE_V1.schema_digest,
        policies={rev: found for rev, (_, found) in policies().items()}, policy_initial="spine-v1",
        policy_switches=(PolicySwitch(policy_rev="spine-v0", effective_us=SWITCH_US),),
        authority_digest=digest, handles_digest=digest, image_manifest_digest=digest, price_table_digest=digest,
        envelopes=(limit,),
    )  # fmt: skip
    return made.model_copy(update=changed)


def pin(cell: Cell, config: RunConfig) -> RunHeader:
    """Pin a run, as sr would, and give it a budget posture."""
    pinned = RunHeader(
        platform_run_id=RUN, scenario_run_id="a" * 32, config=config, run_config_digest=config_digest(config),
        start_offsets={name: {str(part): 0 for part in range(topic.partitions)} for name, topic in
                       topics.TOPICS.items()},
        lane_writers={str(lane): "ig-0" for lane in range(topics.LANES)}, pinned_us=now_us(),
        pin_partition=controllog.partition_of_run(RUN), pin_offset=0,
    )  # fmt: skip
    with connect(cell.owner_dsn, "test-pin") as conn:
        conn.execute(
            "INSERT INTO sr.run (run, scenario_run_id, run_config_digest, pin_partition, pin_offset, header)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (RUN, pinned.scenario_run_id, pinned.run_config_digest, pinned.pin_partition, 0, b""),
        )
    ref = EvidenceRef(key="evidence/test", sha256="a" * 64, size=1)
    cell.tell(pinned, RunPinned(header=pinned, header_ref=ref))
    cell.tell(pinned, BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=now_us()))
    return pinned


def auth_requests() -> list[Out]:
    """The AUTH_REQUESTs behind the snapshots: only their headers are counted."""
    tag = run_tag(RUN)
    return [
        Out(topics.TRAFFIC, 0, b"m", b"{}", pack(Header(Kind.AUTH_REQUEST, tag, "ig-0", number + 1, at_us)))
        for number, at_us in enumerate(range(sample.START_US, END_US - 1, 1_000_000))
    ]


def close_upstream(cell: Cell, header: RunHeader) -> None:
    """Say that the window ended and P8 passed, as wsp and rtdl would."""
    cell.tell(header, WindowEnded(window=1, lane_seqs={}, ledger_ref=EvidenceRef(key="e/l", sha256="c" * 64, size=1)))
    receipt = Receipt(phase="P8", attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                      artifacts=(), risk_retired="none")  # fmt: skip
    cell.tell(
        header,
        GatePassed(phase="P8", attempt=1, phase_execution_id=phase_execution_id(RUN, "P8", 1), checks=(), evidence=(),
                   receipt=receipt),
        "P8", "1",
    )  # fmt: skip


def test_killed_anywhere_every_payment_is_decided_once_and_every_action_done_once(cell: Cell) -> None:
    header = pin(cell, config_of())
    pins = controllog.header_pins(header)
    lines = list(sample.world(sample.Feed(pins), COUNT, END_US))
    rng = random.Random(2)
    copies = [line for line in lines[:200] if line.value and rng.random() < 0.1]  # rtdl was restarted, too
    cell.write(auth_requests())
    for instance in ("actuator-0", "df-0", "actions-0"):
        cell.start(instance)
    for start in range(0, len(lines), 80):
        cell.write(lines[start : start + 80])
        cell.revive()
    cell.write(copies)
    cell.wait(lambda: cell.read(topics.RTDL, Kind.DECISION), "decisions before the switch")
    cell.wait(lambda: not cell.left["df-0"], "df is killed until nothing is left")
    cell.tell(header, PolicyActivated(policy_rev="spine-v0", effective_us=SWITCH_US, actor="test"), "spine-v0")
    close_upstream(cell, header)
    cell.wait(lambda: cell.state().state_of("P9") != "OPEN", "P9 closes")
    attempt = cell.state().attempts["P9"]
    assert attempt.event is not None
    assert [check for check in attempt.event.checks if not check.ok] == []
    assert attempt.state == "PASS"
    assert sorted(cell.killed) == sorted(name for name, points in KILLS.items() for _ in points)
    assert sum(event.merged_n for event in cell.state().switched) == 150  # one payment a second
    assert {event.partition for event in cell.state().switched} == set(range(6))
    _check_records(cell, header)
    _check_effects(cell)


def _check_records(cell: Cell, header: RunHeader) -> None:
    """What lies on the bus: one decision a payment, equal when evaluated again, in chains that recompute."""
    decisions = cell.read(topics.RTDL, Kind.DECISION)
    sources = [orjson.loads(record.value)["payload"]["source_event"]["event_id"] for record in decisions]
    assert sorted(sources) == sorted(f"auth-{number}" for number in range(COUNT))
    replay = Replay(RUN, plan_of(header, policies()).switches)
    for record in decisions:
        replay.take(record.value)
    assert (replay.replayed, replay.unequal) == (COUNT, 0)
    links = [orjson.loads(record.value)["payload"] for record in cell.read(topics.AUDIT, Kind.AUDIT_RECORD)]
    assert sum(link["kind"] == "DECIDED" for link in links) == COUNT
    for name in {link["chain"] for link in links}:
        assert audit.chain_break(RUN, name, [link for link in links if link["chain"] == name]) is None
    outcomes = [orjson.loads(record.value)["payload"] for record in cell.read(topics.RTDL, Kind.ACTION_OUTCOME)]
    assert sorted(outcome["action_id"] for outcome in outcomes) == sorted(replay.actions)
    assert {outcome["status"] for outcome in outcomes} == {"EXECUTED"}


def _check_effects(cell: Cell) -> None:
    """The actuator's own store: one effect per action, and al.after_call really asked twice."""
    totals = httpx.get(f"{cell.environ['FP_ACTUATOR_URL']}/v1/effects").json()
    with connect(cell.owner_dsn, "test-look") as conn:
        rows = conn.execute("SELECT (SELECT count(*) FROM df.decision), (SELECT count(*) FROM df.outcome)").fetchone()
    assert rows is not None
    assert rows[0] == COUNT
    assert totals["effects"] == rows[1]
    assert totals["repeats"] >= 1


T1 = sample.START_US + 120 * 1_000_000
TWO_WINDOWS = (Window(start_us=sample.START_US, end_us=T1), Window(start_us=T1, end_us=END_US))


def put_bundle(cell: Cell, name: str = "b", weight: float = 0.2) -> BundleRef:
    """A logistic bundle that goes by the amount, in the learning store."""
    width, names = len(CORE_V1.names), list(CORE_V1.names)
    model = LogisticModel((0.0,) * width, (10_000.0, *(1.0,) * (width - 1)), (weight, *(0.0,) * (width - 1)), -1.0)
    files = pack_bundle(
        {
            "family": "logistic", "feature_set": "core.v1", "feature_schema_digest": CORE_V1.schema_digest,
            "feature_names": names, "policy_rev": "spine-v1", "dataset_fingerprint": "d" * 64,
            "dataset_sha256": "d" * 64, "train_request_digest": "d" * 64, "code_release": "r",
            "environment_lock_digest": "d" * 64,
            "thresholds": {"step_up_ppm": 300_000, "review_ppm": 500_000, "block_ppm": 600_000},
        },
        model.to_bytes(),
    )  # fmt: skip
    store, raw = open_store(cell.environ["FP_LEARNING_URL"]), files["bundle.json"]
    manifest = BundleManifest.model_validate_json(raw)
    for file, body in files.items():
        store.put(f"bundles/{name}/{file}", body)
    named = ref_of(f"bundles/{name}/bundle.json", raw)
    return BundleRef(bundle_id=manifest.bundle_id, model_digest=manifest.model_digest, manifest=named)


def put_eval_rows(cell: Cell) -> tuple[EvidenceRef, list[str]]:
    """Every third payment of window 1, backwards, as the rows of an evaluation."""
    wanted = [f"auth-{number}" for number in range(117, 0, -3)]
    body = canonical_bytes({"event_ids": wanted})
    return open_store(cell.environ["FP_LEARNING_URL"]).put("training/eval_rows.json", body), wanted


def promote(
    cell: Cell, header: RunHeader, bundle: BundleRef, beside: BundleRef, eval_rows: EvidenceRef
) -> None:  # fmt: skip
    """Publish, approve, name the challenger, promote, roll back and promote again, as ofs_trigger would."""
    times = registry.switch_times(TWO_WINDOWS)
    assert times is not None
    common = {"scope": registry.scope_of(header), "at_us": 1}
    by = {**common, "bundle": bundle, "actor": "bo"}
    offered = registry.BundlePublished.model_validate(
        {
            **common, "bundle": bundle, "feature_set": "core.v1", "feature_schema_digest": CORE_V1.schema_digest,
            "policy_rev": "spine-v1", "capabilities": ("family:logistic",), "dataset_fingerprint": "d" * 64,
            "eval_report": EvidenceRef(key="e/r", sha256="d" * 64, size=1), "requester": "ana",
            "eval_rows": eval_rows,
        }
    )  # fmt: skip
    named = registry.BundleChallengerNamed.model_validate(
        {**by, "bundle": beside, "previous": None, "challenger_revision": 1, "effective_us": times.promote_us}
    )
    activate, back = registry.BundlePromotedActive.model_validate, registry.BundleRolledBack.model_validate
    events = (
        offered, registry.BundleApproved.model_validate({**by, "requester": "ana"}),
        offered.model_copy(update={"bundle": beside, "eval_rows": None}), named,
        activate({**by, "previous": None, "revision": 1, "effective_us": times.promote_us}),
        back({**by, "bundle": None, "previous": bundle, "revision": 2, "effective_us": times.rollback_us,
              "reason": "drill"}),
        activate({**by, "previous": None, "revision": 3, "effective_us": times.repromote_us}),
    )  # fmt: skip
    slot, pins = registry.FRAUD_SLOT, controllog.header_pins(header)
    part = partition_of(slot, topics.TOPICS[topics.REGISTRY_EVENTS].partitions)
    bodies = [body_of(pins, event.type, registry.registry_event_id(event), 1, "test", event) for event in events]
    cell.write([Out(topics.REGISTRY_EVENTS, part, slot.encode(), body, b"") for body in bodies])


def test_a_bundle_takes_over_where_it_is_pinned_whatever_is_killed_and_p9_stays_on_window_1(
    cell: Cell, tmp_path: Path
) -> None:
    cell.environ["FP_LEARNING_URL"] = (tmp_path / "learning").as_uri()
    cell.left = {"df-0": ["df.before_commit", "df.after_commit"]}
    header = pin(cell, config_of(scope="full", windows=TWO_WINDOWS, policy_switches=()))
    cell.write([*auth_requests(), *sample.world(sample.Feed(controllog.header_pins(header)), COUNT, END_US)])
    for instance in ("actuator-0", "df-0", "actions-0"):
        cell.start(instance)
    close_upstream(cell, header)
    cell.wait(lambda: cell.state().state_of("P9") != "OPEN", "P9 closes")
    attempt = cell.state().attempts["P9"]
    assert attempt.event is not None
    assert [check for check in attempt.event.checks if not check.ok] == []
    assert attempt.state == "PASS"
    assert len(cell.read(topics.RTDL, Kind.DECISION)) == 120  # held there: one payment a second
    assert cell.state().bundles == ()
    bundle, beside, (eval_rows, wanted) = put_bundle(cell), put_bundle(cell, "beside", 0.4), put_eval_rows(cell)
    cell.running["df-0"].kill()
    promote(cell, header, bundle, beside, eval_rows)
    cell.wait(lambda: len(cell.state().bundles) == 18, "three reports of six partitions")
    cell.wait(lambda: len(cell.read(topics.RTDL, Kind.DECISION)) == COUNT, "window 2 is decided")
    reports = cell.state().bundles
    ref = registry.bundle_text(bundle)
    assert {(e.revision, e.bundle_ref, e.source) for e in reports} == {
        (1, ref, "global"), (2, None, "guardrails"), (3, ref, "global"),
    }  # fmt: skip
    assert sum(e.merged_n for e in reports if e.revision == 1) == 120
    _check_scored(cell, header, ref)
    _check_beside(cell, bundle, beside, wanted)


def _check_beside(cell: Cell, bundle: BundleRef, beside: BundleRef, wanted: list[str]) -> None:
    """The challenger's scores are its own and decide nothing; df answered for the evaluation of the bundle."""
    models = Models(lambda: open_store(cell.environ["FP_LEARNING_URL"]))
    decided = [(unpack(record.header).order_us, orjson.loads(record.value)["payload"])
               for record in cell.read(topics.RTDL, Kind.DECISION)]  # fmt: skip
    vectors = {
        one["source_event"]["event_id"]: unpack_vector(vector_bytes(one["feature_vector"])) for _, one in decided
    }
    told = {one["source_event"]["event_id"]: one["shadow"] for at, one in decided if at >= T1}
    assert len(told) == COUNT - 120
    scored = models.score(beside, [vectors[event_id] for event_id in told])
    assert [[(entry["bundle_ref"], entry["score"], entry["action"])] for (entry,) in told.values()] == [
        [(registry.bundle_text(beside), vector_text(pack_vector((one.score,))), one.action.value)]
        for one in scored if one.score is not None
    ]  # fmt: skip
    assert {tuple(one["shadow"]) for at, one in decided if at < T1} == {()}
    (answer,) = cell.state().rescored
    scores = [one.score for one in models.score(bundle, [vectors[event_id] for event_id in wanted])]
    assert (answer.bundle_id, answer.rows, answer.missing, answer.reason) == (bundle.bundle_id, len(wanted), 0, "")
    assert answer.scores_sha256 == hashlib.sha256(pack_vector([one for one in scores if one is not None])).hexdigest()


@dataclass
class Meanwhile:
    """A consumer; while topics are read, another process commits one more audit row."""

    inner: Any
    cell: Cell

    def ends(self, places: Any) -> Any:
        with connect(self.cell.settings.pg_dsn, "test-meanwhile") as conn:
            conn.execute(
                "INSERT INTO df.audit (run, chain, chain_seq, kind, decision_id, prev_hash, record_hash)"
                " SELECT run, 'OUTCOME:0', 1000000, 'OUTCOME', decision_id, fingerprint, fingerprint"
                " FROM df.decision WHERE n = 1 LIMIT 1"
            )
        return self.inner.ends(places)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def everything_recorded(cell: Cell) -> bool:
    """Whether every committed record has its publish fact: they come up to 0.1 s later (ADR 9)."""
    with connect(cell.settings.pg_dsn, "test-outbox") as conn:
        sources = [f"{stage}:{part}" for stage in ("df", "al") for part in range(6)]
        return not any(outbox.unpublished(conn, RUN, source, 1) for source in sources)


def _check_scored(cell: Cell, header: RunHeader, ref: str) -> None:
    """Every decision of window 2 by what was in force, R1 equal.

    P9, evaluated again, counts window 1 alone, at one moment whatever is committed meanwhile.
    """
    records, plan = cell.read(topics.RTDL, Kind.DECISION), plan_of(header, policies())
    payloads = [(unpack(record.header).order_us, orjson.loads(record.value)["payload"]) for record in records]
    assert {payload["bundle_ref"] for at, payload in payloads if at < T1} == {None}
    assert sum(payload["bundle_ref"] == ref for _, payload in payloads) > 60
    models = Models(lambda: open_store(cell.environ["FP_LEARNING_URL"]))
    cell.wait(lambda: everything_recorded(cell), "the last publish facts are recorded")
    state, consumer = cell.state(), kafka.open_consumer(cell.settings, "test.facts")
    with connect(cell.settings.pg_dsn, "test-facts") as conn:
        truths = {part: Truth.from_bytes(at.n, at.doc) for part, at in progress.load_all(conn, RUN, STAGE).items()}
        found = facts.gather(conn, Meanwhile(consumer, cell), state, policies(), models)
    consumer.close()
    replay = Replay(RUN, plan.switches, served_of(plan, truths), models)
    for record in records:
        replay.take(record.value)
    replay.close()
    assert (replay.replayed, replay.unequal) == (COUNT, 0)
    assert found.row_decisions == found.topic_decisions == found.replayed == found.topic_auth_requests == 120
    assert set(found.by_posture) <= {"GUARDRAILS_ONLY", "DEGRADED_CONTEXT"}
    assert [check.name for check in evaluate_p9(found).predicates if not check.ok] == []
