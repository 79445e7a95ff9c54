"""The meter: samples every process of the environment every two seconds into ops.meter, for the open run.

Runs as a supervised program (`python -m fp_operator.metering`). A run pays from its pin until its teardown (P17): what
runs idle after the verdict is what the teardown's receipt must show. Before the first run nothing is sampled.
"""

import signal
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import Field

from fp_operator.prices import price_table
from fp_operator.stack import Supervisor
from fp_runtime import logs, meter, settings
from fp_runtime.errors import UserError
from fp_runtime.meter import Prices, Sample, Usage
from fp_runtime.postgres import Connection, connect, transaction
from fp_runtime.settings import RuntimeSettings

INTERVAL_S = 2.0
IDLE_INTERVAL_S = 5.0


class MeterSettings(RuntimeSettings):
    """What the meter needs beside the shared settings."""

    state_dir: str = Field(min_length=1, description="State folder whose supervised programs are metered")


@dataclass(slots=True)
class Reading:
    """Counters of one process at one moment; cumulative since it started."""

    started: float
    cpu_us: int
    read_bytes: int
    write_bytes: int
    rss_bytes: int


Family = Mapping[int, Sequence[psutil.Process]]


def families() -> Family:
    """Parent pid -> children of every process, read once: asking per program would read all of /proc each time."""
    found: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        found.setdefault(process.info["ppid"], []).append(process)
    return found


def read_tree(pid: int, family: Family) -> Reading | None:
    """Counters of a process and its descendants; None when it is gone. Pages that children share count once."""
    try:
        root = psutil.Process(pid)
        total = Reading(root.create_time(), 0, 0, 0, 0)
    except psutil.Error:
        return None
    _add(total, root, shared=True)
    waiting = list(family.get(pid, ()))
    while waiting:
        process = waiting.pop()
        _add(total, process, shared=False)
        waiting += family.get(process.pid, ())
    return total


def _add(total: Reading, process: psutil.Process, shared: bool) -> None:
    try:
        with process.oneshot():
            cpu, memory, io = process.cpu_times(), process.memory_info(), process.io_counters()
    except psutil.Error:
        return
    total.cpu_us += int((cpu.user + cpu.system) * 1_000_000)
    total.rss_bytes += memory.rss if shared else memory.rss - memory.shared
    total.read_bytes += io.read_bytes
    total.write_bytes += io.write_bytes


def used(before: Reading | None, now: Reading, seconds: float) -> Usage:
    """Usage between two readings; a process that started in between counts from its start. Counters never fall."""
    base = before if before is not None and before.started == now.started else Reading(now.started, 0, 0, 0, 0)
    return Usage(
        cpu_us=max(0, now.cpu_us - base.cpu_us),
        rss_bytes_s=int(now.rss_bytes * seconds),
        read_bytes=max(0, now.read_bytes - base.read_bytes),
        write_bytes=max(0, now.write_bytes - base.write_bytes),
    )


Members = Callable[[], Mapping[str, int]]
"""Who is metered now: name -> process id of the root of its tree."""


def supervised(supervisor: Supervisor) -> Members:
    """The living programs of a supervisor."""

    def members() -> Mapping[str, int]:
        try:
            states = supervisor.states()
        except (UserError, xmlrpc.client.Fault):  # the supervisor is going down, and we with it
            return {}
        return {name: state.pid for name, state in states.items() if state.pid}

    return members


class Meter:
    """Samples its members."""

    def __init__(self, members: Members, prices: Prices) -> None:
        self._members = members
        self._prices = prices
        self._readings: dict[str, Reading] = {}
        self._at = time.monotonic()

    def sample(self) -> list[Sample]:
        """Priced usage of every living program since the last call."""
        now = time.monotonic()
        seconds, self._at = now - self._at, now
        samples = []
        for name, reading in self._read():
            usage = used(self._readings.get(name), reading, seconds)
            self._readings[name] = reading
            samples.append(Sample(name, name, usage, meter.price(usage, self._prices)))
        return samples

    def _read(self) -> Iterator[tuple[str, Reading]]:
        members, family = self._members(), families()
        for name, pid in members.items():
            reading = read_tree(pid, family)
            if reading is not None:
                yield name, reading


def main() -> None:
    """Meter until asked to stop."""
    config = settings.load(MeterSettings)
    logs.configure(config.instance, config.log_level)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    measure = Meter(supervised(Supervisor(Path(config.state_dir))), price_table()[0])
    conn = connect(config.pg_dsn, config.instance)
    measure.sample()
    interval_s = INTERVAL_S
    while not stop.wait(interval_s):
        samples = measure.sample()
        found = payer(conn)
        if found is not None and samples:
            with transaction(conn) as cur:
                meter.add(cur, found[0], samples)
        interval_s = INTERVAL_S if found is not None and found[1] else IDLE_INTERVAL_S


def payer(conn: Connection) -> tuple[str, bool] | None:
    """(run that pays now, whether it is open): the newest run until its P17 is journaled; None = nobody."""
    row = conn.execute(
        "SELECT run, NOT EXISTS (SELECT FROM sr.run_end e WHERE e.run = r.run) FROM"
        " (SELECT run FROM sr.run ORDER BY at DESC LIMIT 1) r"
        " WHERE NOT EXISTS (SELECT FROM ops.gate_closure g WHERE g.run = r.run AND g.phase = 'P17')"
    ).fetchone()
    return (row[0], row[1]) if row else None


if __name__ == "__main__":
    main()
