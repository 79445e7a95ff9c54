"""Traces and metrics (OpenTelemetry): every metric is named here; without an endpoint each call is a no-op."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Self

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceFlags

if TYPE_CHECKING:  # the SDK costs every start 0.2 s that only an endpoint needs
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

_SCOPE = "fp_runtime"
_EXPORT_INTERVAL_MS = 5_000
_MAX_LINKS = 64
_LATENCY_BOUNDS = (1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 60_000)


class Metric(StrEnum):
    """Every metric: its name, unit and what it tells."""

    unit: str
    description: str

    def __new__(cls, name: str, unit: str, description: str) -> Self:
        """A member is its name; unit and description hang on it."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.unit = unit
        member.description = description
        return member

    STARTS = "fp.process.starts", "{start}", "Process starts"
    PROGRESS = "fp.service.progress", "1", "A number of the open run as the service's heartbeat tells it, by its name"
    LINES = "fp.ingest.lines", "{line}", "Ingest lines by first class"
    INGEST_TIME = "fp.ingest.duration", "ms", "Time to answer one ingest batch"
    UNKNOWN_OPEN = "fp.publish.unknown.open", "{record}", "Publish attempts whose result is unknown"
    ACTIVE_BUNDLE = "fp.bundle.active", "1", "1 for the model bundle in use, by reference and the position it is from"
    JOB_PROGRESS = "fp.job.progress", "1", "Steps done of a stage of a learning job; the total is an attribute"
    JOB_QUALITY = "fp.job.quality", "1", "What a learning job found of its result, by measure"


class Telemetry:
    """The providers of this process; `close` sends what is still held."""

    def __init__(
        self, tracers: "TracerProvider", meters: "MeterProvider", heard_us: Callable[[], int] = lambda: 0
    ) -> None:
        """`heard_us`: when a collector last took metrics of this process (wall clock, µs), 0 = never."""
        self._tracers = tracers
        self._meters = meters
        self.heard_us = heard_us

    def flush(self) -> None:
        """Send what is held now."""
        self._tracers.force_flush()
        self._meters.force_flush()

    def close(self) -> None:
        """Send what is held and stop."""
        self._tracers.shutdown()
        self._meters.shutdown()


def configure(service: str, instance: str, endpoint: str | None) -> Telemetry | None:
    """Export to the OTLP/HTTP `endpoint`; None and nothing exported without one. Call once, from `__main__`."""
    if endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from fp_runtime.otlp import HeardExporter

    base = endpoint.rstrip("/")
    exporter = HeardExporter(f"{base}/v1/metrics", preferred_temporality=once_per_set())
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=_EXPORT_INTERVAL_MS)
    spans = BatchSpanProcessor(OTLPSpanExporter(f"{base}/v1/traces"))
    return install(service, instance, reader, spans, lambda: exporter.heard_us)


def once_per_set() -> "dict[type, AggregationTemporality]":
    """Each value that a gauge was set to is sent once: resending the last ones for ever would only fill a store."""
    from opentelemetry.sdk.metrics import _Gauge
    from opentelemetry.sdk.metrics.export import AggregationTemporality

    return {_Gauge: AggregationTemporality.DELTA}


def install(
    service: str, instance: str, reader: "MetricReader", spans: "SpanProcessor",
    heard_us: Callable[[], int] = lambda: 0,
) -> Telemetry:  # fmt: skip
    """Make these the providers of the process; the first call wins (OpenTelemetry allows one)."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource.create({"service.name": service, "service.instance.id": instance, "service.namespace": "fp"})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(spans)
    meters = MeterProvider([reader], resource)
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    return Telemetry(tracers, meters, heard_us)


@cache
def counter(name: Metric) -> metrics.Counter:
    """A sum that only grows: `counter(Metric.LINES).add(1, {"class": "ADMITTED"})`."""
    return metrics.get_meter(_SCOPE).create_counter(name.value, name.unit, name.description)


@cache
def histogram(name: Metric) -> metrics.Histogram:
    """A distribution; milliseconds get latency buckets."""
    bounds = _LATENCY_BOUNDS if name.unit == "ms" else None
    return metrics.get_meter(_SCOPE).create_histogram(
        name.value, name.unit, name.description, explicit_bucket_boundaries_advisory=bounds
    )


@cache
def gauge(name: Metric) -> "metrics._Gauge":
    """The last value set."""
    return metrics.get_meter(_SCOPE).create_gauge(name.value, name.unit, name.description)


def parse_traceparent(raw: bytes | None) -> SpanContext | None:
    """The remote span of a W3C traceparent; None when it is absent or malformed."""
    parts = (raw or b"").split(b"-")
    if len(parts) < 4 or len(parts[0]) != 2 or len(parts[1]) != 32 or len(parts[2]) != 16 or len(parts[3]) != 2:
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:4])
    except ValueError:
        return None
    found = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return found if found.is_valid else None


def traceparent_of(span: Span) -> bytes | None:
    """The W3C traceparent of a span; None for a no-op span."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}".encode()


@contextmanager
def send_span(topic: str, n: int, traceparents: Sequence[bytes | None] = (), **attributes: str) -> Iterator[Span]:
    """A span around the publishing of one batch to a topic, linked to the traces of its records."""
    distinct = dict.fromkeys(traceparents)
    contexts = (parse_traceparent(raw) for raw in list(distinct)[:_MAX_LINKS])
    found: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.batch.message_count": n,
        **{f"fp.{name}": value for name, value in attributes.items()},
    }
    with trace.get_tracer(_SCOPE).start_as_current_span(
        f"send {topic}", kind=SpanKind.PRODUCER, attributes=found, links=[Link(c) for c in contexts if c is not None]
    ) as span:
        yield span
