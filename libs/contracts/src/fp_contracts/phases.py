"""The phase registry: owner, what opens it, evidence and blockers of every phase (spec §4-5, gates.md).

The verdict's expected matrix, the board, `fp why`, the docs and the tests derive from this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: `opens` names the phases that must have passed; evidence is `<folder>/<execution id>/<name>.json`."""

    key: str
    name: str
    owner: str
    opens: tuple[str, ...]
    folder: str
    evidence: tuple[str, ...]
    blockers: tuple[str, ...]
    spine: bool
    risk: str
    governance: tuple[str, ...] = ()

    def evidence_key(self, run: str, execution_id: str, name: str) -> str:
        """The key below the evidence root of one object of an attempt."""
        folder = "governance" if name in self.governance else self.folder
        return f"evidence/runs/{run}/{folder}/{execution_id}/{name}.json"


def _b(*suffixes: str) -> tuple[str, ...]:
    return tuple(f"DFULL-RUN-B{suffix}" for suffix in suffixes)


_REGISTRY = (
    Phase("P(-1)", "PACKAGING_READY", "operator", (), "packaging",
          ("digest_manifest", "sbom", "provenance", "release_receipt"), _b("P1", "P2"), True,
          "running code that nobody built on purpose"),
    Phase("P0", "SUBSTRATE_READY", "operator", ("P(-1)",), "substrate",
          ("stack_snapshots", "handle_conformance", "budget"), _b("0", "0.1"), True,
          "starting on missing or half-made infrastructure"),
    Phase("P1", "RUN_PINNED", "sr", ("P0",), "run_pin", ("run_header", "run_lock_receipt", "start_offsets"),
          _b("1", "1.1"), True, "a run whose configuration is not known"),
    Phase("P2", "DAEMONS_READY", "verdict", ("P1",), "operate", ("daemon_readiness", "binding_matrix"),
          _b("2", "2.1"), True, "a missing or foreign service in the run"),
    Phase("P3", "ORACLE_READY", "wsp", ("P1", "P2"), "oracle", ("readiness", "required_outputs"),
          _b("3", "3.1"), True, "replaying a broken or leaking world"),
    Phase("P4", "INGEST_READY", "ig", ("P2",), "ingest", ("preflight",), _b("4", "4.1"), True,
          "an open or unready gateway"),
    Phase("P5", "READY_PUBLISHED", "sr", ("P3", "P4"), "sr", ("ready_event_proof", "ready_receipt"),
          _b("5", "5.1"), True, "two starts of one run"),
    Phase("P6", "STREAMING_ACTIVE", "wsp", ("P5",), "streaming", ("counters", "lag_posture"), _b("6", "6.1"), True,
          "a stream that stalls or is ambiguous"),
    Phase("P7", "INGEST_COMMITTED", "ig", ("P6",), "ingest",
          ("receipt_summary", "quarantine_summary", "offset_proof"), _b("7", "7.1"), True,
          "lost or doubled admissions"),
    Phase("P8", "RTDL_CAUGHT_UP", "rtdl", ("P7",), "rtdl", ("core_snapshot", "archive_closure"), _b("8", "8.1"), True,
          "payments without a snapshot, facts without an archive"),
    Phase("P9", "DECISION_CHAIN_COMMITTED", "df", ("P8",), "decision",
          ("decision_snapshot", "action_snapshot", "audit_snapshot"), _b("9", "9.1"), True,
          "undecided payments, unaudited decisions"),
    Phase("P10", "CASE_LABELS_COMMITTED", "cm_ls", ("P9",), "case_labels", ("closure", "append_proofs"),
          _b("10", "10.1"), True, "escalations nobody looks at, labels lost"),
    Phase("P11", "SPINE_OBS_GOV_CLOSED", "verdict", ("P8", "P9", "P10"), "obs",
          ("run_report", "reconciliation", "non_regression", "log", "closure_marker"), _b("11", "11.1"), True,
          "an unreconciled spine", ("log", "closure_marker")),
    Phase("P12", "LEARNING_INPUT_READY", "ofs_trigger", ("P11",), "learning/input", ("readiness", "leakage_report"),
          _b("12", "12.1"), False, "learning from the future"),
    Phase("P13", "OFS_DATASET_COMMITTED", "ofs_trigger", ("P12",), "learning/ofs",
          ("manifest", "fingerprint", "quality", "parity", "rollback_recipe", "telemetry"), _b("13", "13.1"), False,
          "a dataset that cannot be rebuilt"),
    Phase("P14", "MF_EVAL_COMMITTED", "ofs_trigger", ("P13",), "learning/mf",
          ("eval_report", "mlflow_refs", "bundle_receipt", "safe_disable"), _b("14", "14.1"), False,
          "a model worse than none"),
    Phase("P15", "MPR_PROMOTION_COMMITTED", "ofs_trigger", ("P14",), "learning/mpr",
          ("promotion_receipt", "rollback_drill", "active_resolution", "compatibility", "window_2", "telemetry"),
          _b("15", "15.1"), False, "a promotion that cannot be undone"),
    Phase("P16", "FULL_PLATFORM_CLOSED", "verdict", ("P11",), "full_platform",
          ("source_matrix", "proof_matrix", "final_verdict"), _b("16", "16.1"), False,
          "a verdict nobody can recompute"),
    Phase("P17", "TEARDOWN_IDLE_SAFE", "operator", ("P16",), "teardown",
          ("snapshot", "cost_guardrail", "residual_scan", "readability"), _b("17", "17.1"), False,
          "cost and residue after the run"),
)  # fmt: skip
PHASES: Mapping[str, Phase] = MappingProxyType({phase.key: phase for phase in _REGISTRY})
ORDER = tuple(PHASES)
SPINE = tuple(phase.key for phase in _REGISTRY if phase.spine)
VERDICT_INPUTS = tuple(key for key in ORDER if key not in ("P(-1)", "P0", "P16", "P17"))


def _known(key: str) -> str:
    if key not in PHASES:
        raise ValueError("no such phase")
    return key


PhaseKey = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(ORDER)})]
"""A field that names a phase of the registry: whoever folds a record may look its phase up."""


def blocker_phase(code: str) -> str:
    """The phase a blocker code belongs to; KeyError for a code the spec does not know."""
    for phase in _REGISTRY:
        if code in phase.blockers:
            return phase.key
    raise KeyError(code)
