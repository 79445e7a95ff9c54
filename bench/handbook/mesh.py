"""The handbook's slice as a world, on an embedded stack of its own, run to the spine verdict."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.handbook.span import Span
from bench.handbook.telling import Paced, ended, tell
from fp_contracts.fold import RunState
from fp_contracts.phases import SPINE
from fp_contracts.runconfig import Realism
from fp_operator import following, launch, memory, results, status
from fp_operator.downing import bring_down
from fp_operator.following import Moment
from fp_operator.launch import Order
from fp_operator.stack import Supervisor
from fp_operator.substrate import Environment
from fp_runtime.evidence import open_store

TIMEOUT_S = 3_600.0
LOOK_EVERY_S = 15.0  # a look at the memory of sixty processes takes a quarter of a second of CPU
ACTOR, REASON = "bench", "the published folds"
# Late context makes snapshots DEGRADED, as it must: such a payment lacks its account or its context, and the published
# features know of no such thing. Copies, mutants and poison stay as every world has them: they change no feature.
REALISM = Realism(late_context_ppm=0)


@dataclass
class Memory:
    """The largest looks at memory: of everything together (shared pages once), and resident of each program."""

    folder: Path
    whole: memory.Peak
    programs: dict[str, int] = field(default_factory=dict)

    def note(self, seconds: float) -> None:
        """Look, once every few seconds."""
        self.whole.note(seconds)
        for name, state in Supervisor(self.folder).states().items():
            if state.pid:
                try:
                    resident = psutil.Process(state.pid).memory_info().rss
                except psutil.Error:
                    continue
                self.programs[name] = max(self.programs.get(name, 0), resident)


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that came to its verdict; seconds from the pin to the stream's end and to the verdict, memory in bytes."""

    state: RunState
    lines: int
    stream_s: float
    whole_s: float
    peak_bytes: int
    programs: Mapping[str, int]
    equations: int
    verdict: str


def import_world(data: Path, span: Span, folder: Path) -> str:
    """The slice as a sealed world in the oracle store of `folder`, by `fp world import`; its fingerprint."""
    fp, payments = Path(sys.executable).with_name("fp"), data / "transactions.parquet"
    argv = [str(fp), "world", "import", str(payments), "--mapping", "handbook"]
    argv += ["--from", span.first_text, "--until", span.until_text, "--output", "json"]
    out = ended("import", argv, {**os.environ, "FP_STATE_DIR": str(folder)})
    return str(json.loads(out)["fingerprint"])


@contextmanager
def brought_up(folder: Path) -> Iterator[Environment]:
    """The embedded stack and its services on free ports; stopped at the end, whatever happens."""

    def told(name: str, what: str, seconds: float) -> None:
        if what not in ("preparing", "starting"):
            tell(f"{name}: {what}" + (f" in {seconds:.1f} s" if seconds >= 0.05 else ""))

    try:
        yield launch.ready_environment(folder, told, ACTOR, REASON)
    finally:
        bring_down(folder, ACTOR, REASON, told)


def run(environment: Environment, world: str) -> Ran:
    """One undrilled run, flat out; SystemExit when a gate up to P11 is blocked or an equation does not hold."""
    planned = launch.plan(environment, Order(world, drill=False, actor=ACTOR, reason=REASON, realism=REALISM))
    seen = _Seen(Memory(environment.state_dir, memory.Peak(environment.state_dir)))
    pinned = launch.start(environment, planned, ACTOR, REASON)
    tell(f"run {pinned.run}: {planned.world.rows:,} payments")
    began = time.monotonic()
    state, end = following.follow(environment, pinned, seen, TIMEOUT_S)
    whole_s = time.monotonic() - began
    if end != "verdict":
        raise SystemExit(f"{pinned.run}: {end}, {state.blocked()}; see {environment.state_dir}")
    found = results.equations(open_store(environment.addresses.evidence_url), state)
    wrong = [one for one in found if not one["ok"]]
    missing = [phase for phase in SPINE if not state.passed(phase) and phase not in ("P16", "P17")]
    if wrong or missing or not found:
        raise SystemExit(f"{pinned.run}: phases {missing} not closed, equations {wrong} do not hold")
    peak = seen.memory
    document: dict[str, Any] = status.document(state)
    return Ran(
        state, seen.lines, seen.stream_s, whole_s, peak.whole.largest.pss_bytes, peak.programs, len(found),
        str(document["spine_verdict"]),
    )  # fmt: skip


class _Seen:
    """What a watcher of the run sees: how far it is, told every few seconds; phases as they close; memory."""

    def __init__(self, noted: Memory) -> None:
        self.memory = noted
        self.lines = 0
        self.stream_s = 0.0
        self._paced = Paced()
        self._passed: set[str] = set()
        self._next_s = 0.0

    def __call__(self, moment: Moment) -> None:
        for phase in SPINE:
            word = moment.state.state_of(phase)
            if word != "OPEN" and phase not in self._passed:
                self._passed.add(phase)
                tell(f"{moment.seconds:.0f} s: {phase} {word}")
        if not self.stream_s and moment.state.windows_ended:
            self.stream_s, self.lines = moment.seconds, moment.progress.ingested
        if moment.seconds < self._next_s:
            return
        self._next_s = moment.seconds + LOOK_EVERY_S
        self.memory.note(moment.seconds)
        if self._paced.due():
            tell(self._line(moment))

    def _line(self, moment: Moment) -> str:
        stages = moment.progress.stages
        behind = " ".join(f"{name} {n:,}" for name, n in sorted(stages.items()))
        eta = moment.eta_s()
        left = f", ETA {eta:.0f} s" if eta else ""
        gigabytes = self.memory.whole.largest.pss_bytes / 1e9
        total = f" of {moment.progress.total:,}" if moment.progress.total else ""
        return (
            f"{moment.seconds:.0f} s: {moment.progress.ingested:,}{total} lines in, {moment.rate_per_s():,.0f}/s{left};"
            f" {behind}; memory up to {gigabytes:.1f} GB"
        )
