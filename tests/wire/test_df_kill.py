"""df, its action layer and the actuator as real processes on real servers: killed anywhere, P9 closes.

In a full run df is held where a bundle takes over, scores from there on and reports it; P9 stays on window 1.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fp_contracts import registry, topics
from fp_contracts.bundle import BundleManifest, BundleRef
from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import BudgetPosture, EvidenceRef, PolicyActivated
from fp_contracts.derive import vector_bytes, vector_text
from fp_contracts.header import Header, Kind, pack, unpack
from fp_contracts.ids import run_tag
from fp_contracts.partition import partition_of
from fp_contracts.records import body_of
from fp_contracts.runconfig import PolicySwitch, RunConfig, RunHeader, Window
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
from fp_runtime.bus import Out, Record
from fp_runtime.evidence import open_store, ref_of
from fp_runtime.postgres import connect

from . import cell as cells
from .cell import RUN, Cell, free_port, new_cell, now_us

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
PARTS = topics.pinned("local")[topics.RTDL].partitions
COUNT = 240
END_US = sample.START_US + COUNT * 1_000_000 + 1
SWITCH_US = sample.START_US + 150 * 1_000_000
KILLS = {
    "df-0": ["df.before_commit", "df.after_commit", "df.after_publish"],
    "actions-0": ["al.after_call", "al.after_commit"],
}


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    port = free_port()
    made = new_cell(
        stack, database, topic_prefix, tmp_path, ("df",), FP_ACTUATOR_PORT=str(port),
        FP_ACTUATOR_FILE=str(tmp_path / "effects.db"), FP_ACTUATOR_URL=f"http://127.0.0.1:{port}",
        FP_LEARNING_URL=(tmp_path / "learning").as_uri(),
    )  # fmt: skip
    yield made
    made.stop()


def arm(cell: Cell, kills: dict[str, list[str]]) -> None:
    """Each start of an instance dies at the next of its failpoints, until none is left."""
    cell.left = {name: [f"{point}:kill:1" for point in points] for name, points in kills.items()}


def read(cell: Cell, topic: str, kind: Kind) -> list[Record]:
    """Records of a kind without repeats: the same (source, seq) must come with the same bytes, and none may miss."""
    found = dict[tuple[int, str, int], Record]()
    for record in cell.read(topic):
        header = unpack(record.header)
        if header.kind is kind:
            known = found.setdefault((record.partition, header.source, header.seq), record)
            assert (known.value, known.header) == (record.value, record.header)
    seqs: dict[tuple[int, str], int] = {}
    for part, source, seq in found:
        seqs[part, source] = max(seqs.get((part, source), 0), seq)
    if kind is not Kind.ACTION_OUTCOME:
        assert sum(seqs.values()) == len(found), "a gap"
    return list(found.values())


def config_of(**changed: Any) -> RunConfig:
    """A spine run with one policy switch, unless changed."""
    base: dict[str, Any] = {
        "windows": (Window(start_us=sample.START_US, end_us=END_US),),
        "feature_schema_digest": CORE_V1.schema_digest,
        "policies": {rev: found for rev, (_, found) in policies().items()}, "policy_initial": "spine-v1",
        "policy_switches": (PolicySwitch(policy_rev="spine-v0", effective_us=SWITCH_US),),
    }  # fmt: skip
    return cells.config_of(**(base | changed))


def pin(cell: Cell, config: RunConfig) -> RunHeader:
    """Pin a run, as sr would, and give it a budget posture."""
    pinned = cell.pin(config)
    cell.tell(pinned, BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=now_us()))
    return pinned


def feed_of(header: RunHeader) -> sample.Feed:
    """What rtdl would write in this run."""
    return sample.Feed(controllog.header_pins(header), header.partitions(topics.RTDL))


def auth_requests() -> list[Out]:
    """The AUTH_REQUESTs behind the snapshots: only their headers are counted."""
    tag = run_tag(RUN)
    return [
        Out(topics.TRAFFIC, 0, b"m", b"{}", pack(Header(Kind.AUTH_REQUEST, tag, "ig-0", number + 1, at_us)))
        for number, at_us in enumerate(range(sample.START_US, END_US - 1, 1_000_000))
    ]


def close_upstream(cell: Cell, header: RunHeader) -> None:
    """Say that the window ended and P8 passed, as wsp and rtdl would."""
    cell.tell_window_ended(header)
    cell.tell_passed(header, "P8")


def test_killed_anywhere_every_payment_is_decided_once_and_every_action_done_once(cell: Cell) -> None:
    arm(cell, KILLS)
    header = pin(cell, config_of())
    lines = list(sample.world(feed_of(header), COUNT, END_US))
    rng = random.Random(2)
    copies = [line for line in lines[:200] if line.value and rng.random() < 0.1]  # rtdl was restarted, too
    cell.write(auth_requests())
    for instance in ("actuator-0", "df-0", "actions-0"):
        cell.start(instance)
    for start in range(0, len(lines), 80):
        cell.write(lines[start : start + 80])
        cell.revive()
    cell.write(copies)
    cell.wait(lambda: read(cell, topics.RTDL, Kind.DECISION), "decisions before the switch")
    cell.wait(lambda: not cell.left["df-0"], "df is killed until nothing is left")
    cell.tell(header, PolicyActivated(policy_rev="spine-v0", effective_us=SWITCH_US, actor="test"), "spine-v0")
    close_upstream(cell, header)
    cell.wait(lambda: cell.state(header).state_of("P9") != "OPEN", "P9 closes")
    attempt = cell.state(header).attempts["P9"]
    assert attempt.event is not None
    assert [check for check in attempt.event.checks if not check.ok] == []
    assert attempt.state == "PASS"
    assert sorted(cell.killed) == sorted(name for name, points in KILLS.items() for _ in points)
    assert sum(event.merged_n for event in cell.state(header).switched) == 150  # one payment a second
    assert {event.partition for event in cell.state(header).switched} == set(range(PARTS))
    _check_records(cell, header)
    _check_effects(cell)


def _check_records(cell: Cell, header: RunHeader) -> None:
    """What lies on the bus: one decision a payment, equal when evaluated again, in chains that recompute."""
    decisions = read(cell, topics.RTDL, Kind.DECISION)
    sources = [orjson.loads(record.value)["payload"]["source_event"]["event_id"] for record in decisions]
    assert sorted(sources) == sorted(f"auth-{number}" for number in range(COUNT))
    replay = Replay(RUN, plan_of(header, policies()).switches)
    for record in decisions:
        replay.take(record.value)
    assert (replay.replayed, replay.unequal) == (COUNT, 0)
    links = [orjson.loads(record.value)["payload"] for record in read(cell, topics.AUDIT, Kind.AUDIT_RECORD)]
    assert sum(link["kind"] == "DECIDED" for link in links) == COUNT
    for name in {link["chain"] for link in links}:
        assert audit.chain_break(RUN, name, [link for link in links if link["chain"] == name]) is None
    outcomes = [orjson.loads(record.value)["payload"] for record in read(cell, topics.RTDL, Kind.ACTION_OUTCOME)]
    assert sorted(outcome["action_id"] for outcome in outcomes) == sorted(replay.actions)
    assert {outcome["status"] for outcome in outcomes} == {"EXECUTED"}


def _check_effects(cell: Cell) -> None:
    """The actuator's own store: one effect per action, and al.after_call really asked twice."""
    totals = httpx.get(f"{cell.environ['FP_ACTUATOR_URL']}/v1/effects").json()
    with cell.open() as conn:
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


def test_a_bundle_takes_over_where_it_is_pinned_whatever_is_killed_and_p9_stays_on_window_1(cell: Cell) -> None:
    arm(cell, {"df-0": ["df.before_commit", "df.after_commit"]})
    header = pin(cell, config_of(scope="full", windows=TWO_WINDOWS, policy_switches=()))
    cell.write([*auth_requests(), *sample.world(feed_of(header), COUNT, END_US)])
    for instance in ("actuator-0", "df-0", "actions-0"):
        cell.start(instance)
    close_upstream(cell, header)
    cell.wait(lambda: cell.state(header).state_of("P9") != "OPEN", "P9 closes")
    attempt = cell.state(header).attempts["P9"]
    assert attempt.event is not None
    assert [check for check in attempt.event.checks if not check.ok] == []
    assert attempt.state == "PASS"
    assert len(read(cell, topics.RTDL, Kind.DECISION)) == 120  # held there: one payment a second
    assert cell.state(header).bundles == ()
    bundle, beside, (eval_rows, wanted) = put_bundle(cell), put_bundle(cell, "beside", 0.4), put_eval_rows(cell)
    cell.running["df-0"].kill()
    promote(cell, header, bundle, beside, eval_rows)
    reports_due = 3 * PARTS
    cell.wait(lambda: len(cell.state(header).bundles) == reports_due, "three reports of every partition")
    cell.wait(lambda: len(read(cell, topics.RTDL, Kind.DECISION)) == COUNT, "window 2 is decided")
    reports = cell.state(header).bundles
    ref = registry.bundle_text(bundle)
    assert {(e.revision, e.bundle_ref, e.source) for e in reports} == {
        (1, ref, "global"), (2, None, "guardrails"), (3, ref, "global"),
    }  # fmt: skip
    assert sum(e.merged_n for e in reports if e.revision == 1) == 120
    _check_scored(cell, header, ref)
    _check_beside(cell, header, bundle, beside, wanted)


def _check_beside(cell: Cell, header: RunHeader, bundle: BundleRef, beside: BundleRef, wanted: list[str]) -> None:
    """The challenger's scores are its own and decide nothing; df answered for the evaluation of the bundle."""
    models = Models(lambda: open_store(cell.environ["FP_LEARNING_URL"]))
    decided = [(unpack(record.header).order_us, orjson.loads(record.value)["payload"])
               for record in read(cell, topics.RTDL, Kind.DECISION)]  # fmt: skip
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
    (answer,) = cell.state(header).rescored
    scores = [one.score for one in models.score(bundle, [vectors[event_id] for event_id in wanted])]
    assert (answer.bundle_id, answer.rows, answer.missing, answer.reason) == (bundle.bundle_id, len(wanted), 0, "")
    assert answer.scores_sha256 == hashlib.sha256(pack_vector([one for one in scores if one is not None])).hexdigest()


@dataclass
class Meanwhile:
    """A consumer; while topics are read, another process commits one more audit row."""

    inner: Any
    cell: Cell

    def ends(self, places: Any) -> Any:
        with connect(self.cell.dsn("df"), "test-meanwhile") as conn:
            conn.execute(
                "INSERT INTO df.audit (run, chain, chain_seq, kind, decision_id, prev_hash, record_hash)"
                " SELECT run, 'OUTCOME:0', 1000000, 'OUTCOME', decision_id, fingerprint, fingerprint"
                " FROM df.decision WHERE n = 1 LIMIT 1"
            )
        return self.inner.ends(places)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def everything_recorded(cell: Cell) -> bool:
    """Whether every action has its outcome and every committed record its publish fact, up to 0.25 s later (ADR 9)."""
    with connect(cell.dsn("df"), "test-outbox") as conn:
        row = conn.execute(
            "SELECT (SELECT sum(intents) FROM df.decision) - (SELECT count(*) FROM df.outcome)"
        ).fetchone()
        sources = [f"{stage}:{part}" for stage in ("df", "al") for part in range(PARTS)]
        return row == (0,) and not any(outbox.unpublished(conn, RUN, source, 1) for source in sources)


def _check_scored(cell: Cell, header: RunHeader, ref: str) -> None:
    """Every decision of window 2 by what was in force, R1 equal.

    P9, evaluated again, counts window 1 alone, at one moment whatever is committed meanwhile.
    """
    records, plan = read(cell, topics.RTDL, Kind.DECISION), plan_of(header, policies())
    payloads = [(unpack(record.header).order_us, orjson.loads(record.value)["payload"]) for record in records]
    assert {payload["bundle_ref"] for at, payload in payloads if at < T1} == {None}
    assert sum(payload["bundle_ref"] == ref for _, payload in payloads) > 60
    models = Models(lambda: open_store(cell.environ["FP_LEARNING_URL"]))
    cell.wait(lambda: everything_recorded(cell), "the last publish facts are recorded")
    state, consumer = cell.state(header), kafka.open_consumer(cell.settings(), "test.facts")
    with connect(cell.dsn("df"), "test-facts") as conn:
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
