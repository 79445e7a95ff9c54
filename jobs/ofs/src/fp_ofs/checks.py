"""The predicates of a build with both of their sides, and the documents that show them. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fp_contracts.dataset import BuildIntent
from fp_contracts.evaluation import Predicate
from fp_contracts.timestamps import to_text
from fp_ofs.archive import ArchiveReader
from fp_ofs.errors import BASIS, BUILD, LEAKAGE
from fp_ofs.leakage import Finding
from fp_ofs.material import Material
from fp_ofs.parity import Parity
from fp_ofs.quality import conflict_ppm, coverage_ppm
from fp_ofs.rows import Rows


def readiness(intent: BuildIntent, material: Material, rows: Rows) -> list[Predicate]:
    """Whether the input is what learning may start from."""
    as_of_us, floors = intent.labels.as_of_us, intent.floors
    coverage, conflicts = coverage_ppm(rows.counts), conflict_ppm(rows.counts)
    return [
        _predicate(
            "label_as_of", to_text(as_of_us), f"≤ {to_text(material.horizon_us)}, up to which labels are complete",
            as_of_us <= material.horizon_us, LEAKAGE,
        ),
        _predicate(
            "label_coverage", f"{coverage} ppm of mature payments", f"≥ {floors.coverage_ppm} ppm",
            coverage >= floors.coverage_ppm, BASIS,
        ),
        _predicate(
            "label_conflicts", f"{conflicts} ppm of mature payments", f"≤ {floors.conflict_ppm} ppm",
            conflicts <= floors.conflict_ppm, LEAKAGE,
        ),
    ]  # fmt: skip


def readiness_document(
    intent: BuildIntent, fingerprint: str, material: Material, rows: Rows, reader: ArchiveReader
) -> dict[str, Any]:
    """The input: the basis as read, the label rule, and what became of every payment."""
    return {
        "dataset_fingerprint": fingerprint,
        "intent": intent.model_dump(mode="json"),
        "label_horizon_us": material.horizon_us,
        "label_assertions": len(material.labels),
        "stream": material.stream,
        "basis_records": sum(part.end - part.start for part in reader.ranges.values()),
        "label_counts": rows.counts.model_dump(),
        "coverage_ppm": coverage_ppm(rows.counts),
        "conflict_ppm": conflict_ppm(rows.counts),
    }


def leakage(findings: Sequence[Finding]) -> list[Predicate]:
    """One predicate per check: clean, and seen to fail on its poison."""
    return [
        _predicate(
            one.name, f"{one.violations} violating, poison {'caught' if one.caught else 'passed'}",
            "0 violating, poison caught", one.ok, LEAKAGE,
        )
        for one in findings
    ]  # fmt: skip


def leakage_document(findings: Sequence[Finding], sampled: int) -> dict[str, Any]:
    """Every check with what it found and what was planted to prove it."""
    return {
        "findings": [
            {"name": one.name, "violations": one.violations, "planted": one.planted, "poison_caught": one.caught}
            for one in findings
        ],
        "future_blind_sample": sampled,
    }


def parity(found: Parity) -> list[Predicate]:
    """Online/offline parity is 100 % or nothing."""
    observed = f"{found.equal} of {found.payments} equal, {found.extra} served beside, {found.twice} served twice"
    return [_predicate("online_offline_parity", observed, "all equal, none beside, none twice", found.ok, BUILD)]


def quality(intent: BuildIntent, rows: Rows) -> list[Predicate]:
    """Floors of the rows, and features that are numbers."""
    counts, floors = rows.counts, intent.floors
    total, broken = rows.table.num_rows, int((~np.isfinite(rows.matrix)).sum())
    eligible = counts.fraud + counts.legit
    return [
        _predicate("rows_are_eligible_decisions", f"{total} rows", f"= {eligible}", total == eligible, BUILD),
        _predicate("rows", str(total), f"≥ {floors.rows}", total >= floors.rows, BUILD),
        _predicate("frauds", str(counts.fraud), f"≥ {floors.frauds}", counts.fraud >= floors.frauds, BUILD),
        _predicate("features_are_finite", f"{broken} that are not", "= 0", broken == 0, BUILD),
    ]


def _predicate(name: str, observed: str, required: str, ok: bool, code: str) -> Predicate:
    return Predicate(name, observed, required, ok, code, final=True)
