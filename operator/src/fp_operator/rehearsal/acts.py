"""The acts of a rehearsal, each with what it found: made, killed half-way, finished, read again, metered, scanned."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fp_contracts.control import EvidenceRef
from fp_contracts.scratch import Scratch
from fp_operator import handles, namespace
from fp_operator.ending import tear_down
from fp_operator.metering import Members, Meter
from fp_operator.namespace import Namespace
from fp_operator.prices import price_table
from fp_operator.rehearsal import making
from fp_operator.residue import Residual, scan
from fp_operator.stack import StackAddresses
from fp_operator.stack.strays import strays
from fp_runtime.deadline import until
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceStore, open_store, put_json, read
from fp_runtime.failpoint import Failpoint
from fp_runtime.participant import now_us
from fp_runtime.settings import RuntimeSettings

KILL = f"{Failpoint.TEARDOWN_AFTER_TOPICS}:kill:1"
_CHILD_S = 120.0
_IDLE_S = 1.5
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the acts take place. `space` is the scratch namespace, `main` the state folder that knows of it."""

    main: Path
    space: Namespace
    scratch: Scratch
    addresses: StackAddresses
    settings: RuntimeSettings

    @property
    def store(self) -> EvidenceStore:
        return open_store(self.addresses.evidence_url)


def perform(stage: Stage) -> tuple[dict[str, Document], list[EvidenceRef]]:
    """(proof -> document, what the scratch run had written before) of a rehearsal; what it finds is not judged here."""
    documents: dict[str, Document] = {}
    documents["deploy"], running, outlived = _deploy(stage)
    documents["failure_drill"] = _failure_drill(stage)
    documents["recovery"] = _recovery(stage)
    idle = _Metered(stage.space)
    documents["rollback"] = _rollback(stage)
    documents["cost_control"] = _cost_control(stage, running, idle)
    documents["monitor"] = _monitor(stage)
    if not documents["monitor"]["after"]:
        namespace.note_of(stage.main, stage.scratch).unlink()
    return documents, outlived


def _deploy(stage: Stage) -> tuple[Document, Document, list[EvidenceRef]]:
    """Make the namespace, write its evidence, read everything back. (document, what it cost while it ran, evidence)"""
    began_us = now_us()
    metered = _Metered(stage.space)
    made = making.make(stage.space, stage.scratch, stage.addresses)
    root = f"{stage.scratch.evidence_prefix}scratch/"
    works = making.works(stage.space, stage.scratch, stage.addresses)
    running = metered.document()
    refs = [
        put_json(stage.store, f"{root}{name}.json", document)
        for name, document in (("resources", _listed(made)), ("works", works), ("usage", running))
    ]
    found = set(scan(stage.space, stage.addresses))
    back = [thing for thing in made if thing in found and works[thing.kind]]
    back += [Residual("evidence", ref.key) for ref in refs if read(stage.store, ref)]
    made += [Residual("evidence", ref.key) for ref in refs]
    document = {"created": _listed(made), "read_back": _listed(back), "works": works, **_times(began_us)}
    return document, running, refs


def _failure_drill(stage: Stage) -> Document:
    """A teardown that is killed at a failpoint, in a process of its own."""
    began_us, before = now_us(), scan(stage.space, stage.addresses)
    pid, code = _teardown(stage, KILL)
    ended_us, left = now_us(), scan(stage.space, stage.addresses)
    return {
        "pid": pid, "signal": -code if code < 0 else 0, "failpoint": KILL, "before": _listed(before),
        "left": _listed(left), "began_us": began_us, "ended_us": ended_us,
    }  # fmt: skip


def _recovery(stage: Stage) -> Document:
    """The next teardown, from where the killed one stopped."""
    before, began_us = scan(stage.space, stage.addresses), now_us()
    pid, code = _teardown(stage)
    ended_us = now_us()
    return {
        "pid": pid, "exit_code": code, "before": _listed(before),
        "left": _listed(scan(stage.space, stage.addresses)), "took_us": ended_us - began_us, "began_us": began_us,
        "ended_us": ended_us,
    }  # fmt: skip


def _teardown(stage: Stage, failpoint: str = "") -> tuple[int, int]:
    """(process id, exit code) of `python -m fp_operator.ending`; a negative code is the signal that ended it."""
    note = namespace.note_of(stage.main, stage.scratch)
    return _run([sys.executable, "-m", "fp_operator.ending", str(note), failpoint], stage)[:2]


def _rollback(stage: Stage) -> Document:
    """What outlived the namespace, read by a process that wrote none of it."""
    began_us = now_us()
    module, url, prefix = "fp_operator.rereading", stage.addresses.evidence_url, stage.scratch.evidence_prefix
    _, code, said = _run([sys.executable, "-m", module, url, prefix], stage)
    if code != 0:
        raise UserError("evidence of the scratch run", f"its reader ended with {code}", "`fp rehearse` again")
    found = orjson.loads(said)
    return {"pid": os.getpid(), "reader_pid": found["pid"], "objects": found["objects"], **_times(began_us)}


def _run(argv: Sequence[str], stage: Stage) -> tuple[int, int, bytes]:
    """(process id, exit code, standard output) of a child that is handed the addresses; its complaints are ours."""
    with subprocess.Popen(
        argv, env={**os.environ, **stage.addresses.environment()}, stdout=subprocess.PIPE
    ) as child:  # fmt: skip
        try:
            said, _ = child.communicate(timeout=_CHILD_S)
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
        return child.pid, child.returncode, said


def _cost_control(stage: Stage, running: Document, idle: "_Metered") -> Document:
    began_us = now_us()
    until(lambda: idle.seconds() >= _IDLE_S, 2 * _CHILD_S, "the idle namespace was metered", interval_s=0.1)
    return {
        "running": running, "idle": idle.document(), "month_spend_microusd": handles.month_spend(stage.settings),
        **_times(began_us),
    }  # fmt: skip


def _monitor(stage: Stage) -> Document:
    """Does the scan see what is left? One of each kind, planted where nothing is, and taken away by a teardown."""
    began_us, before = now_us(), scan(stage.space, stage.addresses)
    with making.planted(stage.space, stage.scratch, stage.addresses) as things:
        found = scan(stage.space, stage.addresses)
        tear_down(stage.space, stage.addresses, lambda *_: None)
    after = scan(stage.space, stage.addresses)
    return {
        "before": _listed(before), "planted": _listed(things), "found": _listed(found), "after": _listed(after),
        **_times(began_us),
    }  # fmt: skip


class _Metered:
    """The meter on a namespace, from now on: by the mark of its processes, supervised or not."""

    def __init__(self, space: Namespace) -> None:
        self._meter = Meter(marked(space.state_dir), price_table()[0])
        self._meter.sample()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """How long it has been watching."""
        return time.monotonic() - self._began

    def document(self) -> Document:
        """What it saw since."""
        window_us, samples = int(self.seconds() * 1_000_000), self._meter.sample()
        return {
            "processes": sorted(sample.process for sample in samples), "window_us": window_us,
            "cost_microusd": sum(sample.cost_microusd for sample in samples),
        }  # fmt: skip


def marked(state_dir: Path) -> Members:
    """Processes that bear the mark of a state folder, without their marked children: a tree is metered once."""

    def members() -> Mapping[str, int]:
        found = {process.pid: process for process in strays(state_dir)}
        roots = [process for process in found.values() if process.ppid() not in found]
        return {f"{process.pid} {process.name()}": process.pid for process in roots}

    return members


def _listed(things: Iterable[Residual]) -> list[dict[str, str]]:
    return [thing._asdict() for thing in sorted(things)]


def _times(began_us: int) -> dict[str, int]:
    return {"began_us": began_us, "ended_us": now_us()}
