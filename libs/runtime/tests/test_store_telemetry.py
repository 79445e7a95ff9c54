import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fp_runtime import telemetry
from fp_runtime.telemetry import Metric, counter, gauge, histogram, parse_traceparent, send_span, traceparent_of

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_without_an_endpoint_nothing_is_set_up() -> None:
    assert telemetry.configure("rtdl", "rtdl-0", None) is None
    counter(Metric.LINES).add(1)


def test_metric_names_are_distinct_and_described() -> None:
    assert len({metric.value for metric in Metric}) == len(Metric)
    assert all(metric.unit and metric.description for metric in Metric)
    assert Metric.LINES.value == "fp.ingest.lines"


@pytest.mark.parametrize("raw", [None, b"", b"00-x", PARENT[:-1], PARENT.replace(b"4bf9", b"zzzz"), b"00-" + b"0" * 32])
def test_a_broken_traceparent_is_no_link(raw: bytes | None) -> None:
    assert parse_traceparent(raw) is None


def test_spans_link_their_records_and_metrics_carry_their_units() -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry.install("rtdl", "rtdl-0", reader, SimpleSpanProcessor(spans))
    with send_span("fp.bus.rtdl.v1", 3, [PARENT, None, PARENT, b"junk"], run="r") as span:
        parsed = parse_traceparent(traceparent_of(span))
        assert parsed is not None
        assert parsed.span_id == span.get_span_context().span_id
    counter(Metric.LINES).add(2, {"class": "ADMITTED"})
    histogram(Metric.INGEST_TIME).record(12)
    gauge(Metric.PROGRESS).set(5, {"number": "lines"})
    (found,) = spans.get_finished_spans()
    assert found.name == "send fp.bus.rtdl.v1"
    assert [f"{link.context.span_id:016x}" for link in found.links] == ["00f067aa0ba902b7"]
    assert found.attributes is not None
    assert found.attributes["messaging.batch.message_count"] == 3
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert metrics["fp.ingest.duration"].unit == "ms"
    assert set(metrics) == {"fp.ingest.lines", "fp.ingest.duration", "fp.service.progress"}
