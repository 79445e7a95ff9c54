"""`make bench`: the whole chain on this machine, with a bare consume→produce of like bytes as baseline in the same run.

Flat out over the sample world (throughput, CPU by stage while it streams, memory by process), then paced (latency from
admission to decision, and of both hops). Counts processed and decided events only. Appends JSON lines to
bench/results/latest.jsonl and writes bench/results/latest.md. Uses the environment of FP_STATE_DIR (default .fp), which
it brings up.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bare_bus import bare_bus

from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_contracts.header import HeaderError, Kind, unpack
from fp_contracts.ids import run_tag
from fp_contracts.records import read_derived
from fp_df.catalogue import policies
from fp_operator import pinning, project, runplan, substrate
from fp_operator.cli.output import steps
from fp_operator.pinning import Follower, Pinned
from fp_operator.substrate import Environment
from fp_operator.worlds.samples import sample_world
from fp_runtime.bus import FetchProfile, Record
from fp_runtime.errors import Unavailable, UserError
from fp_runtime.kafka import open_consumer
from fp_runtime.postgres import connect
from fp_runtime.readback import read_back

RESULTS = Path(__file__).parent / "results"
TIMEOUT_S = 900.0
METER_S = 1.0  # half of the meter's interval: on average its samples then cover the stream exactly
EVENTS_PER_PAYMENT = 5
Place = tuple[int, int]


def main() -> None:
    """Measure, print JSON lines, keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pace", type=int, default=1_000, help="events per second of the paced run; 0 leaves it out")
    options = parser.parse_args()
    environment = substrate.bring_up(project.state_dir(), project.root(), steps())
    figures = list(bare_bus(environment.addresses.kafka_bootstrap))
    baseline = next(f["value"] for f in figures if f["name"] == "bare_bus.pass_through")
    figures += flat_out(environment, float(baseline))
    if options.pace:
        figures += paced(environment, options.pace)
    _keep(figures)


def flat_out(environment: Environment, baseline: float) -> Iterator[dict[str, Any]]:
    """Throughput of a run as fast as it goes: admitted events and decided payments over the time they took."""
    run, state = _run(environment, 0)
    stamps = _stamps(environment, state)
    admitted, decided = stamps[Kind.AUTH_REQUEST], stamps[Kind.DECISION]
    events = EVENTS_PER_PAYMENT * len(admitted)
    began, ended = min(admitted.values()), max(decided.values())
    seconds, ingress_s = (ended - began) / 1_000, (max(admitted.values()) - began) / 1_000
    yield _figure("chain.flat_out.decided_payments", len(decided) / seconds, "payments/s", len(decided))
    yield _figure("chain.flat_out.events", events / seconds, "events/s", events, baseline)
    yield _figure("ingress.flat_out.events", events / ingress_s, "events/s", events, baseline)
    yield _figure("chain.flat_out.p99", _quantile(_latencies(admitted, decided), 99), "ms", len(decided))
    # The gates that follow the stream read all of it again: their CPU and memory are not those of its events.
    for process, cpu_us, rss in (usage := _usage(environment, run, began, ended)):
        yield _figure(f"cpu.{process}", cpu_us / events, "us/event", events)
        yield _figure(f"rss.{process}", rss / 2**20, "MiB", 1)
    yield _figure("cpu.all", sum(cpu_us for _, cpu_us, _ in usage) / events, "us/event", events)
    yield _figure("rss.all", sum(rss for _, _, rss in usage) / 2**20, "MiB", 1)


def paced(environment: Environment, pace_per_s: int) -> Iterator[dict[str, Any]]:
    """Latency from admission to decision at a steady rate; the first fifth of the run is warm-up and left out."""
    _, state = _run(environment, pace_per_s)
    stamps = _stamps(environment, state)
    admitted, joined, decided = stamps[Kind.AUTH_REQUEST], stamps[Kind.FEATURE_SNAPSHOT], stamps[Kind.DECISION]
    start, end = min(admitted.values()), max(admitted.values())
    warm = {event: at for event, at in admitted.items() if at >= start + (end - start) / 5}
    found = {
        "": _latencies(warm, decided),
        ".to_snapshot": _latencies(warm, joined),
        ".from_snapshot": _latencies({event: joined[event] for event in warm}, decided),
    }
    for hop, latencies in found.items():
        for quantile in (50, 95, 99, 99.9):
            name = f"chain.paced_{pace_per_s}{hop}.p{quantile:g}"
            yield _figure(name, _quantile(latencies, quantile), "ms", len(latencies))


def _run(environment: Environment, pace_per_s: int) -> tuple[Pinned, RunState]:
    """One run to its verdict; every gate up to P11 must pass, or there is nothing to report."""
    manifest = sample_world(environment.addresses.oracle_url)
    digests = {rev: digest for rev, (_, digest) in policies().items()}
    config = runplan.make_config(manifest, environment.digests, digests, pace_per_s=pace_per_s)
    run = pinning.new_run_id(f"bench-{pace_per_s}")
    pinned = pinning.request(environment, run, pinning.new_scenario_id(), config, "bench")
    follower, deadline = Follower(environment, pinned), time.monotonic() + TIMEOUT_S
    try:
        while (state := follower.poll(0.5)).closed is None:
            if "P16" not in state.blocked() and state.blocked():
                raise SystemExit(f"{run}: {state.blocked()} blocked, nothing is reported")
            if time.monotonic() > deadline:
                raise SystemExit(f"{run}: no verdict within {TIMEOUT_S:g} s")
    finally:
        follower.close()
    return pinned, state


def _stamps(environment: Environment, state: RunState) -> Mapping[Kind, dict[Place, int]]:
    """Broker timestamps (ms, of the producer's clock) of requests by their place, of snapshots and decisions by it."""
    assert state.header is not None
    tag = run_tag(state.platform_run_id)
    found: dict[Kind, dict[Place, int]] = {Kind.AUTH_REQUEST: {}, Kind.FEATURE_SNAPSHOT: {}, Kind.DECISION: {}}
    read = (topics.TRAFFIC, topics.RTDL)
    starts = {(topic, part): at for topic in read for part, at in state.header.starts(topic).items()}
    consumer = open_consumer(environment.settings(), "fp.bench", fetch=FetchProfile.BULK)
    try:
        for record in read_back(consumer, starts):
            try:
                header = unpack(record.header)
            except HeaderError:
                continue
            if header.run_tag == tag and header.kind in found:
                found[header.kind].setdefault(_request_of(record, header.kind), record.timestamp_ms)
    finally:
        consumer.close()
    return found


def _request_of(record: Record, kind: Kind) -> Place:
    """Where the request lies that a record is about."""
    if kind is Kind.AUTH_REQUEST:
        return record.partition, record.offset
    origin = read_derived(record.value)[1].source_event.origin
    return origin.partition, origin.offset


def _latencies(admitted: Mapping[Any, int], decided: Mapping[Any, int]) -> list[int]:
    missing = [place for place in admitted if place not in decided]
    if missing:
        raise SystemExit(f"{len(missing)} admitted requests have no decision: nothing is reported")
    return sorted(decided[place] - at for place, at in admitted.items())


def _quantile(values: list[int], percent: float) -> float:
    return float(values[min(len(values) - 1, int(len(values) * percent / 100))])


def _usage(environment: Environment, pinned: Pinned, began_ms: int, ended_ms: int) -> list[tuple[str, int, int]]:
    """(process, CPU µs, mean RSS in bytes) between two times, from the meter; it samples every two seconds."""
    with connect(environment.settings().pg_dsn, "fp-bench") as conn:
        rows = conn.execute(
            "SELECT process, sum(cpu_us)::bigint,"
            " (sum(rss_bytes_s) / greatest(extract(epoch FROM max(at) - min(at)), 1))::bigint"
            " FROM ops.meter WHERE run = %s AND at > to_timestamp(%s) AND at <= to_timestamp(%s)"
            " GROUP BY process ORDER BY 2 DESC",
            (pinned.run, began_ms / 1_000, ended_ms / 1_000 + METER_S),
        ).fetchall()
    return [(str(name), int(cpu), int(rss)) for name, cpu, rss in rows]


def _figure(name: str, value: float, unit: str, n: int, baseline: float | None = None) -> dict[str, Any]:
    ratio = None if baseline is None else round(value / baseline, 4)
    return {"name": name, "value": round(value, 2), "unit": unit, "baseline": baseline, "ratio": ratio, "n": n}


def _keep(figures: list[Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    revision = _revision()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lines = [{**figure, "git": revision, "at": at} for figure in figures]
    with (RESULTS / "latest.jsonl").open("w") as file:
        for line in lines:
            print(json.dumps(line))
            file.write(json.dumps(line) + "\n")
    table = ["# Bench", "", f"{at}, revision {revision}", "", "| figure | value | unit | of the baseline | n |",
             "|---|---:|---|---:|---:|"]  # fmt: skip
    table += [f"| {x['name']} | {x['value']} | {x['unit']} | {x.get('ratio') or ''} | {x['n']} |" for x in lines]
    (RESULTS / "latest.md").write_text("\n".join(table) + "\n")


def _revision() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


if __name__ == "__main__":
    try:
        main()
    except (UserError, Unavailable) as error:
        raise SystemExit(f"error: {error}") from error
