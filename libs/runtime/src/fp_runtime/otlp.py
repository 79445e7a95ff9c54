"""The OTLP exporter of metrics that knows when it was last heard. Imported only where there is an endpoint."""

import time
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData


class HeardExporter(OTLPMetricExporter):
    """`heard_us`: wall clock (µs) of the last export that the collector took; 0 before the first."""

    heard_us = 0

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export, and note when it was taken."""
        result = super().export(metrics_data, timeout_millis, **kwargs)
        if result is MetricExportResult.SUCCESS:
            self.heard_us = time.time_ns() // 1_000
        return result
