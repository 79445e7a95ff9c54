"""What is recomputed from the archive equals what rtdl and df served, on any world; and every difference is seen."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fp_contracts.derive import snapshot_hash, vector_text
from fp_features import CORE_V1, pack
from fp_ofs.archive import ArchiveReader
from fp_ofs.engine import Embedded
from fp_ofs.material import Material, gather, read_served
from fp_ofs.parity import Served, compare
from fp_ofs.payments import FLOAT_BYTES, expected_hash
from fp_ofs.records import ServedDecision

WIDTH = FLOAT_BYTES * len(CORE_V1.snapshot_names)


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Nobody listens."""


def both_sides(bench: Any) -> tuple[Material, Served]:
    intent = bench.request().intent
    reader = ArchiveReader(bench.archive, intent.platform_run_id, intent.basis)
    return gather(reader, intent, Embedded(), quiet), read_served(reader, intent, quiet)


@pytest.fixture(scope="module")
def sides(kit: Any) -> tuple[Material, Served]:
    return both_sides(kit.bench())


def copy_of(served: Served) -> Served:
    return Served(dict(served.snapshots), dict(served.decisions))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 70), size=st.integers(1, 200))
def test_any_world_is_recomputed_bit_for_bit(kit: Any, seed: int, count: int, size: int) -> None:
    material, served = both_sides(kit.bench(kit.world(seed, count), size))
    found = compare(material.payments, served, CORE_V1)
    assert found.rows == ()
    assert found.ok
    assert count - count // 9 <= found.payments <= count  # a late request may fall behind the window's end


def test_the_standard_world_has_what_makes_joins_hard(sides: tuple[Material, Served]) -> None:
    reasons = set(",".join(sides[0].payments.column("reasons").to_pylist()).split(","))
    assert {"JOIN_TIMEOUT", "WINDOW_END", "FLOW_REBIND"} <= reasons
    assert None in sides[0].payments.column("account_id").to_pylist()
    risk = CORE_V1.names.index("merchant_risk_30d")
    matrix = np.frombuffer(b"".join(sides[0].payments.column("vector").to_pylist())).reshape(-1, len(CORE_V1.names))
    assert (matrix[:, risk] > 0).any()


def test_the_expected_hash_is_that_of_the_contract(sides: tuple[Material, Served]) -> None:
    for fact in sides[0].payments.to_pylist():
        vector = fact["vector"][:WIDTH]
        reasons = fact["reasons"].split(",") if fact["reasons"] else []
        payload = {
            **fact, "feature_vector": vector_text(vector), "feature_schema_digest": CORE_V1.schema_digest,
            "join_status": "DEGRADED" if reasons else "READY", "degrade_reasons": reasons,
        }  # fmt: skip
        wanted = snapshot_hash(payload, fact["event_id"])
        assert expected_hash(fact, vector, CORE_V1.schema_digest) == wanted


def test_one_bit_of_a_decision_is_seen_and_named(sides: tuple[Material, Served]) -> None:
    material, served = sides[0], copy_of(sides[1])
    event_id, decision = next(iter(served.decisions.items()))
    values = np.frombuffer(decision.vector).copy()
    values[-1] = np.nextafter(values[-1], np.inf)
    served.decisions[event_id] = decision._replace(vector=pack(values))
    found = compare(material.payments, served, CORE_V1)
    assert not found.ok
    assert found.equal == found.payments - 1
    assert found.rows[0]["event_id"] == event_id
    assert found.rows[0]["what"] == "decision vector"
    assert found.rows[0]["feature"] == CORE_V1.names[-1]
    assert float(found.rows[0]["offline"]) != float(found.rows[0]["served"])


def test_one_bit_of_a_snapshot_is_seen_although_its_hash_stands(sides: tuple[Material, Served]) -> None:
    material, served = sides[0], copy_of(sides[1])
    event_id, (digest, vector) = next(iter(served.snapshots.items()))
    served.snapshots[event_id] = digest, bytes([vector[0] ^ 1]) + vector[1:]
    found = compare(material.payments, served, CORE_V1)
    assert (found.ok, found.rows[0]["what"], found.rows[0]["feature"]) == (False, "snapshot vector", CORE_V1.names[0])


def test_a_field_that_is_no_feature_is_seen_by_the_hash(sides: tuple[Material, Served]) -> None:
    material, served = sides[0], copy_of(sides[1])
    event_id, (_, vector) = next(iter(served.snapshots.items()))
    served.snapshots[event_id] = "f" * 64, vector
    found = compare(material.payments, served, CORE_V1)
    assert not found.ok
    assert found.rows[0]["what"].startswith("snapshot_hash")


@pytest.mark.parametrize("table", ["snapshots", "decisions"])
def test_a_payment_that_was_not_served_is_a_difference(sides: tuple[Material, Served], table: str) -> None:
    material, served = sides[0], copy_of(sides[1])
    event_id = next(iter(getattr(served, table)))
    del getattr(served, table)[event_id]
    found = compare(material.payments, served, CORE_V1)
    assert not found.ok
    assert (found.missing_snapshots, found.missing_decisions) == (int(table == "snapshots"), int(table == "decisions"))
    assert found.rows == ({"event_id": event_id, "what": f"no {table[:-1]}"},)


def test_what_was_served_beside_is_a_difference(sides: tuple[Material, Served]) -> None:
    material, served = sides[0], copy_of(sides[1])
    served.decisions["ghost"] = ServedDecision("ghost", "f" * 64, b"", "ALLOW", "NORMAL", "p")
    found = compare(material.payments, served, CORE_V1)
    assert (found.ok, found.extra, found.rows[0]["event_id"]) == (False, 1, "ghost")


def test_a_second_decision_with_other_content_is_a_difference(sides: tuple[Material, Served]) -> None:
    material, served = sides[0], copy_of(sides[1])
    decision = next(iter(served.decisions.values()))
    served.take(decision)
    assert compare(material.payments, served, CORE_V1).ok
    served.take(decision._replace(action="OTHER"))
    assert not compare(material.payments, served, CORE_V1).ok


def test_nothing_compared_is_no_parity(sides: tuple[Material, Served]) -> None:
    empty: pa.Table = sides[0].payments.slice(0, 0)
    assert not compare(empty, Served(), CORE_V1).ok


def test_twenty_rows_are_shown_at_most(sides: tuple[Material, Served]) -> None:
    found = compare(sides[0].payments, Served(), CORE_V1)
    assert (found.missing_decisions, len(found.rows)) == (found.payments, 20)
