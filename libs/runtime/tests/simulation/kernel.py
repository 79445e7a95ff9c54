"""The machinery: logs, fenced commits, a seeded scheduler, and faults between any two effects."""

import inspect
import random
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fp_contracts.header import Header

from .bugs import Bug

Tp = tuple[str, int]
Steps = Generator[Any, None, None]
"""A process: it may be switched away, killed or doubled at every yield; a number = idle for so many steps."""
IDLE_LIMIT, STEP_LIMIT = 8_000, 150_000


class Stuck(Exception):
    """Nothing was written or committed for a long time and the run is not over."""


class Fenced(Exception):
    """The owner row has another epoch, or progress moved: a zombie."""


class CommitLost(Exception):
    """The connection broke at the commit: applied or not, the process cannot know."""


class Rec(NamedTuple):
    """One record in a log."""

    header: Header
    value: bytes


class Plan(NamedTuple):
    """How one run is scheduled and what may go wrong in it."""

    seed: int
    rtdl_members: int = 1
    df_members: int = 1
    writers: int = 1
    batch: int = 50
    poll: int = 50
    take: int | None = None
    skew: int = 60
    faults: int = 0
    target: str | tuple[str, ...] = ""
    """Faults happen only in processes whose name starts so (or with one of these)."""
    rate: int = 1
    """How much more often records, commits and replies are lost than usual."""
    kills: int = 1
    """How much more often processes are killed, stalled or doubled than usual."""
    bug: Bug | None = None


def random_plan(seed: int, bug: Bug | None = None) -> Plan:
    """Members, sizes, limits and number of faults of a seed."""
    rng = random.Random(f"plan {seed}")
    return Plan(
        seed,
        rtdl_members=rng.choice((1, 2, 3, 6)),
        df_members=rng.choice((1, 2, 3)),
        writers=rng.choice((1, 2, 3)),
        batch=rng.choice((1, 3, 8, 40)),
        poll=rng.choice((1, 4, 30)),
        take=rng.choice((None, 1, 5)),
        skew=rng.choice((2, 10, 60)),
        faults=rng.choice((0, 10, 40)),
        target=rng.choice(("", "", "", "ig", "ls", "rtdl", "df", "actions", "cases", "lane")),
        rate=rng.choice((1, 1, 4)),
        kills=rng.choice((1, 1, 5)),
        bug=bug,
    )


@dataclass
class Task:
    """One process; `start` makes a new incarnation, which knows only what is durable."""

    name: str
    start: Callable[[], Steps]
    steps: Steps
    wake: int = 0
    dies: int | None = None
    """A zombie's last step."""


@dataclass
class Kernel:
    """Everything that outlives a process, and the scheduler."""

    plan: Plan
    logs: dict[Tp, list[Rec]] = field(default_factory=lambda: defaultdict(list))
    epochs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    tasks: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"run {self.plan.seed}")
        self.bug = self.plan.bug
        self.faults_left = self.plan.faults
        self.now = 0
        self.busy = 0
        self.current = ""
        self._delayed: list[tuple[Tp, Rec]] = []

    def fault(self, probability: float) -> bool:
        """Whether a fault happens here; a run has a limited number of them."""
        if self.faults_left <= 0 or not self.current.startswith(self.plan.target):
            return False
        if self.rng.random() >= probability:
            return False
        self.faults_left -= 1
        return True

    def publish(self, tp: Tp, rec: Rec) -> int | None:
        """The offset, or None: in doubt (written or not, or written much later)."""
        if self.fault(0.05 * self.plan.rate):
            fate = self.rng.choice(("reply lost", "request lost", "delayed"))
            if fate == "reply lost":
                self._append(tp, rec)
            elif fate == "delayed":
                self._delayed.append((tp, rec))
            return None
        return self._append(tp, rec)

    def publish_until_acked(self, tp: Tp, rec: Rec) -> Steps:
        """What a derived stage does: the same bytes again, until there is a reply."""
        while self.publish(tp, rec) is None:
            yield

    def commit(self, scope: str, epoch: int | None, apply: Callable[[], None], *, moves: bool = True) -> None:
        """One transaction. Raises Fenced when `epoch` (None = unchecked) is not the owner's, and CommitLost.

        `moves` = it is a step towards the end; a checkpoint is none.
        """
        if self.fault(0.02 * self.plan.rate):
            raise CommitLost
        if epoch is not None and self.epochs[scope] != epoch:
            raise Fenced
        apply()
        if moves:
            self.busy = self.now
        if self.fault(0.02 * self.plan.rate):
            raise CommitLost

    def raise_epoch(self, scope: str) -> int:
        """A new incarnation takes the scope over."""
        self.epochs[scope] += 1
        return self.epochs[scope]

    def spawn(self, name: str, start: Callable[[], Steps]) -> None:
        """Add a process."""
        self.tasks.append(Task(name, start, start()))

    def run(self, over: Callable[[], bool]) -> None:
        """Step processes at random until `over`; raises Stuck."""
        for task in self._turns():
            self.current = task.name
            if self._crashed(task):
                continue
            try:
                if nap := next(task.steps):
                    task.wake = self.now + nap
            except (StopIteration, Fenced, CommitLost):
                if task.dies is not None:
                    self.tasks.remove(task)
                else:
                    task.steps = task.start()
            if self.now % 64 == 0 and over():
                return
            if self.now - self.busy > IDLE_LIMIT or self.now > STEP_LIMIT:
                raise Stuck(f"not over at step {self.now}, the last change was at {self.busy}")

    def _turns(self) -> Iterator[Task]:
        while True:
            self.now += 1
            if self._delayed and self.rng.random() < 0.01:
                self._append(*self._delayed.pop(0))
            task = self.tasks[int(self.rng.random() * len(self.tasks))]
            if task.dies is not None and task.dies <= self.now:
                self.tasks.remove(task)
            elif task.wake <= self.now:
                yield task

    def _crashed(self, task: Task) -> bool:
        """Kill, stall or split a process in two: a zombie that goes on, and its successor."""
        if task.dies is not None or not self.fault(0.004 * self.plan.kills):
            return False
        fate = self.rng.choice(("kill", "kill", "stall", "zombie", "zombie"))
        if fate == "stall":
            task.wake = self.now + self.rng.randint(50, 1_500)
            return True
        if fate == "zombie" and inspect.getgeneratorstate(task.steps) == inspect.GEN_SUSPENDED:
            pause = self.rng.choice((0, 50, 400))
            self.tasks.append(Task(task.name, task.start, task.steps, self.now + pause, self.now + 1_200))
        task.steps = task.start()
        return True

    def _append(self, tp: Tp, rec: Rec) -> int:
        log = self.logs[tp]
        log.append(rec)
        self.busy = self.now
        return len(log) - 1
