"""One cm_ls over a run: the cases' loop in the main thread, the label desk behind the HTTP endpoint, and P10."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fp_cm_ls import facts, reading
from fp_cm_ls.adapters import PgCases
from fp_cm_ls.cases import Cases
from fp_cm_ls.gates import evaluate_p10
from fp_cm_ls.http import Door, Session
from fp_cm_ls.label_adapters import PgLabels
from fp_cm_ls.labeldesk import LabelDesk
from fp_cm_ls.plan import plan_of
from fp_cm_ls.settings import CmSettings
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_runtime.aside import Aside
from fp_runtime.bus import FetchProfile
from fp_runtime.kafka import open_consumer, open_producer
from fp_runtime.participant import Evaluate
from fp_runtime.postgres import connect


@dataclass(slots=True)
class Shared:
    """What the loops let the control thread see."""

    cases: Cases | None = None
    desk: LabelDesk | None = None

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat."""
        cases, desk = self.cases, self.desk
        if cases is None or desk is None:
            return {}
        return {
            "triggers": cases.counts["case_trigger"],
            "outcomes": cases.counts["action_outcome"],
            "label_lines": desk.state.last_lane_seq,
            "label_frontier_us": desk.state.frontier_us,
        }


def serve(settings: CmSettings, shared: Shared, door: Door, over: Callable[[], bool], state: RunState) -> None:
    """Work on one run until `over`, which is asked once a turn and raises what ended another thread."""
    assert state.header is not None
    plan, name = plan_of(state.header), settings.instance
    case_conn, label_conn, read_conn = (
        connect(settings.pg_dsn, f"{name}/{part}") for part in ("cases", "labels", "reading")
    )
    consumer = open_consumer(settings, "fp.cm_ls", fetch=FetchProfile.GATHERED)
    producer = open_producer(settings)
    try:
        shared.cases = Cases(plan, PgCases(case_conn, plan.run, name), consumer, time.monotonic)
        shared.desk = LabelDesk(plan, PgLabels(label_conn, plan.run, name), producer)
        door.session = Session(
            plan.run,
            shared.desk,
            partial(reading.cases, read_conn, plan.run),
            partial(reading.case, read_conn, plan.run),
        )
        while not over():
            if door.failure is not None:
                raise door.failure
            shared.cases.turn()
        shared.cases.commit()
    finally:
        door.shut()
        consumer.close()
        producer.close()
        for conn in (case_conn, label_conn, read_conn):
            conn.close()


def evaluators(settings: CmSettings) -> dict[str, Evaluate]:
    """P10, from tables and topics."""
    conn = connect(settings.pg_dsn, f"{settings.instance}/gates")

    def p10(state: RunState) -> Evaluation:
        consumer = open_consumer(settings, "fp.cm_ls.gates", fetch=FetchProfile.READBACK)
        try:
            return evaluate_p10(facts.gather(conn, consumer, state))
        finally:
            consumer.close()

    return {"P10": Aside("P10", p10)}
