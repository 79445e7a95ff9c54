"""The join of one partition: what completes a payment, what a deadline does, what late and doubled parts do."""

from itertools import permutations

import pytest

from fp_contracts import topics
from fp_features import CORE_V1, unpack
from fp_rtdl.decode import Anchor, Arrival, Auth, Entities, Label, Value
from fp_rtdl.domain import PartitionJoin, Rules, Snapshot
from fp_runtime.eventtime.merge import Head

T0 = 1_767_225_600_000_000
END = T0 + 60_000_000
RULES = Rules(join_wait_us=2_000_000, horizon_us=10_000_000, window_ends=(END,))
KEY = ("m-1", 1)
ARRIVAL = Arrival(KEY, "ECOM", 1)
ENTITIES = Entities(KEY, "acc-1", "card-1", "dev-1", 2)
ANCHOR = Anchor("flow-1", KEY, "acc-1", "card-0", 500, "USD", 3)
AUTH = Auth("e-1", "flow-1", "m-1", T0, 500, "USD", 4, None)
RANK = {Label: 0, Arrival: 1, Entities: 2, Anchor: 3, Auth: 4, type(None): 4}


class Harness:
    """Feeds heads one by one or all at once."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.join = PartitionJoin(rules, lambda _: True)
        self._seq = 0

    def head(self, order_us: int, value: Value) -> Head:
        self._seq += 1
        return Head(order_us, RANK[type(value)], "ig-0", self._seq, topics.TRAFFIC, self._seq, "", value)

    def feed(self, *timed: tuple[int, Value], bound_us: int | None = None) -> list[Snapshot]:
        heads = [self.head(order_us, value) for order_us, value in timed]
        return list(self.join.merge(heads, bound_us if bound_us is not None else heads[-1].order_us + 1))

    def end(self, bound_us: int = END) -> list[Snapshot]:
        return list(self.join.merge([], bound_us))


@pytest.fixture
def h() -> Harness:
    return Harness()


@pytest.mark.parametrize("order", list(permutations([ARRIVAL, ENTITIES, ANCHOR, AUTH])))
def test_any_order_of_the_parts_completes_one_ready_snapshot_at_the_last(h: Harness, order: tuple[Value, ...]) -> None:
    timed = [(T0 + step, part) for step, part in enumerate(order)]
    assert h.feed(*timed[:3]) == []
    (snapshot,) = h.feed(timed[3])
    assert (snapshot.anchor, snapshot.arrival, snapshot.entities) == (ANCHOR, ARRIVAL, ENTITIES)
    assert snapshot.reasons == ()
    assert (snapshot.release_us, snapshot.merged_n) == (T0 + 3, 4)
    assert h.end() == []


@pytest.mark.parametrize("missing", [ARRIVAL, ENTITIES, ANCHOR])
def test_a_part_that_stays_away_degrades_at_the_deadline_in_the_order(h: Harness, missing: Value) -> None:
    there = [part for part in (ARRIVAL, ENTITIES, ANCHOR) if part is not missing]
    h.feed(*((T0, part) for part in there), (T0, AUTH))
    assert h.end(T0 + 2_000_000) == []  # a tie at the deadline may still come
    (snapshot,) = h.end(T0 + 2_000_001)
    assert snapshot.reasons == ("JOIN_TIMEOUT",)
    assert snapshot.release_us == T0 + 2_000_000
    assert (snapshot.anchor is None) == (missing is ANCHOR)
    # Without an anchor nothing says which arrival it was.
    assert (snapshot.arrival is None) == (missing in (ARRIVAL, ANCHOR))


def test_a_part_at_the_very_deadline_is_in_time_and_one_after_it_is_late(h: Harness) -> None:
    h.feed((T0, ARRIVAL), (T0, ENTITIES), (T0, AUTH))
    (snapshot,) = h.feed((T0 + 2_000_000, ANCHOR))
    assert snapshot.reasons == ()
    late = Harness()
    late.feed((T0, ARRIVAL), (T0, ENTITIES), (T0, AUTH))
    (snapshot,) = late.feed((T0 + 2_000_001, ANCHOR))
    assert (snapshot.reasons, snapshot.anchor) == (("JOIN_TIMEOUT",), None)


def test_the_window_end_cuts_the_wait_and_says_so(h: Harness) -> None:
    late = AUTH._replace(ts_us=END - 1_000)
    h.feed((END - 1_000, late))
    (snapshot,) = h.end(END)
    assert (snapshot.reasons, snapshot.release_us) == (("WINDOW_END",), END - 1)
    assert h.join.frontier(END) == END


def test_each_window_has_its_own_end() -> None:
    h = Harness(Rules(2_000_000, 10_000_000, (T0 + 1_000, END)))
    (first,) = h.feed((T0, AUTH), bound_us=T0 + 1_000)
    assert (first.reasons, first.release_us) == (("WINDOW_END",), T0 + 999)
    h.feed((T0 + 1_000, AUTH._replace(event_id="e-2", ts_us=T0 + 1_000)))
    assert [entry.at_us for entry in h.join.waiting()] == [T0 + 2_001_000]


def test_a_request_that_comes_long_after_its_time_does_not_pull_the_clock_back(h: Harness) -> None:
    h.feed((T0 + 30_000_000, ARRIVAL))
    (snapshot,) = h.feed((T0 + 30_000_000, AUTH), bound_us=T0 + 30_000_001)
    assert (snapshot.reasons, snapshot.release_us) == (("JOIN_TIMEOUT",), T0 + 30_000_000)


def test_context_is_kept_for_the_horizon_of_event_time_and_not_longer(h: Harness) -> None:
    for at, part in ((T0, ARRIVAL), (T0, ENTITIES), (T0, ANCHOR)):
        h.feed((at, part))
    (in_time,) = h.feed((T0 + 10_000_000, AUTH._replace(ts_us=T0 + 10_000_000)))
    assert in_time.reasons == ()
    h.feed((T0 + 10_000_001, AUTH._replace(event_id="e-2", ts_us=T0 + 10_000_001)))
    assert len(h.join.context) == 0
    assert h.join.context.flows == {}
    (late,) = h.end()
    assert (late.anchor, late.reasons) == (None, ("JOIN_TIMEOUT",))


def test_a_second_other_binding_is_an_anomaly_and_never_rebinds(h: Harness) -> None:
    other = ANCHOR._replace(key=("m-1", 2), offset=9)
    h.feed((T0, ARRIVAL), (T0, ENTITIES), (T0, ANCHOR), (T0, other))
    (snapshot,) = h.feed((T0 + 1, AUTH))
    assert snapshot.anchor == ANCHOR
    assert snapshot.reasons == ("FLOW_REBIND",)
    assert [(again.flow_id, again.standing_offset, again.offset) for again in h.join.rebinds] == [("flow-1", 3, 9)]


def test_the_same_binding_again_changes_nothing(h: Harness) -> None:
    h.feed((T0, ARRIVAL), (T0, ENTITIES), (T0, ANCHOR), (T0, ANCHOR._replace(offset=9)))
    (snapshot,) = h.feed((T0 + 1, AUTH))
    assert (snapshot.anchor, snapshot.reasons, h.join.rebinds) == (ANCHOR, (), [])


def test_two_requests_of_one_flow_get_one_snapshot_each_in_their_order(h: Harness) -> None:
    h.feed((T0, ARRIVAL), (T0, ENTITIES), (T0, AUTH), (T0 + 1, AUTH._replace(event_id="e-2")))
    found = h.feed((T0 + 2, ANCHOR))
    assert [snapshot.auth.event_id for snapshot in found] == ["e-1", "e-2"]
    assert h.end() == []


def test_one_arrival_completes_every_flow_that_waits_for_it(h: Harness) -> None:
    second = ANCHOR._replace(flow_id="flow-2")
    h.feed((T0, ENTITIES), (T0, ANCHOR), (T0, second), (T0, AUTH),
           (T0, AUTH._replace(event_id="e-2", flow_id="flow-2")))  # fmt: skip
    assert len(h.feed((T0 + 1, ARRIVAL))) == 2


def test_the_frontier_never_passes_a_pending_deadline(h: Harness) -> None:
    h.feed((T0, AUTH))
    assert h.join.frontier(T0 + 1_000_000) == T0 + 1_000_000
    assert h.join.frontier(END) == T0 + 2_000_000
    h.end()
    assert h.join.frontier(END) == END


@pytest.mark.parametrize(("label_at", "risk"), [(0, 1.0), (1, 0.0)])
def test_a_label_counts_for_the_features_from_its_order_ts_on(label_at: int, risk: float) -> None:
    day = 86_400_000_000
    asked = T0 + 8 * day
    h = Harness(Rules(2_000_000, 10_000_000, (T0 + 60 * day,)))
    h.feed((T0, ARRIVAL), (T0, ENTITIES), (T0, ANCHOR), (T0, AUTH))
    label = Label("e-1", "m-1", "fraud_disposition", "FRAUD_CONFIRMED", "EXTERNAL", T0, T0 + 6 * day)
    heads: list[tuple[int, Value]] = [
        (asked, ARRIVAL),
        (asked, ENTITIES),
        (asked, ANCHOR),
        (asked, AUTH._replace(event_id="e-9", ts_us=asked)),
    ]
    heads.insert(4 * label_at, (asked + label_at, label))
    (snapshot,) = h.feed(*heads)
    values = dict(zip(CORE_V1.snapshot_names, unpack(snapshot.vector), strict=True))
    assert values["merchant_risk_7d"] == risk


def test_labels_of_merchants_of_other_partitions_are_merged_and_not_applied() -> None:
    h = Harness()
    h.join = PartitionJoin(RULES, lambda merchant: merchant != "m-2")
    h.feed((T0, Label("e-0", "m-2", "fraud_disposition", "FRAUD_CONFIRMED", "EXTERNAL", T0, T0)))
    assert (h.join.n, h.join.counts["labels"], h.join.merchants) == (1, 0, {})
