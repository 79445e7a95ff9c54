"""What a heartbeat says of a service: its readiness and whether its telemetry arrives, not what is hoped of them."""

import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

from fp_contracts.control import ServiceHeartbeat
from fp_contracts.fold import RunState
from fp_contracts.phases import ORDER
from fp_contracts.runconfig import RunConfig, RunHeader, SpendLimit, Window, config_digest
from fp_runtime.controllog import Event
from fp_runtime.health import Health
from fp_runtime.otlp import HeardExporter
from fp_runtime.participant import Participant
from fp_runtime.settings import RuntimeSettings

RUN, HEX = "platform_20260101T000000Z", "0" * 64
CONFIG = RunConfig(
    profile="local", scope="spine", manifest_fingerprint=HEX, windows=(Window(start_us=0, end_us=1),),
    feature_schema_digest=HEX, policies={"p": HEX}, policy_initial="p", authority_digest=HEX, handles_digest=HEX,
    image_manifest_digest=HEX, price_table_digest=HEX,
    envelopes=tuple(SpendLimit(phase=key, max_spend_microusd=1, expected_duration_s=1, hard_stop="x",
                               expected_artifacts=()) for key in ORDER),
)  # fmt: skip
STATE = RunState(RUN, header=RunHeader(
    platform_run_id=RUN, scenario_run_id="b" * 32, config=CONFIG, run_config_digest=config_digest(CONFIG),
    start_offsets={}, lane_writers={}, pinned_us=1, pin_partition=0, pin_offset=0,
))  # fmt: skip
SETTINGS = RuntimeSettings(instance="sr-0", kafka_bootstrap="none:1", pg_dsn="none", evidence_url="file:///tmp")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[ServiceHeartbeat]:
    """The heartbeats that are published; the control thread itself is not run."""
    found: list[ServiceHeartbeat] = []

    def publish(_: Participant, __: RunState, events: Sequence[Event]) -> None:
        found.extend(event for event, _ in events if isinstance(event, ServiceHeartbeat))

    monkeypatch.setattr(Participant, "_run", lambda _: None)
    monkeypatch.setattr(Participant, "_publish", publish)
    return found


def test_readiness_is_the_health_of_the_process_and_told_as_soon_as_it_changes(said: list[ServiceHeartbeat]) -> None:
    health = Health("sr-0", ("run",))
    participant = Participant(SETTINGS, {}, metrics=lambda: {"lines": 7})
    participant.start(health.ready)
    for fault in ("not yet", "not yet", None, None, "lost"):
        health.condition("run", fault)
        participant._heartbeat(STATE)
    assert [beat.ready for beat in said] == [False, True, False]
    assert said[0].metrics == {"lines": 7}


@pytest.mark.parametrize("heard_us", [None, 0, 1_767_225_600_000_000])
def test_telemetry_is_as_old_as_what_the_collector_took_last(
    said: list[ServiceHeartbeat], heard_us: int | None
) -> None:
    participant = Participant(SETTINGS, {})
    participant.start(telemetry_us=lambda: heard_us)
    participant._heartbeat(STATE)
    assert [beat.telemetry_us for beat in said] == [heard_us]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[int]]]:
    """(address, the statuses that it answers with, in turn)."""
    answers: list[int] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(answers.pop(0))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/metrics", answers
    server.shutdown()
    server.server_close()


def test_an_export_counts_once_the_collector_took_it(collector: tuple[str, list[int]]) -> None:
    address, answers = collector
    exporter = HeardExporter(address)
    answers += [400, 200]
    assert exporter.export(MetricsData([])) is MetricExportResult.FAILURE
    assert exporter.heard_us == 0
    assert exporter.export(MetricsData([])) is MetricExportResult.SUCCESS
    assert exporter.heard_us > 0
    exporter.shutdown()
