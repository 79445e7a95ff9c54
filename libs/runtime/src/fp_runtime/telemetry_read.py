"""Telemetry read back from where it went: the data points of named metrics, as the sink keeps them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import orjson

from fp_runtime.errors import UserError
from fp_runtime.telemetry import Metric


class Point(NamedTuple):
    """One data point; `at_ns` is when its process sent it."""

    metric: str
    value: int
    attributes: Mapping[str, str | int]
    at_ns: int

    def document(self) -> dict[str, Any]:
        """For evidence."""
        return {"metric": self.metric, "value": self.value, "attributes": dict(self.attributes), "at_ns": self.at_ns}


class Telemetry(Protocol):
    """Where telemetry is read back."""

    source: str

    def points(self, wanted: Mapping[str, str]) -> list[Point]:
        """Everything so far whose attributes include `wanted`, in the order it came."""
        ...


class NoTelemetry:
    """Nothing is exported, or not to a place that can be read."""

    source = "none"

    def points(self, wanted: Mapping[str, str]) -> list[Point]:
        """See Telemetry."""
        return []


class SinkFile:
    """The lines of the embedded sink: one OTLP metric as JSON each. Reads on from where it was; one thread."""

    def __init__(self, path: Path, metrics: Collection[Metric]) -> None:
        self.source = "sink"
        self._path = path
        self._marks = [f'"name":"{metric.value}"'.encode() for metric in metrics]
        self._at = 0
        self._points: list[Point] = []

    def points(self, wanted: Mapping[str, str]) -> list[Point]:
        """See Telemetry."""
        self._read_on()
        return [found for found in self._points if wanted.items() <= found.attributes.items()]

    def _read_on(self) -> None:
        if not self._path.is_file():
            return
        if self._path.stat().st_size < self._at:  # begun anew
            self._at, self._points = 0, []
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                if any(mark in line for mark in self._marks):
                    self._points += _points(line)


def open_telemetry(url: str, metrics: Collection[Metric]) -> Telemetry:
    """`file:///…/otlp.ndjson` of the embedded sink; empty = none. UserError for another address."""
    if not url:
        return NoTelemetry()
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise UserError(f"telemetry {url[:80]}", "it cannot be read back from there", "give a file:// address, or none")
    return SinkFile(Path(unquote(parts.path)), metrics)


def _points(line: bytes) -> list[Point]:
    try:
        found = orjson.loads(line)
        return [
            Point(
                str(found["name"]),
                int(point["asInt"]),
                {pair["key"]: _plain(pair["value"]) for pair in point["attributes"]},
                int(point["timeUnixNano"]),
            )
            for point in found["gauge"]["dataPoints"]
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return []  # a line of another shape is no data point


def _plain(value: Mapping[str, Any]) -> str | int:
    return int(value["intValue"]) if "intValue" in value else str(value["stringValue"])
