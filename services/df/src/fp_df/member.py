"""One df member over a run: builds the decider, turns until the run is over, reports switches to the control thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog

from fp_contracts import topics
from fp_contracts.control import BundleRescored, BundleSwitched, PolicySwitched
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.registry import BundlePublished
from fp_df import facts, rescoring
from fp_df.act_adapters import HttpActuator, PgActions
from fp_df.actions import Actor
from fp_df.adapters import PgStore
from fp_df.bundles import Bundles
from fp_df.catalogue import Catalogue
from fp_df.domain import Switch
from fp_df.gates import evaluate_p9
from fp_df.models import Models
from fp_df.partition import Partition
from fp_df.plan import ACTIONS_STAGE, STAGE, RunPlan, plan_of
from fp_df.service import Decider
from fp_df.settings import DfSettings
from fp_runtime.aside import Aside
from fp_runtime.bus import FetchProfile
from fp_runtime.controllog import Event
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer
from fp_runtime.kafka_rounds import open_rounds
from fp_runtime.participant import Evaluate, Participant
from fp_runtime.postgres import connect
from fp_runtime.process import Process

log = structlog.get_logger()
RESCORE_AGAIN_S = 5.0


@dataclass(slots=True)
class ActShared:
    """What the action layer's data loop lets the control thread see."""

    actor: Actor | None = None

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat."""
        return {} if self.actor is None else self.actor.metrics()


@dataclass(slots=True)
class Shared:
    """What the data loop lets the control thread see."""

    decider: Decider | None = None
    plan: RunPlan | None = None
    reported: set[tuple[int, int]] = field(default_factory=set)
    rescore: Callable[[str, BundlePublished], BundleRescored | None] = lambda *_: None
    """(run, offered) to what df makes of its evaluation; None = not now. Called by the control thread."""

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat."""
        return {} if self.decider is None else self.decider.metrics()

    def react(self, state: RunState) -> Sequence[Event]:
        """policy_switched or bundle_switched for every partition whose frontier passed a pinned switch."""
        decider, plan = self.decider, self.plan
        if decider is None or plan is None or plan.run != state.platform_run_id:
            return ()  # the control thread may already follow the next run
        events: list[Event] = []
        for part, partition in decider.partitions.items():
            for position, n in tuple(partition.switched.items()):
                if (part, position) not in self.reported:
                    self.reported.add((part, position))
                    event = switch_event(plan, partition, position, n)
                    if event is None or event in state.switched or event in state.bundles:
                        continue  # nothing changed, or it was said before the last restart
                    events.append((event, (str(part), str(event.effective_us))))
        return [*events, *self._rescored(decider, state)]

    def _rescored(self, decider: Decider, state: RunState) -> Iterator[Event]:
        """The member with partition 0 scores the evaluation of each published bundle again, once."""
        if 0 not in decider.partitions:
            return
        answered = {event.bundle_id for event in state.rescored}
        for offered in decider.offered():
            if offered.eval_rows is not None and offered.bundle.bundle_id not in answered:
                event = self.rescore(state.platform_run_id, offered)
                if event is not None:
                    yield event, (event.bundle_id,)


def switch_event(plan: RunPlan, partition: Partition, place: int, n: int) -> PolicySwitched | BundleSwitched | None:
    """What a partition reports of a switch that it passed; None when the registry left there what decided before."""
    if place < len(plan.switches):
        switch = plan.switches[place]
        return PolicySwitched(
            policy_rev=switch.policy.policy_rev, effective_us=switch.effective_us, partition=partition.part, merged_n=n
        )
    assert plan.bundles is not None
    serving = partition.serving
    served = serving[place]
    before = max((earlier for earlier in serving if earlier < place), default=None)
    if served.revision == (0 if before is None else serving[before].revision):
        return None
    return BundleSwitched(
        bundle_slot=plan.bundles.scope.bundle_slot, revision=served.revision, bundle_ref=served.ref,
        source=served.source, effective_us=plan.switch_times()[place], partition=partition.part, merged_n=n,
        reason=served.reason,
    )  # fmt: skip


def act(settings: DfSettings, catalogue: Catalogue, shared: ActShared, process: Process, state: RunState) -> None:
    """The action layer over one run, until it is over or the process is asked to stop."""
    assert state.header is not None
    plan = plan_of(state.header, catalogue)
    conn = connect(settings.pg_dsn, f"{settings.instance}/data")
    consumer = open_consumer(settings, "fp.actions", fetch=FetchProfile.GATHERED)
    producer, actuator = open_rounds(settings), HttpActuator(settings.actuator_url)
    try:
        shared.actor = Actor(
            plan, plan.owned(ACTIONS_STAGE, settings.ordinal), PgActions(conn, plan.run, settings.instance), consumer,
            producer, actuator, time.monotonic,
        )  # fmt: skip
        while not process.stopping() and not process.participant.run_over():
            process.turn()
            shared.actor.turn()
        shared.actor.finish()
    finally:
        shared.actor = None
        actuator.close()
        consumer.close()
        producer.close()
        conn.close()


def evaluators(settings: DfSettings, catalogue: Catalogue) -> dict[str, Evaluate]:
    """P9, evaluated over its own connection once the stream has been decided to its end."""
    conn = connect(settings.pg_dsn, f"{settings.instance}/gates")
    models = models_of(settings)

    def p9(state: RunState) -> Evaluation | None:
        if not facts.caught_up(conn, state):
            return None
        consumer = open_consumer(settings, "fp.df.gates", fetch=FetchProfile.READBACK)
        try:
            return evaluate_p9(facts.gather(conn, consumer, state, catalogue, models))
        finally:
            consumer.close()

    return {"P9": Aside("P9", p9)}


def announced(participant: Participant) -> Callable[[Switch], bool]:
    """Whether a switch was announced on the control log: the merge is held at it until then."""

    def check(switch: Switch) -> bool:
        state = participant.state()
        return state is not None and any(
            event.policy_rev == switch.policy.policy_rev and event.effective_us == switch.effective_us
            for event in state.policies
        )

    return check


def bundles_of(settings: DfSettings, plan: RunPlan, closing: ExitStack) -> Bundles | None:
    """What decides beside the guardrails in this run; its own consumer, closed with the run. None = nothing can."""
    if plan.bundles is None:
        return None
    consumer = open_consumer(settings, "fp.df.registry", fetch=FetchProfile.CONTROL)
    closing.callback(consumer.close)
    return Bundles(plan.bundles, consumer, models_of(settings), time.monotonic)


def models_of(settings: DfSettings) -> Models:
    """The bundles of the learning store; it is opened when the first one is asked for."""
    return Models(lambda: open_store(learning_url(settings), settings.s3_endpoint))


def learning_url(settings: DfSettings) -> str:
    """Where bundles and evaluations lie."""
    return settings.learning_url or settings.archive_url


class Rescorer:
    """See Shared.rescore: once per bundle, over a connection of its own; a store that is down is asked again later."""

    def __init__(self, settings: DfSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._wait_until = 0.0
        self._answers: dict[tuple[str, str], BundleRescored] = {}

    def __call__(self, run: str, offered: BundlePublished) -> BundleRescored | None:
        """What df makes of the evaluation of this bundle."""
        key = run, offered.bundle.bundle_id
        if key not in self._answers:
            if self._clock() < self._wait_until:
                return None
            try:
                self._answers[key] = self._rescored(run, offered)
            except Unavailable as error:
                log.error("rescoring_waits", bundle_id=offered.bundle.bundle_id, why=str(error))
                self._wait_until = self._clock() + RESCORE_AGAIN_S
                return None
        return self._answers[key]

    def _rescored(self, run: str, offered: BundlePublished) -> BundleRescored:
        store = open_store(learning_url(self._settings), self._settings.s3_endpoint)
        with connect(self._settings.pg_dsn, f"{self._settings.instance}/rescoring") as conn:
            bodies = facts.bodies(conn, run, "df:", topics.RTDL, 2**62)
            return rescoring.rescore(offered, store, bodies, Models(lambda: store))


def serve(settings: DfSettings, catalogue: Catalogue, shared: Shared, process: Process, state: RunState) -> None:
    """Work on one run until it is over or the process is asked to stop."""
    assert state.header is not None
    plan = plan_of(state.header, catalogue)
    with ExitStack() as closing:
        conn = connect(settings.pg_dsn, f"{settings.instance}/data")
        closing.callback(conn.close)
        producer = open_rounds(settings)
        closing.callback(producer.close)
        consumer = open_consumer(settings, "fp.df", fetch=FetchProfile.LOW_LATENCY)
        closing.callback(consumer.close)
        closing.callback(setattr, shared, "decider", None)
        decider = Decider(
            plan, plan.owned(STAGE, settings.ordinal), PgStore(conn, plan.run, settings.instance), consumer, producer,
            announced(process.participant), time.monotonic, bundles_of(settings, plan, closing),
        )  # fmt: skip
        shared.plan, shared.decider, shared.reported = plan, decider, set()
        while not process.stopping() and not process.participant.run_over():
            process.turn()
            decider.turn()
        decider.finish()
