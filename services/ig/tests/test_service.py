"""The writer on the bus in memory: lost acks, lost commits, renumbering, resends, outages."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fp_contracts.header import Kind, unpack
from fp_contracts.ids import run_tag
from fp_contracts.ingress import EVENT_CLASSES
from fp_contracts.records import Pins
from fp_contracts.topics import INGRESS, TRAFFIC
from fp_ig.domain import Admission
from fp_ig.intake import Answer, Batch, Classes, Intake, Unknown
from fp_ig.records import Stamp
from fp_ig.resolver import Resolver
from fp_ig.service import Writer
from fp_runtime.bus import Record
from fp_runtime.errors import Fenced, Unavailable
from fp_runtime.memory import Fault, MemoryBus
from fp_runtime.problem import Code, Problem

ALL = frozenset(EVENT_CLASSES)
F = 2_000_000_000_000_000
STARTS = {(topic, partition): 0 for topic in INGRESS for partition in range(6)}


class Gateway:
    """A writer with everything around it in memory; `restart` is a new process on the same store and bus."""

    def __init__(self, pins: Pins, store: Any, bus: MemoryBus, line: Callable[..., bytes]) -> None:
        self.stamp = Stamp(run_tag(pins.platform_run_id), "ig-0")
        self.store, self.bus, self.line = store, bus, line
        self.admission = Admission(pins, 6)
        self.now_s = 0.0
        self.bus_down = False
        self.restart()

    def restart(self) -> None:
        self.intake = Intake(max_waiting=8)
        producer = self.bus.producer()
        resolver = Resolver(self.store, producer, self.bus.lookup, STARTS)
        self.writer = Writer(self.store, producer, self.intake, resolver, self.stamp, self._probe, lambda: self.now_s)

    def _probe(self, _tp: object) -> None:
        if self.bus_down:
            raise Unavailable("bus is down")

    def offer(self, lane: int, first_seq: int, raws: list[bytes], frontier: int = F, who: str = "wsp") -> Batch:
        lines = [self.admission.read(raw, lane, ALL) for raw in raws]
        batch = Batch(lane, first_seq, lines, frontier, who)
        assert self.intake.offer(batch)
        return batch

    def send(self, *args: Any, **options: Any) -> Answer:
        batch = self.offer(*args, **options)
        self.now_s += 1.0
        self.writer.step(0)
        return batch.answer.result(0)

    def records(self, topic: str = TRAFFIC, lane: int = 0) -> list[Record]:
        tp = (topic, lane)
        return self.bus.read(tp, 0, 10_000)

    def events(self, topic: str = TRAFFIC, lane: int = 0) -> list[tuple[int, bytes]]:
        found = [(unpack(record.header), record.value) for record in self.records(topic, lane)]
        return [(header.seq, value) for header, value in found if header.kind < Kind.WATERMARK]


@pytest.fixture
def gateway(pins: Pins, memory_store: Any, line: Callable[..., bytes]) -> Gateway:
    bus = MemoryBus()
    bus.create(INGRESS)
    return Gateway(pins, memory_store(Stamp(run_tag(pins.platform_run_id), "ig-0")), bus, line)


def words(answer: Answer) -> list[str]:
    assert isinstance(answer, Classes), answer
    return [name if name != "QUARANTINED" else detail for name, detail in answer.classes]


def problem(answer: Answer) -> tuple[int, str]:
    assert isinstance(answer, Problem), answer
    return answer.status, answer.code


def test_a_batch_is_admitted_published_with_exact_bytes_and_answered(gateway: Gateway) -> None:
    raws = [gateway.line(n) for n in range(3)] + [b"{", gateway.line(0)]
    answer = gateway.send(0, 1, raws)
    assert words(answer) == ["ADMITTED"] * 3 + ["NOT_JSON", "DUPLICATE"]
    assert isinstance(answer, Classes)
    assert answer.classes[4][1] == answer.classes[0][1], "a duplicate gets the first one's receipt"
    assert gateway.events() == [(n + 1, raws[n]) for n in range(3)]
    assert unpack(gateway.records()[2].header).frontier_us == F
    for topic in INGRESS[:3]:
        (record,) = gateway.records(topic)
        assert [mark.frontier_us for mark in unpack(record.header).marks] == [F]
    assert [raw for _, _, raw in gateway.store.aside] == [b"{"]


def test_a_resend_gets_the_first_classes_also_when_split_otherwise(gateway: Gateway) -> None:
    raws = [gateway.line(n) for n in range(4)] + [gateway.line(0)]
    first = words(gateway.send(0, 1, raws))
    published = gateway.events()
    assert words(gateway.send(0, 1, raws)) == first
    assert words(gateway.send(0, 1, raws[:2])) == first[:2]
    assert words(gateway.send(0, 3, [*raws[2:], gateway.line(9)])) == [*first[2:], "ADMITTED"]
    assert gateway.events() == [*published, (5, gateway.line(9))]


def test_a_resend_reasserts_the_frontier_by_watermark(gateway: Gateway) -> None:
    gateway.send(0, 1, [gateway.line(1)], frontier=F)
    before = len(gateway.records())
    gateway.send(0, 1, [gateway.line(1)], frontier=F + 7)
    (mark,) = unpack(gateway.records()[before].header).marks
    assert (mark.frontier_us, mark.last_seq) == (F + 7, 1)


def test_identities_claimed_by_another_process_are_found_by_the_store_and_numbers_stay_dense(gateway: Gateway) -> None:
    gateway.send(0, 1, [gateway.line(n) for n in (1, 2)])
    gateway.restart()  # forgets the recent identities
    tried = gateway.store.claims_tried
    answer = gateway.send(0, 3, [gateway.line(n) for n in (3, 1, 4, 2, 5)])
    assert words(answer) == ["ADMITTED", "DUPLICATE", "ADMITTED", "DUPLICATE", "ADMITTED"]
    assert gateway.store.claims_tried == tried + 2
    assert [seq for seq, _ in gateway.events()] == [1, 2, 3, 4, 5]


def test_anomalies_leave_the_first_claim_untouched(gateway: Gateway) -> None:
    gateway.send(0, 1, [gateway.line(1)])
    mutant = gateway.line(1, change=lambda d: d["payload"].update(amount_minor=5))
    assert words(gateway.send(0, 2, [mutant])) == ["PAYLOAD_HASH_MISMATCH"]
    assert words(gateway.send(0, 3, [gateway.line(1)], who="other")) == ["PRINCIPAL_MISMATCH"]
    assert words(gateway.send(0, 4, [gateway.line(1)])) == ["DUPLICATE"]
    assert len(gateway.events()) == 1
    assert [raw for _, _, raw in gateway.store.aside] == [mutant, gateway.line(1)]


def test_batches_of_several_lanes_are_one_claim_and_a_lane_s_second_batch_waits(gateway: Gateway) -> None:
    batches = [gateway.offer(lane, 1, [gateway.line(lane, lane=lane)]) for lane in range(3)]
    second = gateway.offer(0, 2, [gateway.line(50)])
    assert gateway.writer.step(0) == 3
    assert gateway.store.claims_tried == 1
    assert [words(batch.answer.result(0)) for batch in batches] == [["ADMITTED"]] * 3
    assert not second.answer.done()
    assert gateway.writer.step(0) == 1
    assert words(second.answer.result(0)) == ["ADMITTED"]


@pytest.mark.parametrize("fault", [Fault.LOST_ACK, Fault.LOST_REQUEST, Fault.FAILED])
def test_a_publish_in_doubt_answers_202_then_is_resolved_forward(gateway: Gateway, fault: Fault) -> None:
    raws = [gateway.line(n) for n in range(3)]
    gateway.bus.plan(fault, nth=2)
    assert gateway.send(0, 1, raws) == Unknown()
    assert gateway.writer.counts().open_unknown == 1
    assert words(gateway.send(0, 1, raws)) == ["ADMITTED"] * 3
    assert gateway.writer.counts().open_unknown == 0
    assert sorted(gateway.events()) == [(n + 1, raws[n]) for n in range(3)], "nothing lost, nothing doubled"
    assert gateway.store.unknown == [(0, 3, 2)]
    assert {fact.how for fact in gateway.store.facts} == {"P", "O" if fault is Fault.LOST_ACK else "R"}


def test_nothing_later_goes_to_a_lane_in_doubt_and_other_lanes_go_on(gateway: Gateway) -> None:
    raws = [gateway.line(n) for n in range(2)]
    gateway.bus.plan(Fault.LOST_REQUEST, nth=2)
    assert gateway.send(0, 1, raws) == Unknown()
    gateway.bus.plan(Fault.LOST_REQUEST, nth=1)  # the resolver's try is lost too
    before = len(gateway.records())
    assert problem(gateway.send(0, 3, [gateway.line(9)])) == (503, Code.UNRESOLVED)
    gateway.bus.plan(Fault.LOST_REQUEST, nth=1)
    assert problem(gateway.send(0, 3, [])) == (503, Code.UNRESOLVED)
    gateway.bus.plan(Fault.LOST_REQUEST, nth=1)
    assert gateway.send(0, 1, raws) == Unknown()
    gateway.bus.plan(Fault.LOST_REQUEST, nth=1)
    assert words(gateway.send(1, 1, [gateway.line(7, lane=1)])) == ["ADMITTED"]
    assert len(gateway.records()) == before, "no record and no watermark behind the open one"
    assert words(gateway.send(0, 1, raws)) == ["ADMITTED"] * 2
    assert gateway.events() == [(1, raws[0]), (2, raws[1])]


def test_a_lost_watermark_is_sent_again_and_only_then_the_round_is_answered(gateway: Gateway) -> None:
    gateway.bus.plan(Fault.LOST_REQUEST, nth=4)
    assert gateway.send(0, 1, [], frontier=F) == Unknown()
    assert gateway.records(TRAFFIC) == []
    assert words(gateway.send(0, 1, [], frontier=F)) == []
    assert unpack(gateway.records(TRAFFIC)[0].header).marks[0].frontier_us == F


def test_a_lost_commit_reply_is_503_and_the_resend_is_published_once(gateway: Gateway) -> None:
    raws = [gateway.line(n) for n in range(3)]
    gateway.store.lose_commit = True
    assert problem(gateway.send(0, 1, raws)) == (503, Code.STORE_UNAVAILABLE)
    assert gateway.events() == []
    assert words(gateway.send(0, 1, raws)) == ["ADMITTED"] * 3
    assert gateway.events() == [(n + 1, raws[n]) for n in range(3)]


def test_facts_that_were_not_recorded_are_observed_from_the_topic(gateway: Gateway) -> None:
    raws = [gateway.line(n) for n in range(3)]
    gateway.store.down_for_facts = True
    assert gateway.send(0, 1, raws) == Unknown()
    assert words(gateway.send(0, 1, raws)) == ["ADMITTED"] * 3
    assert gateway.events() == [(n + 1, raws[n]) for n in range(3)]
    assert [(fact.first_seq, fact.n, fact.how) for fact in gateway.store.facts] == [(1, 3, "O")]


def test_a_new_process_resolves_open_claims_before_it_serves(gateway: Gateway) -> None:
    raws = [gateway.line(n) for n in range(3)]
    gateway.store.lose_commit = True
    gateway.send(0, 1, raws)
    gateway.restart()
    assert gateway.writer.recover()
    assert gateway.events() == [(n + 1, raws[n]) for n in range(3)]
    assert words(gateway.send(0, 1, raws)) == ["ADMITTED"] * 3


@pytest.mark.parametrize("down", ["store", "bus"])
def test_store_or_bus_down_is_503_before_any_claim(gateway: Gateway, down: str) -> None:
    gateway.send(0, 1, [gateway.line(0)])
    gateway.now_s += 5
    tried = gateway.store.claims_tried
    gateway.store.down, gateway.bus_down = down == "store", down == "bus"
    status, _ = problem(gateway.send(0, 2, [gateway.line(1)]))
    assert (status, gateway.store.claims_tried) == (503, tried)
    gateway.store.down = gateway.bus_down = False
    assert words(gateway.send(0, 2, [gateway.line(1)])) == ["ADMITTED"]


def test_gaps_foreign_lanes_and_reused_numbers_are_refused(gateway: Gateway) -> None:
    gateway.send(0, 1, [gateway.line(0)])
    assert problem(gateway.send(0, 3, [gateway.line(1)])) == (409, Code.LANE_SEQ_GAP)
    assert problem(gateway.send(0, 3, [])) == (409, Code.LANE_SEQ_GAP), "a round behind lines that are not here yet"
    assert problem(gateway.send(0, 1, [gateway.line(5)])) == (409, Code.LANE_SEQ_REUSED)
    assert problem(gateway.send(9, 1, [])) == (421, Code.LANE_NOT_HERE)
    assert words(gateway.send(0, 2, [gateway.line(1)])) == ["ADMITTED"]


def test_a_withdrawn_batch_is_never_claimed_and_a_begun_one_cannot_be_withdrawn(gateway: Gateway) -> None:
    withdrawn = gateway.offer(0, 1, [gateway.line(0)])
    assert withdrawn.answer.cancel()
    begun = gateway.offer(1, 1, [gateway.line(0, lane=1)])
    assert gateway.intake.take(0) == [begun]
    assert not begun.answer.cancel()
    assert gateway.store.lines == {}


def test_lanes_that_come_together_are_taken_together(gateway: Gateway) -> None:
    first = gateway.offer(0, 1, [])
    taken: list[Batch] = []
    taker = threading.Thread(target=lambda: taken.extend(gateway.intake.take(10, gather=2, gather_s=60)))
    taker.start()
    second = gateway.offer(1, 1, [])
    taker.join(10)
    assert taken == [first, second]
    alone = gateway.offer(0, 1, [])
    assert gateway.intake.take(0, gather=2, gather_s=0.001) == [alone], "nobody else came in time"


def test_lanes_whose_requests_are_being_read_are_waited_for_a_little(gateway: Gateway) -> None:
    first, second = Batch(0, 1, [], F, "wsp"), Batch(1, 1, [], F, "wsp")
    taken: list[Batch] = []
    taker = threading.Thread(target=lambda: taken.extend(gateway.intake.take(10, gather=6, gather_s=0.0)))
    with gateway.intake.expecting():
        assert gateway.intake.offer(first)
        taker.start()
        assert gateway.intake.offer(second)
    taker.join(10)
    assert taken == [first, second]
    with gateway.intake.expecting():
        assert gateway.intake.offer(alone := Batch(2, 1, [], F, "wsp"))
        assert gateway.intake.take(10, gather=6) == [alone], "a sender that hangs holds nobody up"


def test_the_intake_is_bounded(gateway: Gateway) -> None:
    for n in range(8):
        gateway.offer(0, n + 1, [])
    assert not gateway.intake.offer(Batch(0, 9, [], F, "wsp"))


def test_a_zombie_answers_nothing_final_and_ends(gateway: Gateway) -> None:
    def fenced(_parts: object) -> bool:
        raise Fenced("epoch 1 is no longer the owner's")

    gateway.send(0, 1, [gateway.line(0)])
    gateway.store.claim = fenced
    batch = gateway.offer(0, 2, [gateway.line(1)])
    with pytest.raises(Fenced):
        gateway.writer.step(0)
    assert batch.answer.result(0) == Unknown()
