"""Closing a phase: who may, when, once, with the same bytes after a crash anywhere; a block stays a block."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.fold import RunState, fold
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import ORDER, PHASES
from fp_contracts.runconfig import RunConfig, RunHeader, SpendLimit, Window, config_digest
from fp_runtime import gate
from fp_runtime.closing import LEASE_S, PATIENCE, Closer
from fp_runtime.controllog import Event
from fp_runtime.evidence import EvidenceConflict, FileStore
from fp_runtime.failpoint import FailpointRaised, arm, disarm
from fp_runtime.meter import Spend

RUN, HEX, PHASE = "platform_20260101T000000Z", "0" * 64, "P5"
FIRST, LAST = PHASES[PHASE].blockers
DOCUMENTS: dict[str, Any] = {name: {"n": 1} for name in PHASES[PHASE].evidence}
NOW_US = 10**15
EXPECTED_S = 30


def _predicate(ok: bool, final: bool = False) -> Predicate:
    return Predicate("p", str(ok), "True", ok, FIRST, final)


GOOD = Evaluation((_predicate(True),), DOCUMENTS)
WAITING = Evaluation((_predicate(False),), DOCUMENTS)
LOST = Evaluation((_predicate(False, final=True),), DOCUMENTS)


def _state(passed: Sequence[str] = ("P(-1)", "P0", "P1", "P2", "P3", "P4"), alert: int | None = 0) -> RunState:
    envelopes = tuple(
        SpendLimit(phase=key, max_spend_microusd=100, expected_duration_s=EXPECTED_S, hard_stop="x",
                   expected_artifacts=())
        for key in ORDER
    )  # fmt: skip
    config = RunConfig(
        profile="local", scope="spine", manifest_fingerprint=HEX, windows=(Window(start_us=0, end_us=1),),
        feature_schema_digest=HEX, policies={"p": HEX}, policy_initial="p", authority_digest=HEX, handles_digest=HEX,
        image_manifest_digest=HEX, price_table_digest=HEX, envelopes=envelopes,
    )  # fmt: skip
    header = RunHeader(
        platform_run_id=RUN, scenario_run_id="b" * 32, config=config, run_config_digest=config_digest(config),
        start_offsets={}, lane_writers={}, pinned_us=1, pin_partition=0, pin_offset=0,
    )  # fmt: skip
    state = RunState(RUN, header=header)
    for phase in passed:
        receipt = c.Receipt(phase=phase, attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                            artifacts=(), risk_retired="x")  # fmt: skip
        check = c.Check(name="c", observed="1", required="1", ok=True)
        state = fold(state, c.GatePassed(phase=phase, attempt=1, phase_execution_id=phase_execution_id(RUN, phase, 1),
                                         checks=(check,), evidence=(), receipt=receipt))  # fmt: skip
    if alert is not None:
        state = fold(state, c.BudgetPosture.model_construct(type="budget_posture", alert=alert, as_of_us=NOW_US))
    return state


class Table:
    """The tables that all members share: journaled closures and leases, on one clock in seconds."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], gate.Closure] = {}
        self.leases: dict[tuple[str, int], tuple[str, float]] = {}
        self.at_s = 0.0
        self.spend = Spend(0, 0, 0, 50, 0)


class Closings:
    """closing.Closings of one holder, in memory."""

    def __init__(self, table: Table, holder: str) -> None:
        self.table, self.holder = table, holder

    def holds(self, state: RunState, phase: str) -> bool:
        key = (phase, state.attempt_of(phase))
        holder, until_s = self.table.leases.get(key, (self.holder, 0.0))
        if holder != self.holder and until_s > self.table.at_s:
            return False
        self.table.leases[key] = (self.holder, self.table.at_s + LEASE_S)
        return True

    def load(self, state: RunState, phase: str) -> gate.Closure | None:
        return self.table.rows.get((phase, state.attempt_of(phase)))

    def journal(self, state: RunState, phase: str, evaluation: Evaluation, now_us: int) -> gate.Closure:
        closure = gate.closure_of(state, phase, evaluation, self.table.spend, now_us)
        return self.table.rows.setdefault((phase, state.attempt_of(phase)), closure)


class Instance:
    """One process of the owner; what it evaluates is set by the test."""

    def __init__(self, table: Table, store: FileStore, log: list[Event], name: str = "sr-0") -> None:
        self.table, self.log = table, log
        self.answer: Evaluation | None = GOOD
        self.takes_s, self.asked = 0.0, 0
        self.closer = Closer(
            Closings(table, name), store, lambda _, events: log.extend(events), lambda: table.at_s, lambda: NOW_US
        )

    def _evaluate(self, _: RunState) -> Evaluation | None:
        self.asked += 1
        self.table.at_s += self.takes_s
        return self.answer

    def turn(self, state: RunState, after_s: float = 0.0) -> None:
        self.table.at_s += after_s
        self.closer.turn(state, PHASE, self._evaluate)


class Cell:
    """A store and tables that outlive the instances made in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.table = folder, Table()
        self.log: list[Event] = []

    def start(self, name: str = "sr-0") -> Instance:
        disarm()
        return Instance(self.table, FileStore(self.folder), self.log, name)

    def evidence(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*.json")
            if path.is_file()
        }


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


def _folded(state: RunState, log: Sequence[Event]) -> RunState:
    for payload, _ in log:
        state = fold(state, payload)
    return state


def test_a_sound_phase_is_closed_once_with_its_evidence(cell: Cell) -> None:
    one, state = cell.start(), _state()
    for _ in range(3):
        one.turn(state, 1.0)
    ((event, salt),) = cell.log
    assert isinstance(event, c.GatePassed)
    assert salt == (PHASE, "1")
    assert (one.asked, event.receipt.spend_microusd) == (1, 50)
    assert {ref.key for ref in event.evidence} == cell.evidence().keys()
    assert _folded(state, cell.log).passed(PHASE)


@pytest.mark.parametrize("failpoint", ["gate.after_journal", "gate.after_evidence", "gate.after_publish"])
def test_a_crash_anywhere_repeats_the_same_bytes(cell: Cell, failpoint: str) -> None:
    state, first = _state(), cell.start()
    arm(f"{failpoint}:raise:1")
    with pytest.raises(FailpointRaised):
        first.turn(state)
    second = cell.start()
    second.answer = LOST
    second.turn(state)
    assert second.asked == 0
    assert len({event.model_dump_json() for event, _ in cell.log}) == 1
    (closure,) = cell.table.rows.values()
    assert sorted(cell.evidence().values()) == sorted(closure.bodies.values())
    assert _folded(state, cell.log).passed(PHASE)


def test_a_crash_before_the_journal_judges_again(cell: Cell) -> None:
    state, first = _state(), cell.start()
    first.answer = WAITING
    first.turn(state)
    assert (cell.log, cell.table.rows) == ([], {})
    cell.start().turn(state)
    assert len(cell.log) == 1


def test_a_blocked_attempt_stays_blocked_and_a_resume_is_a_new_one(cell: Cell) -> None:
    one, state = cell.start(), _state()
    one.answer = LOST
    one.turn(state)
    state = _folded(state, cell.log)
    assert state.state_of(PHASE) == "BLOCKED"
    one.answer = GOOD
    one.turn(state, 60.0)
    cell.start().turn(state, 60.0)
    assert (one.asked, len(cell.log)) == (1, 1)
    state = fold(state, c.RunResumeRequested.model_construct(type="run_resume_requested", phase=PHASE, attempt=2))
    one.turn(state, 60.0)
    assert [event.attempt for event, _ in cell.log if isinstance(event, c.GatePassed)] == [2]
    assert len(cell.evidence()) == 2 * len(DOCUMENTS)
    assert _folded(state, cell.log).passed(PHASE)


def test_what_may_still_come_waits_for_the_hard_stop(cell: Cell) -> None:
    one, state = cell.start(), _state()
    one.answer = WAITING
    one.turn(state)
    one.turn(state, PATIENCE * EXPECTED_S)
    assert cell.log == []
    one.turn(state, 1.0)
    ((event, _),) = cell.log
    assert isinstance(event, c.GateBlocked)
    assert [blocker.code for blocker in event.blockers] == [FIRST]


def test_silence_is_never_closed(cell: Cell) -> None:
    one, state = cell.start(), _state()
    one.answer = None
    for _ in range(5):
        one.turn(state, PATIENCE * EXPECTED_S)
    assert (one.asked, cell.log) == (5, [])


def test_a_phase_whose_entry_has_not_passed_is_not_evaluated(cell: Cell) -> None:
    one = cell.start()
    one.turn(_state(passed=("P(-1)", "P0", "P1", "P2", "P3")))
    assert (one.asked, cell.log) == (0, [])


def test_only_the_lease_holder_judges_and_another_takes_over(cell: Cell) -> None:
    one, other, state = cell.start("sr-0"), cell.start("sr-1"), _state()
    one.answer = WAITING
    one.turn(state)
    other.turn(state)
    assert (one.asked, other.asked) == (1, 0)
    other.turn(state, LEASE_S + 1.0)
    assert (other.asked, len(cell.log)) == (1, 1)


def test_an_evaluation_that_outlasts_the_lease_leaves_the_word_to_the_new_holder(cell: Cell) -> None:
    slow, quick, state = cell.start("sr-0"), cell.start("sr-1"), _state()

    def meanwhile(_: RunState) -> Evaluation:
        quick.turn(state, LEASE_S + 1.0)
        return LOST

    slow.closer.turn(state, PHASE, meanwhile)
    assert [type(event) for event, _ in cell.log] == [c.GatePassed]
    assert _folded(state, cell.log).passed(PHASE)


def test_a_dear_evaluation_is_asked_less_often(cell: Cell) -> None:
    one, state = cell.start(), _state()
    one.answer, one.takes_s = WAITING, 2.0
    one.turn(state)
    one.turn(state, 5.9)
    assert one.asked == 1
    one.turn(state, 0.2)
    assert one.asked == 2


@pytest.mark.parametrize(
    ("alert", "spend", "documents", "code"),
    [
        (3, 50, DOCUMENTS, FIRST),
        (0, 101, DOCUMENTS, LAST),
        (0, 50, {"ready_receipt": {}}, LAST),
    ],
    ids=["alert 3", "overspent", "artifact missing"],
)
def test_costs_block(cell: Cell, alert: int, spend: int, documents: dict[str, Any], code: str) -> None:
    one = cell.start()
    cell.table.spend = Spend(0, 0, 0, spend, 0)
    one.answer = Evaluation((_predicate(True),), documents)
    one.turn(_state(alert=alert))
    ((event, _),) = cell.log
    assert isinstance(event, c.GateBlocked)
    assert [blocker.code for blocker in event.blockers] == [code]


def test_a_posture_that_is_only_late_is_waited_for(cell: Cell) -> None:
    one = cell.start()
    one.turn(_state(alert=None))
    assert cell.log == []
    one.turn(_state(), 1.0)
    assert isinstance(cell.log[0][0], c.GatePassed)


def test_evidence_that_others_wrote_is_never_written_over(cell: Cell) -> None:
    one, state = cell.start(), _state()
    key = PHASES[PHASE].evidence_key(RUN, phase_execution_id(RUN, PHASE, 1), "ready_receipt")
    FileStore(cell.folder).put(key, b"forged")
    with pytest.raises(EvidenceConflict):
        one.turn(state)
    assert cell.log == []
