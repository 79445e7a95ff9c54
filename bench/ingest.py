"""Admitted events per second and CPU per event of the ingest gateway, through HTTP, on real Kafka and PostgreSQL.

`FP_KAFKA_BOOTSTRAP` and `FP_PG_DSN` (an owner of databases) name the servers; a database and a topic prefix of its own
are used. The lines are made before the clock starts; the first fifth of the batches is warm-up. Prints one JSON line.
"""

import argparse
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import orjson
import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from fp_contracts import control as c
from fp_contracts.ids import h32
from fp_contracts.ingress import EVENT_CLASSES
from fp_contracts.partition import partition_of
from fp_contracts.runconfig import RunConfig, RunHeader, Window, config_digest
from fp_contracts.timestamps import to_text
from fp_contracts.topics import CONTROL, INGRESS, TRAFFIC, pinned
from fp_ig.settings import IgSettings
from fp_runtime import controllog
from fp_runtime.bus import Out
from fp_runtime.deadline import until
from fp_runtime.kafka import open_admin, open_producer
from fp_runtime.postgres import migrate
from fp_runtime.tokens import Claims, issue, parse_keys

RUN, T0_US, HEX, KEYS = "platform_20260101T000000Z-bench", 1_767_225_600_000_000, "0" * 64, "k1:" + "5a" * 32
PINNED = pinned("local")
LANES = PINNED[TRAFFIC].partitions
CONFIG = RunConfig(
    profile="local", scope="spine", lanes=LANES, manifest_fingerprint=hashlib.sha256(b"bench").hexdigest(),
    windows=(Window(start_us=T0_US, end_us=2 * T0_US),), feature_schema_digest=HEX, policies={"p1": HEX},
    policy_initial="p1", authority_digest=HEX, handles_digest=HEX, image_manifest_digest=HEX, price_table_digest=HEX,
    envelopes=(),
)  # fmt: skip


def make_lines(lane: int, count: int) -> list[bytes]:
    """Lines of one lane: the five events of payments, as wide as the sample world's."""
    merchants = [name for name in (f"merchant-{n:05d}" for n in range(600)) if partition_of(name, LANES) == lane]
    digest = config_digest(CONFIG)
    lines = []
    for n in range(count):
        payment, part = divmod(n, 5)
        merchant, seq = merchants[payment % len(merchants)], payment // len(merchants) + 1
        flow = h32("flow", str(lane), str(payment))
        money = {"amount_minor": 1_234 + n, "currency": "USD", "flow_id": flow, "merchant_id": merchant}
        ids = {"account_id": f"account-{n % 9_000:06d}", "instrument_id": f"instrument-{n % 9_000:06d}"}
        event_type, payload = (
            ("arrival_event", {"arrival_seq": seq, "channel": "ECOM", "is_virtual": True, "merchant_id": merchant,
                               "mcc": "5411", "terminal_id": f"terminal-{n % 99}", "tz": "UTC"}),
            ("arrival_entities", {"arrival_seq": seq, "device_id": h32("device", str(n % 7_000)), **ids,
                                  "merchant_id": merchant, "party_id": f"party-{n % 9_000:06d}"}),
            ("flow_anchor", money | ids | {"arrival_seq": seq}),
            ("traffic", money | {"event_seq": 1, "kind": "AUTH_REQUEST"}),
            ("traffic", money | {"event_seq": 2, "kind": "AUTH_RESPONSE", "auth_result": "APPROVED"}),
        )[part]  # fmt: skip
        envelope = {
            "event_id": h32("event", str(lane), str(n)), "event_type": event_type,
            "manifest_fingerprint": CONFIG.manifest_fingerprint, "payload": payload, "platform_run_id": RUN,
            "producer": "wsp", "run_config_digest": digest, "scenario_run_id": h32("scenario"),
            "schema_version": "v1", "traceparent": None, "ts_utc": to_text(T0_US + n * 1_000),
        }  # fmt: skip
        lines.append(orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS))  # canonical, as producers write it
    return lines


def pin(settings: IgSettings, conn: psycopg.Connection[Any]) -> None:
    """Make topics, the run's row and its `run_pinned`."""
    admin = open_admin(settings)
    admin.create_topics((CONTROL, *INGRESS))
    admin.close()
    part = controllog.partition_of_run(RUN)
    header = RunHeader(
        platform_run_id=RUN, scenario_run_id=h32("scenario"), config=CONFIG, run_config_digest=config_digest(CONFIG),
        start_offsets={t.name: {str(p): 0 for p in range(t.partitions)} for t in PINNED.values()},
        lane_writers={str(lane): "ig-0" for lane in range(LANES)}, pinned_us=T0_US, pin_partition=part, pin_offset=0,
    )  # fmt: skip
    conn.execute(
        "INSERT INTO sr.run (run, scenario_run_id, run_config_digest, pin_partition, pin_offset, header)"
        " VALUES (%s, %s, %s, %s, 0, %s)",
        (RUN, header.scenario_run_id, header.run_config_digest, part, header.model_dump_json().encode()),
    )
    producer = open_producer(settings)
    pinned = c.RunPinned(header=header, header_ref=c.EvidenceRef(key="k", sha256=HEX, size=0))
    controllog.publish(producer, controllog.header_pins(header), [(pinned, ())], "sr-0", T0_US)
    producer.close()


class Lane(threading.Thread):
    """One keep-alive connection that sends its batches one after the other."""

    def __init__(self, number: int, bodies: list[tuple[int, int, bytes]], port: int, token: str) -> None:
        super().__init__()
        self.number, self.bodies, self.token = number, bodies, token
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.acked: list[tuple[float, int]] = []
        self.waits_ms: list[float] = []

    def run(self) -> None:
        for first_seq, n, body in self.bodies:
            headers = {"Authorization": f"Bearer {self.token}", "Fp-Lane": str(self.number),
                       "Fp-Lane-Seq": str(first_seq), "Fp-Frontier": str(T0_US)}  # fmt: skip
            began = time.perf_counter()
            status = 0
            while status != 200:
                self.connection.request("POST", "/v1/events", body, headers)
                response = self.connection.getresponse()
                answer, status = response.read(), response.status
                if status not in (200, 202, 429, 503):
                    raise SystemExit(f"lane {self.number}: {status} {answer[:300]!r}")
            classes = orjson.loads(answer)["classes"]
            if any(name != "ADMITTED" for name, _ in classes):
                raise SystemExit(f"lane {self.number}: {classes[:3]}")
            self.waits_ms.append((time.perf_counter() - began) * 1_000)
            self.acked.append((time.perf_counter(), n))


def measure(settings: IgSettings, gateway: psutil.Process, batch: int, events: int, port: int) -> dict[str, Any]:
    """Send everything; figures over what came after the warm-up."""
    claims = Claims(kid="k1", sub="wsp", run=RUN, classes=EVENT_CLASSES, exp_us=2**62)
    token = issue(parse_keys(settings.producer_keys), claims)
    lanes = []
    for number in range(LANES):
        lines = make_lines(number, events // LANES)
        bodies = [(at + 1, len(lines[at : at + batch]), b"\n".join(lines[at : at + batch]))
                  for at in range(0, len(lines), batch)]  # fmt: skip
        lanes.append(Lane(number, bodies, port, token))
    warm = [Lane(lane.number, lane.bodies[: len(lane.bodies) // 5], port, token) for lane in lanes]
    _run(warm)
    for lane in lanes:
        lane.bodies = lane.bodies[len(lane.bodies) // 5 :]
    cpu, began = _cpu_s(gateway), time.perf_counter()
    _run(lanes)
    wall_s, cpu_s = time.perf_counter() - began, _cpu_s(gateway) - cpu
    admitted = sum(n for lane in lanes for _, n in lane.acked)
    waits = sorted(wait for lane in lanes for wait in lane.waits_ms)
    return {
        "admitted": admitted,
        "events_per_s": round(admitted / wall_s),
        "ig_cpu_us_per_event": round(cpu_s / admitted * 1e6, 1),
        "batch_p50_ms": round(waits[len(waits) // 2], 1),
        "batch_p99_ms": round(waits[int(len(waits) * 0.99)], 1),
        "event_bytes": len(lanes[0].bodies[0][2]) // lanes[0].bodies[0][1],
        "load_1m": round(os.getloadavg()[0], 1),
    }


def bare_produce(settings: IgSettings, events: int) -> dict[str, float]:
    """The same bytes in the same batches straight to Kafka: what the ratio is against."""
    producer, lines = open_producer(settings), make_lines(0, events // LANES)
    outs = [Out(INGRESS[3], 0, b"key", line, b"h" * 90) for line in lines]
    producer.publish(outs[:500])
    cpu, began = time.process_time(), time.perf_counter()
    for at in range(0, len(outs), 500):
        producer.publish(outs[at : at + 500])
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - began
    producer.close()
    return {
        "bare_produce_events_per_s": round(len(outs) / wall_s),
        "bare_produce_cpu_us_per_event": round(cpu_s / len(outs) * 1e6, 1),
    }


def _run(lanes: list[Lane]) -> None:
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--events", type=int, default=120_000)
    options = parser.parse_args()
    owner, name = os.environ["FP_PG_DSN"], f"bench_{uuid.uuid4().hex[:8]}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with psycopg.connect(owner, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"')
    dsn = make_conninfo(owner, dbname=name)
    settings = IgSettings(
        instance="ig-0", kafka_bootstrap=os.environ["FP_KAFKA_BOOTSTRAP"], pg_dsn=dsn, evidence_url="file:///tmp",
        topic_prefix=f"b{uuid.uuid4().hex[:8]}.", producer_keys=KEYS, ig_url=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    environ = {f"FP_{key.upper()}": str(value) for key, value in settings.model_dump(exclude_defaults=True).items()}
    process = None
    try:
        migrate(dsn, ["fp_sr", "fp_ig"])
        with psycopg.connect(dsn, autocommit=True) as conn:
            pin(settings, conn)
        log = Path(os.devnull).open("ab")  # noqa: SIM115 # lives as long as the process
        process = subprocess.Popen([sys.executable, "-m", "fp_ig"], env=os.environ | environ, stdout=log, stderr=log)
        until(lambda: _ready(port), 60, "the gateway serves the run")
        figures = measure(settings, psutil.Process(process.pid), options.batch, options.events, port)
        bare = bare_produce(settings, options.events)
        print(json.dumps({"bench": "ingest", "batch": options.batch, **figures, **bare}))
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        with psycopg.connect(owner, autocommit=True) as conn:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
