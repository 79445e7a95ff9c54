"""What the input stage kept: reused by the dataset stage while it holds, else recomputed."""

from collections.abc import Callable
from typing import Any

import pytest

from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import OfsRequest, OfsResult
from fp_ofs import kept

Spoil = Callable[[Any, OfsResult], EvidenceRef]


def asking(bench: Any, material: EvidenceRef | None) -> OfsRequest:
    found: OfsRequest = bench.request("dataset").model_copy(update={"material": material})
    return found


def left(bench: Any) -> OfsResult:
    """The input stage's result; what it said on the way is forgotten."""
    found: OfsResult = bench.build(bench.request("input"))
    assert found.material is not None
    bench.stages.clear()
    return found


def without_material(bench: Any) -> dict[str, bytes]:
    return {key: body for key, body in bench.files().items() if "/material/" not in key}


@pytest.fixture(scope="module")
def anew(kit: Any) -> dict[str, bytes]:
    """Every object of a build that recomputed everything."""
    bench = kit.bench()
    assert bench.build().material is None
    found: dict[str, bytes] = bench.files()
    return found


def test_kept_material_gives_the_same_dataset_and_is_said_to_be_reused(kit: Any, anew: dict[str, bytes]) -> None:
    bench = kit.bench()
    found = left(bench)
    built = bench.build(asking(bench, found.material))
    assert built.status == "PUBLISHED"
    assert built.material == found.material
    assert without_material(bench) == anew
    assert "read" not in bench.stages
    assert "served" in bench.stages, "what was served is never taken from the input stage"


def _flipped(bench: Any, found: OfsResult) -> EvidenceRef:
    assert found.material is not None
    path = bench.root / "out" / found.material.key
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(body))
    return found.material


def _gone(bench: Any, found: OfsResult) -> EvidenceRef:
    assert found.material is not None
    (bench.root / "out" / found.material.key).unlink()
    return found.material


def _without_its_report(bench: Any, found: OfsResult) -> EvidenceRef:
    assert found.material is not None
    assert found.leakage is not None
    (bench.root / "out" / found.leakage.key).unlink()
    return found.material


def _no_material(_bench: Any, found: OfsResult) -> EvidenceRef:
    assert found.readiness is not None
    return found.readiness


def _of_another_build(bench: Any, found: OfsResult) -> EvidenceRef:
    whole = kept.unpack(bench.out, found.material, found.dataset_fingerprint)
    assert whole is not None
    ref: EvidenceRef = bench.out.put("datasets/other", kept.pack(whole, "0" * 64))
    return ref


@pytest.mark.parametrize("spoil", [_flipped, _gone, _without_its_report, _no_material, _of_another_build])
def test_material_that_does_not_hold_is_recomputed(kit: Any, anew: dict[str, bytes], spoil: Spoil) -> None:
    bench = kit.bench()
    built = bench.build(asking(bench, spoil(bench, left(bench))))
    assert built.status == "PUBLISHED"
    assert built.material is None
    assert "read" in bench.stages
    assert {key: body for key, body in without_material(bench).items() if key != "datasets/other"} == anew


def test_a_served_vector_that_differs_is_seen_with_kept_material_too(kit: Any) -> None:
    bench = kit.bench()
    found = left(bench)
    whole = kept.unpack(bench.out, found.material, found.dataset_fingerprint)
    assert whole is not None
    vectors = whole.payments.column("vector").to_pylist()
    vectors[0] = vectors[0][:-8] + b"\1" * 8
    at = whole.payments.schema.get_field_index("vector")
    changed = whole.payments.set_column(at, whole.payments.schema.field(at), [vectors])
    other = kept.Kept(changed, whole.labels, whole.readiness, whole.leakage)
    ref = bench.out.put("datasets/changed", kept.pack(other, found.dataset_fingerprint))
    built = bench.build(asking(bench, ref))
    assert built.status == "BLOCKED"
    assert [blocker.code for blocker in built.blockers] == ["DFULL-RUN-B13"]
