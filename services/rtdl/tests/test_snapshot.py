"""The bytes of a snapshot are those of the contracts' own writer, and its hash is the contracts' recipe."""

import orjson
import pytest

from fp_contracts.derive import snapshot_hash
from fp_contracts.downstream import FeatureSnapshot
from fp_contracts.header import Kind, unpack
from fp_contracts.ids import h32
from fp_contracts.partition import partition_of
from fp_contracts.records import body_of, read_derived
from fp_features import CORE_V1, pack
from fp_rtdl import sample
from fp_rtdl.decode import Anchor, Arrival, Auth, Entities
from fp_rtdl.domain import Snapshot
from fp_rtdl.snapshot import SnapshotWriter

KEY = ('m-ü"\\-1', 3)
AUTH = Auth("e-1", "flow-1", KEY[0], sample.START_US, 999, "EUR", 40, "00-trace")
ANCHOR = Anchor("flow-1", KEY, "acc-1", "card-1", 999, "EUR", 30)
ARRIVAL = Arrival(KEY, "ECOM", 10)
ENTITIES = Entities(KEY, "acc-1", "card-9", None, 20)
VECTOR = pack(float(number) for number in range(len(CORE_V1.snapshot_names)))
CASES = {
    "ready": Snapshot(AUTH, ANCHOR, ARRIVAL, ENTITIES, (), sample.START_US + 5, 77, VECTOR),
    "no entities": Snapshot(AUTH, ANCHOR, ARRIVAL, None, ("JOIN_TIMEOUT",), sample.START_US + 5, 77, VECTOR),
    "nothing": Snapshot(AUTH._replace(traceparent=None), None, None, None, ("WINDOW_END", "FLOW_REBIND"), 1, 1, b""),
}


@pytest.mark.parametrize("case", CASES)
def test_bytes_equal_those_of_body_of(case: str) -> None:
    snapshot = CASES[case]
    out = SnapshotWriter(sample.pins_of(), 4, 6).write(snapshot)
    envelope, payload = read_derived(out.value)
    assert isinstance(payload, FeatureSnapshot)
    event_id = h32("snapshot", sample.RUN, "e-1")
    trace = snapshot.auth.traceparent
    expected = body_of(sample.pins_of(), "feature_snapshot", event_id, snapshot.release_us, "rtdl", payload, trace)
    assert out.value == expected
    assert envelope.event_id == event_id


@pytest.mark.parametrize("case", CASES)
def test_hash_is_the_contracts_recipe_and_stands_in_the_header(case: str) -> None:
    out = SnapshotWriter(sample.pins_of(), 4, 6).write(CASES[case])
    payload = orjson.loads(out.value)["payload"]
    header = unpack(out.header)
    assert payload["snapshot_hash"] == snapshot_hash(payload, "e-1") == header.payload_hash.hex()
    assert (header.kind, header.source, header.seq) == (Kind.FEATURE_SNAPSHOT, "rtdl:4", 1)
    assert header.order_us == CASES[case].release_us


def test_key_is_the_account_or_the_flow_without_one() -> None:
    writer = SnapshotWriter(sample.pins_of(), 4, 6)
    keyed, unkeyed = writer.write(CASES["ready"]), writer.write(CASES["nothing"])
    assert (keyed.key, keyed.partition) == (b"acc-1", partition_of("acc-1", 6))
    assert (unkeyed.key, unkeyed.partition) == (b"flow-1", partition_of("flow-1", 6))


def test_sequences_are_dense_per_target() -> None:
    writer = SnapshotWriter(sample.pins_of(), 0, 6)
    seqs: dict[int, list[int]] = {}
    for number in range(60):
        out = writer.write(CASES["ready"]._replace(anchor=ANCHOR._replace(account_id=f"acc-{number}")))
        seqs.setdefault(out.partition, []).append(unpack(out.header).seq)
    assert set(seqs) == set(range(6))
    assert all(found == list(range(1, len(found) + 1)) for found in seqs.values())
