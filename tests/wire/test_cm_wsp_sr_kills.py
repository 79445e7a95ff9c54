"""sr, wsp and cm_ls as processes on real Kafka and PostgreSQL, killed where it hurts most."""

import hashlib
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fp_cm_ls import facts
from fp_cm_ls.gates import evaluate_p10
from fp_contracts import control as c
from fp_contracts import derive
from fp_contracts.canonical import trusted_bytes
from fp_contracts.downstream import ActionOutcome, CaseTrigger
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.header import Header, Kind, pack, unpack
from fp_contracts.ids import h32, run_tag
from fp_contracts.records import body_of
from fp_contracts.runconfig import RunConfig, RunHeader, Window, config_digest
from fp_contracts.topics import CASE_TRIGGERS, LABELS, RTDL
from fp_ig.gateway import KafkaBus
from fp_ig.proof import Committed
from fp_ig.settings import IgSettings
from fp_operator.stack import StackAddresses
from fp_operator.worlds.samples import tiny_world
from fp_runtime import controllog
from fp_runtime.bus import Out
from fp_runtime.deadline import until
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer, open_producer
from fp_runtime.postgres import Connection, connect
from fp_runtime.tokens import Claims, issue, parse_keys
from fp_wsp.world import whole_window

from .cell import END_US, HEX, KEYS, REF, RUN, T0_US, Cell, config_of, free_port, gate_passed, new_cell

pytestmark = pytest.mark.stack

SECOND = "platform_20260101T000001Z"


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    ig_port, cm_port = free_port(), free_port()
    made = new_cell(
        stack, database, topic_prefix, tmp_path, ("sr", "wsp", "ig", "cm_ls"),
        FP_IG_URL=f"http://127.0.0.1:{ig_port}", FP_CM_URL=f"http://127.0.0.1:{cm_port}", FP_CM_PORT=str(cm_port),
        FP_AUTHORITY_DIGEST=HEX, FP_HANDLES_DIGEST=HEX, FP_GATE_WAIT_S="10",
    )  # fmt: skip
    yield made
    made.stop()


def dies(process: "subprocess.Popen[bytes]") -> None:
    assert process.wait(60) == -signal.SIGKILL


def tell(cell: Cell, header: RunHeader, *events: controllog.Event) -> None:
    for payload, salt in events:
        cell.tell(header, payload, *salt)


def broken(evaluation: Evaluation) -> list[str]:
    return [f"{p.name}: {p.observed}, required {p.required}" for p in evaluation.predicates if not p.ok]


def adjudicate(cell: Cell, first_seq: int, lines: Sequence[bytes], frontier_us: int) -> list[list[str]] | None:
    """One batch; None when there was no answer or no class yet."""
    claims = Claims(kid="k1", sub="wsp", run=RUN, classes=("adjudication",), exp_us=2**62)
    headers = {
        "Authorization": f"Bearer {issue(parse_keys(KEYS), claims)}", "Fp-Run": RUN, "Fp-Lane-Seq": str(first_seq),
        "Fp-Frontier": str(frontier_us),
    }  # fmt: skip
    url = f"{cell.environ['FP_CM_URL']}/v1/adjudications"
    try:
        response = httpx.post(url, content=b"\n".join(lines), headers=headers, timeout=30)
    except httpx.TransportError:
        return None
    found: list[list[str]] | None = response.json().get("classes") if response.status_code == 200 else None
    return found


def label(n: int) -> bytes:
    at_us = T0_US + n
    value = ("fraud_disposition", "EXTERNAL", "a", "FRAUD_CONFIRMED", at_us)
    subject = {"platform_run_id": RUN, "event_id": f"e{n}", "merchant_id": f"m{n}", "account_id": None}
    return trusted_bytes(
        {
            "assertion_id": derive.assertion_id(RUN, f"e{n}", *value), "subject": subject, "label_type": value[0],
            "label_value": value[3], "effective_us": T0_US, "observed_us": at_us, "source": value[1], "actor": "a",
            "evidence_refs": [],
        }
    )  # fmt: skip


def escalated(header: RunHeader, n: int) -> list[Out]:
    """A trigger and the outcome of its decision, as df publishes them; one source each, all in partition 0."""
    pins, tag = controllog.header_pins(header), run_tag(RUN)
    case, decision, event_us = h32("case", str(n)), h32("d", str(n)), T0_US + n
    trigger = CaseTrigger(
        case_id=case, trigger_id=h32("t", str(n)), trigger_type="DECISION_ESCALATION", decision_id=decision,
        source_event_id=f"e{n}", flow_id="f", account_id="a", merchant_id=f"m{n}", event_us=event_us, amount_minor=5,
        currency="EUR", action="REVIEW", reason_codes=(), intents=1,
    )  # fmt: skip
    outcome = ActionOutcome(
        action_id=h32("o", str(n)), decision_id=decision, account_id="a", flow_id="f", source_event_id=f"e{n}",
        kind="HOLD_FOR_REVIEW", idempotency_key="k", origin="DF", status="EXECUTED", attempts=1, reason=None,
    )  # fmt: skip
    outs = []
    for topic, kind, source, payload, name in (
        (RTDL, Kind.ACTION_OUTCOME, "al:0", outcome, "action_outcome"),
        (CASE_TRIGGERS, Kind.CASE_TRIGGER, "df:0", trigger, "case_trigger"),
    ):
        body = body_of(pins, name, h32(name, str(n)), event_us, "df", payload)
        head = pack(Header(kind, tag, source, n + 1, event_us, hashlib.sha256(body).digest()))
        outs.append(Out(topic, 0, b"a", body, head))
    return outs


@pytest.mark.parametrize("failpoint", ["cm_ls.after_commit:kill:2", "cm_ls.before_commit:kill:2"])
def test_labels_and_cases_survive_a_kill(cell: Cell, failpoint: str) -> None:
    """Killed around the second commit of either loop: one label per assertion, dense sequences and timelines, P10."""
    header = cell.pin(config_of())
    lines = [label(n) for n in range(30)]
    doomed = cell.start("cm_ls-0", failpoint)
    assert until(lambda: adjudicate(cell, 1, lines[:10], T0_US), 60, "cm_ls answers") is not None
    cell.write(escalated(header, 0) + escalated(header, 5))
    cell.write([out for n in (1, 2, 3, 4) for out in escalated(header, n)] + escalated(header, 5))
    dies(doomed)
    cell.start("cm_ls-0")
    for first, last, frontier_us in ((11, 20, T0_US), (11, 30, END_US), (1, 30, END_US)):
        batch = partial(adjudicate, cell, first, lines[first - 1 : last], frontier_us)
        classes = until(batch, 60, "every line has its class")
        assert [name for name, _ in classes] == ["ACCEPTED"] * (last - first + 1)
    seqs: dict[int, list[int]] = {}
    for record in cell.read(LABELS):
        found = unpack(record.header)
        if found.kind is Kind.LABEL_ASSERTION:
            seqs.setdefault(record.partition, []).append(found.seq)
    assert sum(map(len, map(set, seqs.values()))) == 30
    assert all(sorted(set(found)) == list(range(1, max(found) + 1)) for found in seqs.values())
    ended = c.WindowEnded(window=1, lane_seqs={str(header.config.lanes): 30}, ledger_ref=REF)
    state = RunState(RUN, header=header, windows_ended={1: ended})

    def proven() -> Evaluation | None:
        consumer = open_consumer(cell.settings(), "fp.proof")
        with cell.open() as conn:
            evaluation = evaluate_p10(facts.gather(conn, consumer, state))
        consumer.close()
        return evaluation if evaluation.settled() else None

    proof = until(proven, 60, "P10 is settled", interval_s=0.2)
    assert broken(proof) == []
    kinds = {"CASE_TRIGGERED": 6, "ACTION_INTENT_REQUESTED": 6, "ACTION_OUTCOME_ATTACHED": 6, "LABEL_ACCEPTED": 6}
    assert proof.documents["closure"]["entries_by_kind"] == kinds


def test_a_producer_killed_after_sending_loses_and_doubles_nothing(cell: Cell) -> None:
    """wsp dies between a reply and its taking in; the next one sends again and every equation of P7 holds."""
    manifest = tiny_world(cell.url("oracle"))
    start_us, end_us = whole_window(manifest)
    window = Window(start_us=start_us, end_us=end_us)
    header = cell.pin(config_of(manifest_fingerprint=manifest.fingerprint, windows=(window,)))
    cell.tell(header, c.RunReady(ready_id=h32("ready")))
    cell.start("ig-0")
    cell.start("cm_ls-0")
    doomed = cell.start("wsp-0", "wsp.after_send:kill:4")
    dies(doomed)
    cell.start("wsp-0")

    def ended() -> c.WindowEnded | None:
        found = [payload for _, payload in cell.control(RUN) if isinstance(payload, c.WindowEnded)]
        return found[0] if found else None

    last = until(ended, 60, "the window has ended", interval_s=0.3)
    state = RunState(RUN, header=header, windows_ended={1: last})
    settings = IgSettings(
        instance="ig-0", kafka_bootstrap=cell.stack.kafka_bootstrap, pg_dsn=cell.dsn("ig"),
        evidence_url=cell.url("evidence"), topic_prefix=cell.prefix, producer_keys=KEYS,
        ig_url=cell.environ["FP_IG_URL"],
    )  # fmt: skip
    proof = Committed(KafkaBus(settings), partial(connect, settings.pg_dsn, "proof"), lambda: 0).evaluate(state)
    assert broken(proof) == []
    summary = proof.documents["receipt_summary"]
    adjudications = last.lane_seqs[str(header.config.lanes)]
    assert summary["sent"] == sum(last.lane_seqs.values()) - adjudications
    assert summary["sent"] == summary["admitted"] + summary["duplicate"] + summary["quarantined"] > 2_000
    with cell.open() as conn:
        lane = conn.execute("SELECT last_lane_seq, frontier_us FROM cm.label_lane").fetchone()
        saved = conn.execute(
            "SELECT sum(v.value::bigint)::bigint FROM wsp.lane, jsonb_each_text(counts) v WHERE lane < %s",
            (header.config.lanes,),
        ).fetchone()
    assert lane == (adjudications, end_us)
    assert saved == (summary["sent"],)
    ledger = orjson.loads(open_store(settings.evidence_url).get(last.ledger_ref.key))
    assert ledger["declared"]["sent"] == summary["sent"]


def test_window_2_waits_for_a_promotion_and_p7_stays_on_window_1(cell: Cell) -> None:
    """All partitions but one on the bundle begin nothing, the last does; then lanes go on with their last sequences."""
    manifest = tiny_world(cell.url("oracle"))
    start_us, end_us = whole_window(manifest)
    turn_us = start_us + (end_us - start_us) * 3 // 4
    windows = (Window(start_us=start_us, end_us=turn_us), Window(start_us=turn_us, end_us=end_us))
    header = cell.pin(config_of(manifest_fingerprint=manifest.fingerprint, windows=windows, scope="full"))
    cell.tell(header, c.RunReady(ready_id=h32("ready")))
    for service in ("ig", "cm_ls", "wsp"):
        cell.start(f"{service}-0")

    def said(kind: type[c.ControlPayload], at_least: int) -> list[Any] | None:
        found = [payload for _, payload in cell.control(RUN) if isinstance(payload, kind)]
        return found if len(found) >= at_least else None

    def beats() -> int:
        return sum(beat.instance == "wsp-0" for beat in said(c.ServiceHeartbeat, 0) or [])

    (first,) = until(partial(said, c.WindowEnded, 1), 60, "window 1 has ended", interval_s=0.3)
    events = [on_the_bundle(part, turn_us) for part in range(header.partitions(RTDL))]
    tell(cell, header, *events[:-1])
    known = beats()
    until(lambda: beats() > known or None, 30, "wsp lives and has read the log", interval_s=0.5)
    assert said(c.WindowEnded, 2) is None
    with cell.open() as conn:
        assert lines_of(conn) == sum(first.lane_seqs[str(lane)] for lane in range(header.config.lanes))
    tell(cell, header, (gate_passed(RUN, "P11"), ("P11", "1")), events[-1])  # window 2 is read ahead once P11 closed
    first, second = until(partial(said, c.WindowEnded, 2), 60, "window 2 has ended", interval_s=0.3)
    assert all(second.lane_seqs[lane] > seq for lane, seq in first.lane_seqs.items())
    state = RunState(RUN, header=header, windows_ended={1: first, 2: second})
    settings = IgSettings(
        instance="ig-0", kafka_bootstrap=cell.stack.kafka_bootstrap, pg_dsn=cell.dsn("ig"),
        evidence_url=cell.url("evidence"), topic_prefix=cell.prefix, producer_keys=KEYS,
        ig_url=cell.environ["FP_IG_URL"],
    )  # fmt: skip
    proof = Committed(KafkaBus(settings), partial(connect, settings.pg_dsn, "proof"), lambda: 0).evaluate(state)
    assert broken(proof) == []
    sent = sum(first.lane_seqs[str(lane)] for lane in range(header.config.lanes))
    assert proof.documents["receipt_summary"]["sent"] == sent
    with cell.open() as conn:
        assert lines_of(conn) == sum(second.lane_seqs[str(lane)] for lane in range(header.config.lanes)) > sent


def on_the_bundle(part: int, effective_us: int) -> controllog.Event:
    """A df partition's report that the promoted bundle decides."""
    event = c.BundleSwitched(
        bundle_slot="payment_fraud", revision=1, bundle_ref="bundle:x", source="global", effective_us=effective_us,
        partition=part, merged_n=1,
    )  # fmt: skip
    return event, ("payment_fraud", "1", str(part))


def lines_of(conn: Connection) -> int:
    """Lines that the gateway has classed."""
    row = conn.execute("SELECT count(*) FROM ig.line").fetchone()
    assert row is not None
    return int(row[0])


def ask(cell: Cell, run: str, config: RunConfig) -> None:
    """A pin request with the gates of P(-1) and P0, as the operator publishes them."""
    request = c.RunPinRequested(scenario_run_id=h32("scenario", run), config=config, actor="tester")
    pins = controllog.pins_of(RunState(run, pin_request=request))
    gates: list[controllog.Event] = [(gate_passed(run, key), (key, "1")) for key in ("P(-1)", "P0")]
    producer = open_producer(cell.settings())
    controllog.publish(producer, pins, [(request, ()), *gates], "fp", T0_US)
    producer.close()


def heard(cell: Cell, run: str, wanted: Callable[[c.ControlPayload], bool]) -> list[tuple[str, c.ControlPayload]]:
    """Events of a run that are wanted, once there is one."""
    return until(
        lambda: [item for item in cell.control(run) if wanted(item[1])] or None, 60, f"{run}: what is wanted of sr"
    )


def closures(payload: c.ControlPayload) -> bool:
    return isinstance(payload, c.GatePassed | c.GateBlocked) and payload.phase == "P1"


def test_a_pin_and_its_gate_survive_kills(cell: Cell) -> None:
    """sr killed behind the header, behind P1's journal row and behind a refusal's: the same words, once by identity."""
    doomed = cell.start("sr-0", "sr.after_header:kill:1")
    ask(cell, RUN, config_of())
    dies(doomed)
    assert [payload for _, payload in cell.control(RUN) if isinstance(payload, c.RunPinned)] == []
    doomed = cell.start("sr-0", "gate.after_journal:kill:1")
    dies(doomed)
    assert [payload for _, payload in cell.control(RUN) if closures(payload)] == []
    with cell.open() as conn:
        event, names, bodies = conn.execute("SELECT event, names, bodies FROM ops.gate_closure").fetchone() or ()
    doomed = cell.start("sr-0", "gate.after_journal:kill:2")
    pins = heard(cell, RUN, lambda payload: isinstance(payload, c.RunPinned))
    gates = heard(cell, RUN, closures)
    assert len({name for name, _ in pins}) == 1
    assert len({payload.model_dump_json() for _, payload in pins}) == 1
    assert [payload.model_dump_json().encode() for _, payload in gates] == [event]
    assert isinstance(gates[0][1], c.GatePassed)
    store = open_store(cell.url("evidence"))
    refs = {ref.key.rpartition("/")[2].removesuffix(".json"): ref.key for ref in gates[0][1].evidence}
    assert {name: store.get(refs[name]) for name in names} == dict(zip(names, bodies, strict=True))
    holder = orjson.loads(store.get(refs["run_lock_receipt"]))["holder"]
    assert (holder["run"], holder["run_config_digest"]) == (RUN, config_digest(config_of()))
    ask(cell, SECOND, config_of())
    dies(doomed)
    assert [payload for _, payload in cell.control(SECOND) if closures(payload)] == []
    cell.start("sr-0")
    ((_, refusal),) = heard(cell, SECOND, closures)
    assert isinstance(refusal, c.GateBlocked)
    assert [(blocker.code, blocker.reason.partition(":")[0]) for blocker in refusal.blockers] == [
        ("DFULL-RUN-B1", "run lock")
    ]
