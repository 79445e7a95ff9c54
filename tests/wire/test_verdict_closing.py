"""Verdict on real servers: its queries, P16 from the real log and objects, and the published verdict verified."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fp_contracts import topics
from fp_contracts.control import AlertFired, GateBlocked
from fp_contracts.fold import RunState
from fp_operator.stack import StackAddresses
from fp_runtime import controllog, gate, meter
from fp_runtime.bus import FetchProfile, Out
from fp_runtime.deadline import until
from fp_runtime.evidence import FileStore
from fp_runtime.kafka import open_admin, open_consumer, open_producer
from fp_runtime.meter import Sample, Usage
from fp_runtime.postgres import Connection, connect, transaction
from fp_runtime.settings import RuntimeSettings
from fp_verdict import adapters, busfacts, spinefacts, windows
from fp_verdict.closing import ClosingDesk, metered_until
from fp_verdict.reading import PageDesk
from fp_verdict.service import Reporter
from fp_verdict.windowdesk import WindowDesk
from fp_verify.bundle import export, load, verify_bundle
from fp_verify.log import RawRecord, read_log
from fp_verify.sample import RUN, GreenRun, make_config, until_p11, until_p15

pytestmark = pytest.mark.stack
NOW_US = 1_800_000_000_000_000


@pytest.fixture
def settings(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(
        instance="verdict-0", kafka_bootstrap=stack.kafka_bootstrap, pg_dsn=database, topic_prefix=topic_prefix,
        evidence_url=f"file://{tmp_path}/evidence",
    )  # fmt: skip


@pytest.fixture
def conn(settings: RuntimeSettings) -> Iterator[Connection]:
    with connect(settings.pg_dsn, "verdict") as connection:
        yield connection


def publish(settings: RuntimeSettings, records: list[RawRecord]) -> None:
    producer = open_producer(settings)
    try:
        place = controllog.partition_of_run(RUN)
        done = producer.publish([Out(topics.CONTROL, place, r.key, r.value, b"") for r in records])
    finally:
        producer.close()
    assert [delivery.offset for delivery in done] == [record.offset for record in records]


def on_the_bus(settings: RuntimeSettings, store: FileStore) -> GreenRun:
    """The synthetic run up to P11, on a fresh control topic and in a real store, its spend metered."""
    admin = open_admin(settings)
    admin.create_topics([topics.CONTROL])
    admin.close()
    run = until_p11(run=GreenRun(first=0, step=1, partition=controllog.partition_of_run(RUN)))
    publish(settings, run.records)
    for key, body in run.objects.items():
        store.put(key, body)
    with connect(settings.pg_dsn, "test") as conn, transaction(conn) as cur:
        meter.add(cur, RUN, [Sample("rtdl-0", "rtdl-0", Usage(), run.metered)])
    return run


def state_of(settings: RuntimeSettings) -> RunState:
    reader = open_consumer(settings, "test", fetch=FetchProfile.CONTROL)
    try:
        return controllog.read_run(reader, RUN, 0)
    finally:
        reader.close()


def test_p16_closes_on_a_verdict_that_a_second_process_recomputes(
    settings: RuntimeSettings, conn: Connection, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "evidence")
    run = on_the_bus(settings, store)
    reader = partial(open_consumer, settings, "fp.verdict", fetch=FetchProfile.BULK)
    state = state_of(settings)
    desk = ClosingDesk(conn, store, reader, lambda: NOW_US)
    assert desk.due(state)
    evaluation = desk.evaluate(state)
    failed = {p.name for p in evaluation.predicates if not p.ok}
    assert failed == {"phases P(-1)–P15", "six-proof matrix"}
    closure = gate.journal(conn, state, "P16", evaluation, NOW_US)
    assert isinstance(closure.event, GateBlocked)
    gate.put_evidence(store, closure, RUN)
    run.say(closure.event, "P16", "1")
    publish(settings, run.records[-1:])
    said = [
        event for event in Reporter(conn, store, PageDesk(store), "verdict-0", lambda: NOW_US).react(state_of(settings))
        if event[0].type == "verdict_published"
    ]  # fmt: skip
    assert len(said) == 1
    run.say(said[0][0], *said[0][1])
    publish(settings, run.records[-1:])
    _verify(run, store, tmp_path, conn)


def test_p16_names_a_control_record_that_nobody_can_read(
    settings: RuntimeSettings, conn: Connection, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "evidence")
    run = on_the_bus(settings, store)
    known = state_of(settings)
    gate_of_p11 = next(r.value for r in reversed(run.records) if b'"type":"gate_passed"' in r.value)
    odd = RawRecord(len(run.records), RUN.encode(), gate_of_p11.replace(b'"phase":"P11"', b'"phase":"P99"'))
    publish(settings, [odd])
    assert state_of(settings) == known
    reader = partial(open_consumer, settings, "fp.verdict", fetch=FetchProfile.BULK)
    evaluation = ClosingDesk(conn, store, reader, lambda: NOW_US).evaluate(known)
    said = {p.name: p.observed for p in evaluation.predicates if not p.ok}
    assert f"control log, offset {odd.offset}: gate_passed." in said["evidence and gates"]
    assert "FAIL" in said["verdict recomputed by a second process"]


def _verify(run: GreenRun, store: FileStore, tmp_path: Path, conn: Connection) -> None:
    keys = [found.key for found in store.list(f"evidence/runs/{RUN}/")]
    export(RUN, store.get, keys, run.records, tmp_path / "bundle")
    result = verify_bundle(load(tmp_path / "bundle"))
    assert result.mismatches == ()
    assert (result.verdict, result.spine_verdict) == ("BLOCKED", "GREEN")
    assert metered_until(conn, RUN, 10) == run.metered


def test_window_2_is_looked_at_on_real_servers_and_not_judged_before_it_is_merged(
    settings: RuntimeSettings, conn: Connection, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "evidence")
    admin = open_admin(settings)
    admin.create_topics([*topics.DATA, topics.CONTROL])
    admin.close()
    whole = until_p15(run=GreenRun(0, 1, controllog.partition_of_run(RUN), make_config("full")))
    known = [r for r in whole.records if b'"type":"window_reconciled"' not in r.value]
    state = read_log(RUN, known).state
    starts = {name: dict.fromkeys(map(str, range(topics.pinned("local")[name].partitions)), 0) for name in topics.DATA}
    assert state.header is not None
    state = replace(state, header=state.header.model_copy(update={"start_offsets": starts}))
    reader = partial(open_consumer, settings, "fp.verdict", fetch=FetchProfile.BULK)
    desk = WindowDesk(conn, store, FileStore(tmp_path / "archive"), reader, lambda: 0.0)
    assert desk.react(state) == ()  # it looks beside the thread that asks
    facts = until(lambda: desk._looking(state), 60, "it has looked")
    failing = {p.name for p in windows.evaluate(facts) if not p.ok}
    assert failing == {"merged up to", "evidence of P1–P11 read back"}
    assert list(store.list("")) == []


def test_every_alert_is_said_once_and_none_is_read_while_all_are_said(
    conn: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "evidence")
    state = replace(read_log(RUN, until_p11().records).state, alerts=())
    fired = [
        AlertFired(rule="rtdl_stalled", instance=f"rtdl-{n % 2}", observed=n, threshold=1, at_us=n * 1_000_000)
        for n in range(400)
    ]
    for alert in fired:
        adapters.journal_alert(conn, RUN, alert)
    reporter = Reporter(conn, store, PageDesk(store), "verdict-0", lambda: NOW_US)

    def said(heard: tuple[AlertFired, ...]) -> list[AlertFired]:
        events = reporter.react(replace(state, alerts=heard))
        return [event for event, _ in events if isinstance(event, AlertFired)]

    assert said(()) == fired
    assert said(tuple(fired[:-2])) == fired[-2:]
    late = fired[-1].model_copy(update={"at_us": 500})  # the clock was set back by minutes
    adapters.journal_alert(conn, RUN, late)
    assert said(tuple(fired)) == [late]
    monkeypatch.delattr(adapters, "alerts_of")
    assert said((*fired, late)) == []


def test_every_query_of_p11_runs_on_an_empty_database(conn: Connection) -> None:
    counts = spinefacts.row_counts(conn, RUN)
    assert set(counts.values()) == {0}
    assert busfacts.load_objects(conn, RUN) == []
    assert adapters.epochs_of(conn, RUN) == {}
    assert spinefacts.baseline_pack(conn, RUN, "c") is None
    month, spend, as_of_us = adapters.month_spend(conn)
    assert (len(month), spend) == (7, 0)
    assert as_of_us > 0


def test_p11_reads_a_run_from_real_topics_and_appends_governance_once(
    settings: RuntimeSettings, conn: Connection, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "evidence")
    admin = open_admin(settings)
    admin.create_topics(list(topics.DATA))
    admin.close()
    on_the_bus(settings, store)
    state = state_of(settings)
    starts = {name: dict.fromkeys(map(str, range(topics.pinned("local")[name].partitions)), 0) for name in topics.DATA}
    assert state.header is not None
    header = state.header.model_copy(update={"start_offsets": starts})
    state = RunState(**{**{f: getattr(state, f) for f in state.__dataclass_fields__}, "header": header})
    reader = partial(open_consumer, settings, "fp.verdict", fetch=FetchProfile.BULK)
    desk = spinefacts.SpineDesk(conn, store, FileStore(tmp_path / "archive"), reader, lambda: NOW_US)
    first, again = desk.gather(state), desk.gather(state)
    assert first.chain_fault is None
    assert first.governance == again.governance
    assert {entry["kind"] for entry in first.governance} >= {"gate_passed", "run_pinned", "policy_switched"}
    assert first.bus == {"snapshots": 0, "decisions": 0, "outcomes": 0, "audits": 0, "triggers": 0, "labels": 0}
    assert first.truth_breaches == ()
