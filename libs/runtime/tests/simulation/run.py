"""One run: the processes of a plan over a world until everything is closed, and what can be read from its logs."""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.header import Kind
from fp_contracts.services import owned_partitions

from . import act, decide, loop
from .gateway import Rows as WriterRows
from .gateway import Writer, check_reply
from .kernel import Kernel, Plan, Rec, Steps, Tp
from .sender import Request, Sender
from .world import ADJUDICATION, LANES, World

SOURCES = (*topics.INGRESS, topics.LABELS)


@dataclass
class Run:
    """A finished run: its logs and truth tables."""

    plan: Plan
    world: World
    kernel: Kernel
    sender: Sender | None
    writers: WriterRows
    fabrics: dict[int, decide.Rows]
    acts: act.Rows

    def distinct(self, topic: str, kind: Kind | None = None) -> list[tuple[Tp, Rec]]:
        """Records of a topic, one per (source, sequence); no watermarks."""
        found: dict[tuple[Tp, str, int], Rec] = {}
        for tp, log in self.kernel.logs.items():
            for rec in log:
                if tp[0] == topic and rec.header.seq and kind in (None, rec.header.kind):
                    found.setdefault((tp, rec.header.source, rec.header.seq), rec)
        return [(tp, rec) for (tp, _, _), rec in found.items()]

    def payloads(self, topic: str, kind: Kind) -> list[dict[str, Any]]:
        """Decoded bodies of the distinct records."""
        return [orjson.loads(rec.value) for _, rec in self.distinct(topic, kind)]

    def writer_of(self, lane: str) -> str:
        """Which writer the run header pins a lane to."""
        return "ls" if lane == ADJUDICATION else f"ig-{int(lane) % self.plan.writers}"

    def over(self) -> bool:
        """Closed by tables: lanes ended, merges at the end, outboxes empty, outcomes made and attached."""
        if self.sender is not None and not self.sender.over:
            return False
        boxes = [rows.outbox for rows in self.fabrics.values()] + list(self.acts.outbox.values())
        intents = sum(d["action"] == "BLOCK" for rows in self.fabrics.values() for d in rows.decisions.values())
        escalated = sum(d["escalated"] for rows in self.fabrics.values() for d in rows.decisions.values())
        return (
            all(rows.progress.horizon >= self.world.end for rows in self.fabrics.values())
            and all(len(box.facts) == len(box.rows) for box in boxes)
            and len(self.acts.outcomes) == intents
            and len(self.acts.triggers) == escalated
            and all(len(self.acts.attached[case]) == n for case, n in self.acts.triggers.items())
        )


def simulate(world: World, plan: Plan, recorded: Run | None = None) -> Run:
    """A whole run; with `recorded`, a re-run of its ingress and label logs.

    Raises Stuck, AssertionError or the LineBroken of an input when a rule is broken.
    """
    kernel = Kernel(plan)
    acts = act.Rows({part: decide.Outbox(f"al:{part}") for part in range(topics.LANES)})
    fabrics = {part: decide.Rows(decide.Outbox(f"df:{part}")) for part in range(topics.LANES)}
    run = Run(plan, world, kernel, None, WriterRows(), fabrics, acts)
    source = run
    if recorded is None:
        _spawn_ingest(run)
    else:
        source = recorded
        for tp, log in recorded.kernel.logs.items():
            if tp[0] in SOURCES:
                kernel.logs[tp] = list(log)
    _spawn_stages(run, source)
    kernel.run(run.over)
    return run


def _spawn_ingest(run: Run) -> None:
    kernel = run.kernel
    lanes_of: dict[str, list[str]] = defaultdict(list)
    for lane in (*LANES, ADJUDICATION):
        lanes_of[run.writer_of(lane)].append(lane)
    inboxes: dict[str, list[Request]] = {}
    run.sender = Sender(kernel, run.world, inboxes, partial(check_reply, kernel, run.writers))

    def writer(name: str) -> Steps:
        inbox: list[Request] = []
        for lane in lanes_of[name]:
            inboxes[lane] = inbox
        yield from Writer(kernel, name, run.writers, inbox).run(lanes_of[name])

    for name in lanes_of:
        for lane in lanes_of[name]:
            inboxes[lane] = []
        kernel.spawn(name, partial(writer, name))
    for lane in run.world.lanes:
        kernel.spawn(f"lane {lane}", partial(run.sender.lane, lane))


def _spawn_stages(run: Run, source: Run) -> None:
    kernel, plan = run.kernel, run.plan
    checkpoints: dict[int, loop.Checkpoint] = {}

    def loops(ordinal: int) -> list[loop.PartitionLoop]:
        owned = owned_partitions(ordinal, plan.rtdl_members, topics.LANES)
        return [loop.PartitionLoop(kernel, run.world, source.writer_of(str(part)), part, checkpoints) for part in owned]

    def fabrics(ordinal: int) -> list[decide.PartitionFabric]:
        owned = owned_partitions(ordinal, plan.df_members, topics.LANES)
        return [decide.PartitionFabric(kernel, part, run.fabrics[part]) for part in owned]

    for ordinal in range(plan.rtdl_members):
        kernel.spawn(f"rtdl-{ordinal}", partial(loop.member, partial(loops, ordinal)))
    for ordinal in range(plan.df_members):
        kernel.spawn(f"df-{ordinal}", partial(decide.member, partial(fabrics, ordinal)))
    kernel.spawn("actions", partial(act.actions, kernel, run.acts))
    kernel.spawn("cases", partial(act.cases, kernel, run.acts))
