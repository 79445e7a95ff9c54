"""P8: green when all holds, and each blocker reached by breaking exactly one thing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from fp_contracts import topics
from fp_contracts.canonical import canonical_bytes
from fp_contracts.header import Kind
from fp_contracts.phases import PHASES
from fp_rtdl import sample
from fp_rtdl.audit import StreamAudit
from fp_rtdl.checkpoint import Position
from fp_rtdl.gates import ARCHIVE, LAG, ArchiveFacts, P8Facts, Place, StreamFacts, caught_up, evaluate_p8

END = sample.START_US
AT = dict.fromkeys((*topics.INGRESS, topics.LABELS), 10)
POSITION = Position(
    n=50, clock_us=END - 1, bound_us=END, frontier_us=END, cursors={}, resume=AT, read=AT, seqs=(1,) * 6, waiting=(),
    pending_labels=1, open_gaps=0, counts={"labels": 2, "snapshots": 10},
)  # fmt: skip
STREAM = StreamFacts(60, 60, 0, 0, 0, 0, 18, {"READY": 60}, "f" * 64)
PLACES = tuple(
    Place(lane, topic, part, 0, 10, ()) for lane in range(6) for topic, part in sample.plan(END).places(lane).items()
)
GREEN = P8Facts(END, dict.fromkeys(range(6), POSITION), PLACES, ArchiveFacts(30, 300, ()), STREAM, {}, None)


def with_position(**change: Any) -> P8Facts:
    return replace(GREEN, positions={**GREEN.positions, 3: replace(POSITION, **change)})


def with_stream(**change: Any) -> P8Facts:
    return replace(GREEN, stream=replace(STREAM, **change))


BREAKS: dict[str, tuple[Callable[[], P8Facts], str, bool]] = {
    "a partition has no checkpoint": (
        lambda: replace(GREEN, positions=dict.fromkeys(range(5), POSITION), places=(), stream=None), LAG, False),
    "a record is not released": (lambda: with_position(resume={**AT, topics.TRAFFIC: 9}), LAG, False),
    "a label is not read": (lambda: with_position(read={**AT, topics.LABELS: 9}), LAG, False),
    "the merge is not at the end": (lambda: with_position(bound_us=END - 1), LAG, False),
    "a request waits": (lambda: with_position(waiting=("w",)), LAG, False),
    "a gap is open": (lambda: with_position(open_gaps=1), LAG, False),
    "a span is missing": (
        lambda: replace(GREEN, places=(replace(PLACES[0], span_breaks=("gap [3, 5)",)), *PLACES[1:])), LAG, False),
    "a request has no snapshot": (lambda: with_stream(snapshots=59, unanswered=1), LAG, True),
    "a snapshot has no request": (lambda: with_stream(snapshots=61, unasked=1), LAG, True),
    "a snapshot answers another request": (lambda: with_stream(unanswered=1, unasked=1), LAG, True),
    "no traffic at all": (lambda: with_stream(requests=0, snapshots=0), LAG, True),
    "a repeat has other bytes": (lambda: with_stream(conflicts=1), LAG, True),
    "a hash does not recompute": (lambda: with_stream(broken_hashes=1), LAG, True),
    "a label is lost": (lambda: with_stream(labels=19), LAG, False),
    "the archive has a hole": (lambda: replace(GREEN, archive=ArchiveFacts(1, 1, ("t[0]: 3 to 5",))), ARCHIVE, False),
    "an object says something else": (
        lambda: replace(GREEN, archive=ArchiveFacts(1, 1, (), ("k: not what the topic holds",))), ARCHIVE, True),
}  # fmt: skip


def test_green_when_everything_holds() -> None:
    evaluation = evaluate_p8(GREEN)
    assert all(p.ok for p in evaluation.predicates)
    assert evaluation.settled()
    assert set(evaluation.documents) == set(PHASES["P8"].evidence)
    assert evaluation.documents["core_snapshot"]["stream"]["snapshot_fingerprint"] == "f" * 64


def test_evidence_has_a_canonical_form() -> None:
    for document in evaluate_p8(GREEN).documents.values():
        assert orjson.loads(canonical_bytes(document)) == orjson.loads(orjson.dumps(document))


@pytest.mark.parametrize("case", BREAKS)
def test_one_broken_thing_fails_one_predicate_with_its_code(case: str) -> None:
    make, code, final = BREAKS[case]
    evaluation = evaluate_p8(make())
    failed = [p for p in evaluation.predicates if not p.ok]
    assert [p.code for p in failed] == [code]
    assert evaluation.settled() == final


def test_both_blockers_of_the_registry_are_reached() -> None:
    assert {code for _, code, _ in BREAKS.values()} == set(PHASES["P8"].blockers)


def test_topics_are_not_counted_before_rtdl_has_caught_up() -> None:
    assert caught_up(GREEN)
    behind = replace(with_position(bound_us=END - 1), stream=None)
    assert not caught_up(behind)
    assert not evaluate_p8(behind).settled()


@pytest.fixture
def streamed(kit: Any) -> tuple[list[Any], list[Any]]:
    """(ingress and label records, snapshots) of a finished run."""
    bus = kit.bus(sample.world(sample.Feed(), kit.payments(40), kit.end_us))
    kit.member(bus, kit.checkpoints(), sample.plan(kit.end_us)).turns()
    inputs = [
        record for topic in (*topics.INGRESS, topics.LABELS) for part in range(topics.TOPICS[topic].partitions)
        for record in bus.read((topic, part), 0, bus.span((topic, part))[1])
    ]  # fmt: skip
    return inputs, kit.published(bus)


def audited(kit: Any, records: list[Any]) -> StreamFacts:
    audit = StreamAudit(sample.plan(0).tag, kit.end_us)
    for record in records:
        audit.take(record)
    return audit.facts()


def test_the_audit_finds_what_rtdl_made(kit: Any, streamed: tuple[list[Any], list[Any]]) -> None:
    inputs, snapshots = streamed
    found = audited(kit, inputs + snapshots)
    assert (found.requests, found.snapshots, found.unanswered, found.unasked) == (40, 40, 0, 0)
    assert (found.conflicts, found.broken_hashes, found.labels) == (0, 0, 4)
    assert found.statuses == {"READY": 40}


def test_the_audit_passes_over_equal_repeats_and_any_order(kit: Any, streamed: tuple[list[Any], list[Any]]) -> None:
    inputs, snapshots = streamed
    found = audited(kit, [*reversed(snapshots), *snapshots[:5], *inputs, *inputs[:9]])
    assert found == audited(kit, inputs + snapshots)


def test_the_audit_sees_a_lost_a_changed_and_a_forged_snapshot(kit: Any, streamed: tuple[list[Any], list[Any]]) -> None:
    inputs, snapshots = streamed
    lost = audited(kit, inputs + snapshots[1:])
    assert (lost.snapshots, lost.unanswered) == (39, 1)
    changed = snapshots[0]._replace(value=snapshots[0].value.replace(b'"currency":"USD"', b'"currency":"EUR"'))
    assert audited(kit, [*inputs, *snapshots, changed]).conflicts == 1
    assert audited(kit, [*inputs, changed, *snapshots[1:]]).broken_hashes == 1
    assert audited(kit, snapshots).unasked == 40


def test_the_audit_leaves_out_what_lies_beyond_the_window(kit: Any) -> None:
    late = sample.Feed()
    payment = kit.payments(1)[0]
    ts_us, kind, payload = next(part for part in late.parts(payment) if part[1] is Kind.AUTH_REQUEST)
    out = late.event(kind, kit.end_us + ts_us - payment.ts_us, payment.merchant_id, "e-late", payload)
    bus = kit.bus([out])
    (record,) = bus.read((out.topic, out.partition), 0, 1)
    assert audited(kit, [record]).requests == 0
