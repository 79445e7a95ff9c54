"""What a member does with records that are foreign, broken, forged or missing."""

from collections import Counter
from typing import Any

import pytest

from fp_contracts import topics
from fp_contracts.header import Header, Kind, pack, unpack
from fp_contracts.reasons import Quarantine
from fp_rtdl import sample
from fp_runtime.bus import Out
from fp_runtime.errors import LaneStopped

N = 60


def test_other_runs_and_canaries_are_skipped_and_counted(kit: Any, lines: list[Out], expected: Any) -> None:
    foreign = sample.world(sample.Feed("platform_20250101T000000Z"), kit.payments(5), kit.end_us)
    canary = Header(Kind.CANARY, sample.plan(0).tag, "ig-0", 0, 0)
    outs = [*foreign, Out(topics.TRAFFIC, 0, b"", b"", pack(canary)), *lines]
    bus, checkpoints = kit.bus(outs), kit.checkpoints()
    kit.member(bus, checkpoints, sample.plan(kit.end_us)).turns()
    counts: Counter[str] = Counter()
    for checkpoint in checkpoints.saved:
        for span in checkpoint.spans:
            counts.update(span.counts if span.topic != topics.LABELS else {})
    assert counts["OTHER_RUN"] == sum(out.topic != topics.LABELS for out in foreign)
    assert counts["CANARY"] == 1
    assert len(kit.published(bus)) == len(expected)


def broken(out: Out) -> Out:
    return out._replace(value=b"{")


def test_a_broken_record_is_set_aside_and_the_rest_goes_on(kit: Any, lines: list[Out], expected: Any) -> None:
    other = next(at for at, out in enumerate(lines) if unpack(out.header).kind is Kind.ARRIVAL_EVENT)
    outs = [broken(out) if at == other else out for at, out in enumerate(lines)]
    bus, checkpoints = kit.bus([Out(topics.TRAFFIC, 2, b"k", b"x", b"no header"), *outs]), kit.checkpoints()
    kit.member(bus, checkpoints, sample.plan(kit.end_us)).turns()
    aside = [item for checkpoint in checkpoints.saved for item in checkpoint.quarantined]
    assert sorted(item.record.value for item in aside) == [b"x", b"{"]
    assert {item.reason for item in aside} == {Quarantine.UNDECODABLE}
    assert len(kit.published(bus)) == len(expected)
    assert all(checkpoint.position.open_gaps == 0 for checkpoint in checkpoints.saved)


def test_a_source_that_is_no_input_of_the_lane_is_set_aside(kit: Any, lines: list[Out]) -> None:
    foreign = next(out for out in lines if out.topic == topics.TRAFFIC)
    header = unpack(foreign.header)
    forged = Header(header.kind, header.run_tag, "ig-9", header.seq, header.order_us, header.payload_hash)
    checkpoints = kit.checkpoints()
    bus = kit.bus([foreign._replace(header=pack(forged)), *lines])
    kit.member(bus, checkpoints, sample.plan(kit.end_us)).turns()
    assert [item.reason for c in checkpoints.saved for item in c.quarantined] == [Quarantine.CONTRACT_BROKEN]
    assert len(kit.published(bus)) == N


def test_twenty_broken_records_in_a_row_stop_the_lane(kit: Any) -> None:
    noise = [Out(topics.ARRIVAL_EVENTS, 0, b"k", b"x", b"no header")] * 20
    with pytest.raises(LaneStopped):
        kit.member(kit.bus(noise), kit.checkpoints(), sample.plan(kit.end_us)).turns()


def test_an_open_gap_holds_the_partition_and_is_told(kit: Any, lines: list[Out]) -> None:
    lost = next(out for out in lines if out.topic == topics.FLOW_ANCHOR)
    checkpoints = kit.checkpoints()
    bus = kit.bus([out for out in lines if out is not lost])
    kit.member(bus, checkpoints, sample.plan(kit.end_us)).turns()
    last = {c.part: c.position for c in checkpoints.saved}
    assert last[lost.partition].open_gaps == 1
    assert last[lost.partition].bound_us < kit.end_us
    kit.write(bus, [lost])  # the writer re-publishes: everything goes on
    kit.member(bus, checkpoints, sample.plan(kit.end_us)).turns()
    assert len(kit.published(bus)) == N
