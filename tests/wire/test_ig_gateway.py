"""The gateway process on real Kafka and PostgreSQL: killed at every failpoint, restarted, and proven by P4 and P7."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fp_contracts import control as c
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.ids import h32
from fp_contracts.ingress import EVENT_CLASSES
from fp_contracts.partition import partition_of
from fp_contracts.runconfig import RunConfig, RunHeader, Window, config_digest
from fp_contracts.topics import CONTROL, INGRESS, TRAFFIC, pinned
from fp_ig.gateway import Gateway, KafkaBus
from fp_ig.proof import Committed
from fp_ig.settings import IgSettings
from fp_operator.stack import StackAddresses
from fp_runtime import controllog
from fp_runtime.deadline import until
from fp_runtime.kafka import open_admin, open_consumer, open_producer
from fp_runtime.postgres import connect, ensure_roles
from fp_runtime.tokens import Claims, issue, parse_keys

pytestmark = pytest.mark.stack

KEYS = "k1:" + "5a" * 32
PASSWORD = "wire-test"
T0_US = 1_767_225_600_000_000  # 2026-01-01
END_US = T0_US + 86_400_000_000
HOUR_US = 3_600_000_000
HEX = "0" * 64
PINNED = pinned("local")
LANES = PINNED[TRAFFIC].partitions


def make_config() -> RunConfig:
    return RunConfig(
        profile="local", scope="spine", lanes=LANES, manifest_fingerprint=hashlib.sha256(b"world").hexdigest(),
        windows=(Window(start_us=T0_US, end_us=END_US),), feature_schema_digest=HEX, policies={"p1": HEX},
        policy_initial="p1", authority_digest=HEX, handles_digest=HEX, image_manifest_digest=HEX,
        price_table_digest=HEX, envelopes=(),
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Run:
    """A pinned run, the processes of its gateway, and a producer that follows the rules of a lane."""

    settings: IgSettings
    owner_dsn: str
    state: RunState
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sent: dict[int, list[bytes]] = field(default_factory=dict)

    @property
    def header(self) -> RunHeader:
        assert self.state.header is not None
        return self.state.header

    def start(self, failpoints: str = "") -> "subprocess.Popen[bytes]":
        """Start the gateway and wait until it serves the run."""
        config = self.settings
        environ = {
            "PATH": os.environ["PATH"], "FP_INSTANCE": config.instance, "FP_KAFKA_BOOTSTRAP": config.kafka_bootstrap,
            "FP_PG_DSN": config.pg_dsn, "FP_EVIDENCE_URL": config.evidence_url, "FP_TOPIC_PREFIX": config.topic_prefix,
            "FP_PRODUCER_KEYS": config.producer_keys, "FP_IG_URL": config.ig_url, "FP_FAILPOINTS": failpoints,
        }  # fmt: skip
        with (self.folder / "ig.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "fp_ig"], env=environ, stdout=log, stderr=log)
        self.processes.append(process)
        until(lambda: self._ready(process), 60, "the gateway serves the run")
        return process

    def _ready(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, (self.folder / "ig.log").read_text()
        try:
            return httpx.get(f"{self.settings.ig_url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def token(self, **changes: Any) -> str:
        run = self.state.platform_run_id
        base = Claims(kid="k1", sub="wsp", run=run, classes=EVENT_CLASSES, exp_us=END_US + HOUR_US * 10**6)
        return issue(parse_keys(KEYS), base.model_copy(update=changes))

    def post(
        self, lane: int, first_seq: int, lines: Sequence[bytes], frontier_us: int = T0_US, token: str | None = None
    ) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {token or self.token()}", "Fp-Run": self.state.platform_run_id,
            "Fp-Lane": str(lane), "Fp-Lane-Seq": str(first_seq), "Fp-Frontier": str(frontier_us),
        }  # fmt: skip
        body = b"\n".join(lines)
        return httpx.post(f"{self.settings.ig_url}/v1/events", content=body, headers=headers, timeout=30)

    def send(self, lane: int, lines: Sequence[bytes], frontier_us: int = T0_US) -> list[list[str]]:
        """One batch as a producer sends it: the same batch again until every line has its class."""
        first_seq = len(self.sent.setdefault(lane, [])) + 1

        def attempt() -> list[list[str]] | None:
            response = self.post(lane, first_seq, lines, frontier_us)
            return response.json()["classes"] if response.status_code == 200 else None

        classes = until(attempt, 60, "every line has its class")
        self.sent[lane] += lines
        return classes

    def prove(self) -> Evaluation:
        """P7 over what was sent."""
        lanes = {str(lane): len(lines) for lane, lines in self.sent.items()}
        ref = c.EvidenceRef(key="k", sha256=HEX, size=0)
        ended = c.WindowEnded(window=1, lane_seqs=lanes, ledger_ref=ref)
        state = RunState(self.state.platform_run_id, header=self.state.header, windows_ended={1: ended})
        attach = partial(connect, self.settings.pg_dsn, "proof")
        return Committed(KafkaBus(self.settings), attach, lambda: 0).evaluate(state)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            process.wait(30)


@pytest.fixture
def topics_made() -> Sequence[str]:
    """Topics of the test's prefix; a test that needs all of them overrides this."""
    return (CONTROL, *INGRESS)


@pytest.fixture
def run(
    stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path, topics_made: Sequence[str]
) -> Iterator[Run]:
    ensure_roles(database, {"fp_ig": PASSWORD})
    dsn = _as_role(stack, database)
    settings = IgSettings(
        instance="ig-0", kafka_bootstrap=stack.kafka_bootstrap, pg_dsn=dsn, evidence_url=f"file://{tmp_path}/evidence",
        topic_prefix=topic_prefix, producer_keys=KEYS, ig_url=f"http://127.0.0.1:{free_port()}",
    )  # fmt: skip
    admin = open_admin(settings)
    admin.create_topics(topics_made)
    admin.close()
    made = Run(settings, database, pin(settings, database), tmp_path)
    yield made
    made.stop()


def _as_role(stack: StackAddresses, database: str) -> str:
    from dataclasses import replace

    return replace(stack, pg_dsn=database).pg_dsn_as("fp_ig", PASSWORD)


def pin(settings: IgSettings, owner_dsn: str) -> RunState:
    """A run pinned as sr does it: the row, then `run_pinned` on the control log."""
    name, config = "platform_20260101T000000Z", make_config()
    part = controllog.partition_of_run(name)
    consumer = open_consumer(settings, "fp.test")
    offset = consumer.ends([(CONTROL, part)])[CONTROL, part]
    starts = {topic.name: {str(p): 0 for p in range(topic.partitions)} for topic in PINNED.values()}
    for (topic, number), end in consumer.ends([(topic, p) for topic in INGRESS for p in range(LANES)]).items():
        starts[topic][str(number)] = end
    consumer.close()
    header = RunHeader(
        platform_run_id=name, scenario_run_id=h32("scenario"), config=config, run_config_digest=config_digest(config),
        start_offsets=starts, lane_writers={str(lane): "ig-0" for lane in range(LANES)}, pinned_us=T0_US,
        pin_partition=part, pin_offset=offset,
    )  # fmt: skip
    with connect(owner_dsn, "test-pin") as conn:
        conn.execute(
            "INSERT INTO sr.run (run, scenario_run_id, run_config_digest, pin_partition, pin_offset, header)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (name, header.scenario_run_id, header.run_config_digest, part, offset, header.model_dump_json().encode()),
        )
    ref = c.EvidenceRef(key="k", sha256=HEX, size=0)
    producer = open_producer(settings)
    said = c.RunPinned(header=header, header_ref=ref)
    controllog.publish(producer, controllog.header_pins(header), [(said, ())], "sr-0", T0_US)
    producer.close()
    return RunState(name, header=header)


@pytest.fixture
def line(run: Run) -> Callable[..., bytes]:
    """line(n, lane): a valid line of that lane; all four types in turn."""
    header = run.header
    merchants = {partition_of(name, LANES): name for name in (f"m-{n}" for n in range(200))}

    def make(n: int, lane: int = 0, **envelope: Any) -> bytes:
        merchant, flow = merchants[lane], f"f-{n // 4}"
        money = {"flow_id": flow, "merchant_id": merchant, "amount_minor": n, "currency": "EUR"}
        ids = {"account_id": "a-1", "instrument_id": "i-1"}
        arrival = {"merchant_id": merchant, "arrival_seq": n // 4 + 1}
        event_type, payload = (
            ("arrival_event", arrival | {"channel": "ECOM", "tz": "UTC", "is_virtual": True}),
            ("arrival_entities", arrival | ids | {"party_id": "p-1"}),
            ("flow_anchor", money | ids | {"arrival_seq": n // 4 + 1}),
            ("traffic", money | {"event_seq": 1, "kind": "AUTH_REQUEST"}),
        )[n % 4]
        doc = {
            "event_id": h32("event", str(lane), str(n)), "event_type": event_type, "schema_version": "v1",
            "ts_utc": f"2026-01-01T00:00:{n % 3600 // 60:02d}.{n:06d}Z", "platform_run_id": header.platform_run_id,
            "scenario_run_id": header.scenario_run_id, "manifest_fingerprint": header.config.manifest_fingerprint,
            "run_config_digest": header.run_config_digest, "producer": "test", "payload": payload,
        }  # fmt: skip
        return orjson.dumps(doc | envelope)

    return make


def broken(evaluation: Evaluation) -> list[str]:
    return [f"{p.name}: {p.observed}, required {p.required}" for p in evaluation.predicates if not p.ok]


FAILPOINTS = ("ig.after_claim", "ig.after_produce", "ig.after_fact", "ig.before_response")


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_kill_at_any_failpoint_loses_and_doubles_nothing(
    run: Run, line: Callable[..., bytes], failpoint: str
) -> None:
    doomed = run.start(f"{failpoint}:kill:2")
    first = [line(n) for n in range(40)]
    assert [name for name, _ in run.send(0, first)] == ["ADMITTED"] * 40
    batch = [*(line(n) for n in range(40, 60)), b"{", line(3), *(line(n) for n in range(60, 70))]
    with pytest.raises(httpx.TransportError):
        run.post(0, 41, batch)
    assert doomed.wait(30) == -signal.SIGKILL
    run.start()
    expected = ["ADMITTED"] * 20 + ["QUARANTINED", "DUPLICATE"] + ["ADMITTED"] * 10
    classes = run.send(0, batch)
    assert [name for name, _ in classes] == expected
    assert run.post(0, 41, batch).json()["classes"] == classes
    run.send(1, [line(n, 1) for n in range(8)], END_US)
    proof = run.prove()
    assert broken(proof) == []
    summary = proof.documents["receipt_summary"]
    assert (summary["sent"], summary["admitted"], summary["duplicate"], summary["quarantined"]) == (80, 78, 1, 1)
    assert proof.documents["quarantine_summary"]["reasons"] == {"NOT_JSON": 1}


def test_what_an_earlier_process_claimed_is_a_duplicate_and_the_rest_of_its_batch_goes_on(
    run: Run, line: Callable[..., bytes]
) -> None:
    first = run.start()
    admitted = run.send(0, [line(n) for n in range(8)])
    first.kill()
    assert first.wait(30) == -signal.SIGKILL
    run.start()
    classes = run.send(0, [line(8), line(3), line(6), line(9)])
    assert [name for name, _ in classes] == ["ADMITTED", "DUPLICATE", "DUPLICATE", "ADMITTED"]
    assert [receipt for _, receipt in classes[1:3]] == [admitted[3][1], admitted[6][1]]
    assert broken(run.prove()) == []


def test_a_batch_over_the_limit_is_split_under_the_same_numbers(run: Run, line: Callable[..., bytes]) -> None:
    run.start()
    lines = [line(n) for n in range(1_001)]
    refused = run.post(0, 1, lines)
    assert (refused.status_code, refused.json()["code"]) == (413, "BATCH_OVER_LIMIT")
    assert refused.headers["content-type"] == "application/problem+json"
    assert len(run.send(0, lines[:500])) == 500
    assert len(run.send(0, lines[500:])) == 501
    again = run.post(0, 401, lines[400:700]).json()["classes"]
    assert {name for name, _ in again} == {"ADMITTED"}
    assert broken(run.prove()) == []


def test_a_new_process_of_the_same_name_fences_the_old_one(run: Run, line: Callable[..., bytes]) -> None:
    old = run.start()
    run.send(0, [line(0)])
    other = Run(run.settings.model_copy(update={"ig_url": f"http://127.0.0.1:{free_port()}"}), run.owner_dsn, run.state,
                run.folder, run.processes, run.sent)  # fmt: skip
    other.start()
    answer = run.post(0, 2, [line(1)])
    assert answer.status_code == 202
    assert old.wait(30) not in (0, None)
    assert other.send(0, [line(1)])[0][0] == "ADMITTED"
    assert broken(other.prove()) == []


def test_principals_are_bound_to_their_claims(run: Run, line: Callable[..., bytes]) -> None:
    run.start()
    run.send(0, [line(0)])
    stranger = run.post(0, 2, [line(0)], token=run.token(sub="stranger"))
    assert stranger.json()["classes"] == [["QUARANTINED", "PRINCIPAL_MISMATCH"]]
    narrow = run.post(0, 3, [line(4)], token=run.token(classes=("traffic_fraud",)))
    assert narrow.json()["classes"] == [["QUARANTINED", "CLASS_NOT_ALLOWED"]]
    pan = line(8, producer="4111111111111111")
    assert run.post(0, 4, [pan]).json()["classes"] == [["QUARANTINED", "PAN_REFUSED"]]
    with connect(run.owner_dsn, "test") as conn:
        kept = conn.execute("SELECT reason, body FROM ig.quarantined ORDER BY lane_seq").fetchall()
    assert kept == [("PRINCIPAL_MISMATCH", line(0)), ("CLASS_NOT_ALLOWED", line(4)), ("PAN_REFUSED", None)]
    run.sent[0] += [line(0), line(4), pan]
    assert broken(run.prove()) == []


def test_p7_sees_a_record_that_nobody_claimed_and_a_claim_that_was_lost(run: Run, line: Callable[..., bytes]) -> None:
    run.start()
    run.send(0, [line(n) for n in range(8)])
    assert broken(run.prove()) == []
    bus = KafkaBus(run.settings)
    with_records = bus.consumer()
    with_records.assign({(INGRESS[3], 0): 0})
    record = until(lambda: next(iter(with_records.poll(1, 1.0)), None), 10, "a record")
    with_records.close()
    from fp_runtime.bus import Out

    producer = bus.producer()
    producer.publish([Out(INGRESS[3], 0, record.key or b"", record.value, record.header)])
    producer.close()
    assert [text.split(":")[0] for text in broken(run.prove())] == ["extra copies"]
    run.sent[0].append(b"never sent")
    assert "sent = admitted + duplicate + quarantined" in [text.split(":")[0] for text in broken(run.prove())]


class TestPreflight:
    """P4 against the running gateway."""

    @pytest.fixture
    def topics_made(self) -> Sequence[str]:
        return tuple(PINNED)

    def test_p4_passes_on_a_ready_gateway_and_names_what_is_missing(self, run: Run) -> None:
        run.start()
        passed = Gateway(run.settings).gates()["P4"](run.state)
        assert passed is not None
        assert broken(passed) == []
        preflight = passed.documents["preflight"]
        assert {name: seen["observed"] for name, seen in preflight["auth"].items()} == {
            "no credential": 401, "wrong key": 401, "expired": 401, "other run": 403, "good": 200,
        }  # fmt: skip
        assert [canary["read_back"] for canary in preflight["canaries"]] == [True] * 4
        elsewhere = run.settings.model_copy(update={"ig_url": f"http://127.0.0.1:{free_port()}"})
        failed = Gateway(elsewhere).gates()["P4"](run.state)
        assert failed is not None
        assert {p.code for p in failed.predicates if not p.ok} == {"DFULL-RUN-B4"}
