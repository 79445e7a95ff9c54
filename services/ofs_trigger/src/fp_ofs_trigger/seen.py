"""What telemetry shows of a job or of the bundles in use, read back; and how long a gate waits for it.

Telemetry is sent every few seconds, so a gate looks again for a while. It never blocks for it: what did not come leaves
its proof cell OPEN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fp_contracts.control import BundleSwitched
from fp_contracts.dataset import OfsResult
from fp_contracts.evaluation import Predicate
from fp_contracts.fold import RunState
from fp_contracts.jobrun import PARITY_MEASURES, QUALITY_MEASURES
from fp_ofs_trigger.reports import JobReport
from fp_runtime.telemetry import Metric
from fp_runtime.telemetry_read import Point, Telemetry

GRACE_US = 12_000_000
GUARDRAILS = "guardrails"


@dataclass(frozen=True, slots=True)
class Seen:
    """Data points from a place, and what of them is missing. `since_us`: since when they are waited for."""

    source: str
    subject: str
    points: Sequence[Point]
    missing: Sequence[str]
    since_us: int
    now_us: int

    def waiting(self, code: str) -> tuple[Predicate, ...]:
        """A predicate that does not hold yet while it is worth waiting; none when all came, or time is up."""
        up = self.now_us - self.since_us > GRACE_US
        if self.source == "none" or not self.missing or up:
            return ()
        return (Predicate("telemetry read back", f"lacks {self.missing[0]}", "all", False, code),)

    def document(self) -> dict[str, Any]:
        """For evidence."""
        return {
            "source": self.source, "subject": self.subject, "missing": list(self.missing),
            "points": [point.document() for point in self.points],
        }  # fmt: skip


def of_job(telemetry: Telemetry, job: JobReport, now_us: int) -> Seen:
    """What a dataset job's own process sent, by the name that its result gives it."""
    result = job.parsed(OfsResult)
    instance = result.runtime.instance if result is not None and result.runtime is not None else ""
    points = telemetry.points({"job": instance}) if instance else []
    since_us = job.seen.event.ended_us if job.seen is not None else now_us
    return Seen(telemetry.source, instance, points, lacking_measures(points), since_us, now_us)


def of_bundles(telemetry: Telemetry, state: RunState, since_us: int, now_us: int) -> Seen:
    """What df's members sent of the bundles in use in a run."""
    points = telemetry.points({"run": state.platform_run_id})
    missing = lacking_switches(points, state.bundles)
    return Seen(telemetry.source, state.platform_run_id, points, missing, since_us, now_us)


def lacking_measures(points: Sequence[Point]) -> list[str]:
    """Measures of a dataset job that did not come."""
    found = {point.attributes.get("measure") for point in points if point.metric == Metric.JOB_QUALITY.value}
    return [name for name in (*QUALITY_MEASURES, *PARITY_MEASURES) if name not in found]


def lacking_switches(points: Sequence[Point], switches: Sequence[BundleSwitched]) -> list[str]:
    """Switches that df reported and whose change of the metric did not come."""
    found = {place(point.attributes) for point in points}
    return [f"revision {s.revision} of partition {s.partition}" for s in switches if place_of(s) not in found]


def place(attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    """(partition, revision, merged position, bundle) of a data point of fp.bundle.active."""
    return tuple(attributes.get(name) for name in ("partition", "revision", "merged_n", "bundle"))


def place_of(switch: BundleSwitched) -> tuple[Any, ...]:
    """The same of what df reported on the control log."""
    return (switch.partition, switch.revision, switch.merged_n, switch.bundle_ref or GUARDRAILS)
