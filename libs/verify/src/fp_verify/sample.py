"""A complete synthetic run whose spine is green, for tests: control records and every object they name. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fp_contracts import control as c
from fp_contracts import topics
from fp_contracts.canonical import canonical_bytes, digest_of, sha256_hex
from fp_contracts.ids import h32, phase_execution_id
from fp_contracts.phases import ORDER, PHASES, SPINE
from fp_contracts.proofs import proof_key
from fp_contracts.records import Pins, body_of, control_event_id
from fp_contracts.runconfig import PolicySwitch, RunConfig, RunHeader, SpendLimit, Window, config_digest
from fp_contracts.services import REQUIRED, instances
from fp_verify import sample_learning as learning
from fp_verify.chain import FIRST, chained
from fp_verify.check import recompute
from fp_verify.log import WINDOW_REPORT, RawRecord, read_log
from fp_verify.sample_rehearsal import SCRATCH_RUN, rehearsal_documents
from fp_verify.verdict import EQUATIONS

RUN = "platform_20260101T000000Z"
HEX = "a" * 64
MANIFEST = {
    "kind": "source", "services": {service: sha256_hex(service.encode()) for service in REQUIRED},
    "jobs": learning.RELEASED_JOBS, "environment_lock": learning.LOCK,
}  # fmt: skip
KILLED_US, RESTARTED_US, RECOVERED_US = 1_000_000_000, 1_002_000_000, 1_005_000_000
SPEND = 7
BUNDLE = f"bundle:{HEX}"


def make_config(
    scope: Literal["spine", "full"] = "spine", profile: Literal["local", "kind"] = "local"
) -> RunConfig:  # fmt: skip
    """A pinned configuration; scope full has a second window. The profile says how many lanes there are."""
    limits = tuple(
        SpendLimit(phase=key, max_spend_microusd=100, expected_duration_s=1, hard_stop="x", expected_artifacts=())
        for key in ORDER
    )
    return RunConfig(
        profile=profile, scope=scope, manifest_fingerprint=HEX, lanes=_partitions(profile, topics.TRAFFIC),
        windows=(Window(start_us=0, end_us=10), Window(start_us=10, end_us=22))[: 1 if scope == "spine" else 2],
        feature_schema_digest=HEX, policies={"spine-v1": HEX, "spine-v0": HEX}, policy_initial="spine-v1",
        policy_switches=(PolicySwitch(policy_rev="spine-v0", effective_us=4),
                         PolicySwitch(policy_rev="spine-v1", effective_us=5)),
        authority_digest=HEX, handles_digest=HEX, image_manifest_digest=digest_of(MANIFEST), price_table_digest=HEX,
        envelopes=limits,
    )  # fmt: skip


def _partitions(profile: str, topic: str = topics.RTDL) -> int:
    return topics.pinned(profile)[topic].partitions


def make_header(config: RunConfig, pin: tuple[int, int]) -> RunHeader:
    """A header pinned at (control partition, offset)."""
    starts = {name: {str(part): 0 for part in range(topic.partitions)}
              for name, topic in topics.pinned(config.profile).items()}  # fmt: skip
    return RunHeader(
        platform_run_id=RUN, scenario_run_id="b" * 32, config=config, run_config_digest=config_digest(config),
        start_offsets=starts, lane_writers={}, pinned_us=1, pin_partition=pin[0], pin_offset=pin[1],
    )  # fmt: skip


@dataclass
class GreenRun:
    """Records and objects as they grow. `step` > 1: offsets have gaps, as on a partition that other runs share."""

    first: int = 100
    step: int = 3
    partition: int = 0
    config: RunConfig = field(default_factory=make_config)
    records: list[RawRecord] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    documents: dict[tuple[str, str], Any] = field(default_factory=dict)

    def say(self, payload: c.ControlPayload, *salt: str) -> None:
        """Append a record."""
        pins = Pins(RUN, "b" * 32, HEX, config_digest(self.config))
        event_id = control_event_id(RUN, payload, *salt)
        body = body_of(pins, payload.type, event_id, 1, "tester", payload)
        self.records.append(RawRecord(self.first + self.step * len(self.records), RUN.encode(), body))

    def put(self, key: str, document: Any) -> c.EvidenceRef:
        """Keep an object."""
        body = canonical_bytes(document)
        self.objects[key] = body
        return c.EvidenceRef(key=key, sha256=sha256_hex(body), size=len(body))

    def close(self, phase: str, documents: Mapping[str, Any] | None = None) -> None:
        """A passed gate with its evidence; documents that are not given say only their name."""
        spec = PHASES[phase]
        control = phase in ("P(-1)", "P0")
        execution = h32("control", phase) if control else phase_execution_id(RUN, phase, 1)
        refs = []
        for name in spec.evidence:
            key = f"evidence/dev_full/run_control/{execution}/{name}.json"
            key = key if control else spec.evidence_key(RUN, execution, name)
            document = (documents or {}).get(name, {"name": name, "phase": phase})
            self.documents[phase, name] = document
            refs.append(self.put(key, document))
        receipt = c.Receipt(
            phase=phase, attempt=1, spend_microusd=0 if control else SPEND, first_sample=0,
            last_sample=len(self.records), window_us=0, artifacts=tuple(r.key for r in refs), risk_retired="x",
        )  # fmt: skip
        check = c.Check(name="c", observed="1", required="1", ok=True)
        gate = c.GatePassed(phase=phase, attempt=1, phase_execution_id=execution, checks=(check,),
                            evidence=tuple(refs), receipt=receipt)  # fmt: skip
        self.say(gate, phase, "1")

    @property
    def metered(self) -> int:
        """What the meter must say: the sum of the receipts of P1–P11."""
        return SPEND * (len(SPINE) - 2)


def until_p11(drill: bool = True, run: GreenRun | None = None) -> GreenRun:
    """Everything up to P11's gate, appended to `run` (a new one)."""
    run = run or GreenRun()
    header = make_header(run.config, (run.partition, run.first))
    run.say(c.RunPinRequested(scenario_run_id="b" * 32, config=run.config, actor="tester"))
    run.close("P(-1)", {"digest_manifest": MANIFEST})
    run.close("P0")
    if drill:
        run.say(c.DrillRequested(drill_id="d" * 32, instance="rtdl-0", failpoint="x", actor="tester"))
        for asked in learning.DRILLS.values() if run.config.scope == "full" else ():
            run.say(asked)
    key = PHASES["P1"].evidence_key(RUN, phase_execution_id(RUN, "P1", 1), "run_header")
    run.say(c.RunPinned(header=header, header_ref=run.put(key, header.model_dump(mode="json"))))
    run.close("P1", {"run_header": header.model_dump(mode="json")})
    names = instances(run.config.members, run.config.writers)
    bound = {
        name: {"build_digest": MANIFEST["services"][name.rpartition("-")[0]], "profile": run.config.profile}  # type: ignore[index]
        for name in names
    }
    run.close("P2", {"binding_matrix": {"services": bound}})
    for phase in ("P3", "P4", "P5", "P6"):
        run.close(phase)
    for switch in run.config.policy_switches:
        for part in range(_partitions(run.config.profile)):
            run.say(c.PolicySwitched(policy_rev=switch.policy_rev, effective_us=switch.effective_us, partition=part,
                                     merged_n=5), str(part), str(switch.effective_us))  # fmt: skip
    if drill:
        run.say(c.AlertFired(rule="rtdl_stalled", instance="rtdl-0", observed=3, threshold=2,
                             at_us=KILLED_US + 2_000_000))  # fmt: skip
        run.say(c.DrillReported(drill_id="d" * 32, instance="rtdl-0", killed_us=KILLED_US, restarted_us=RESTARTED_US,
                                recovered_us=RECOVERED_US, lag_at_restart=40))  # fmt: skip
    ledger = run.put(f"evidence/runs/{RUN}/streaming/ledger/window-1.json", {"window": 1})
    run.say(c.WindowEnded(window=1, lane_seqs={"0": 5}, ledger_ref=ledger))
    run.close("P7")
    run.close("P8")
    run.close("P9", {"decision_snapshot": {"by_policy_rev": {"spine-v0": 3, "spine-v1": 4}}})
    run.close("P10")
    _close_p11(run)
    return run


def _close_p11(run: GreenRun) -> None:
    first = run.records[0]
    facts = {"event_id": "e", "kind": "run_pin_requested", "offset": first.offset, "sha256": sha256_hex(first.value)}
    run.close(
        "P11",
        {
            "reconciliation": {"equations": [{"name": n, "left": 4, "right": 4, "ok": True} for n in EQUATIONS]},
            "non_regression": {"baseline": "platform_20251231T000000Z", "different": []},
            "log": {"entries": [chained(FIRST, 1, facts)]},
        },
    )


def until_p15(run: GreenRun | None = None, broken: str | None = None, drill: bool = True) -> GreenRun:
    """A full run up to P15's gate; `broken` = an equation of window 2 that does not hold."""
    run = until_p11(drill, run or GreenRun(config=make_config("full")))
    rehearse(run)
    run.close("P12", learning.input_documents())
    run.close("P13", learning.dataset_documents(drill))
    run.close("P14", learning.training_documents(drill))
    for phase in learning.DRILLS if drill else ():
        run.say(learning.reported(phase))
    run.say(c.BundleApprovalGiven(bundle_id="e" * 32, model_digest=HEX, actor="reviewer", reason="looked at it"))
    switches = _switches(run.config.profile)
    for switch in switches:
        run.say(switch, str(switch.revision), str(switch.partition))
    ledger = run.put(f"evidence/runs/{RUN}/streaming/ledger/window-2.json", {"window": 2})
    run.say(c.WindowEnded(window=2, lane_seqs={"0": 7}, ledger_ref=ledger), "2")
    sides = {name: 5 if name == broken else 4 for name in EQUATIONS}
    checks = tuple(c.Check(name=n, observed=f"4 = {right}", required="both sides equal", ok=right == 4)
                   for n, right in sides.items())  # fmt: skip
    report = {
        "window": 2, "checks": [check.model_dump(mode="json") for check in checks],
        "decisions_by_bundle": {BUNDLE: 3, "guardrails": 1},
        "equations": [{"name": n, "left": 4, "right": right, "ok": right == 4} for n, right in sides.items()],
    }  # fmt: skip
    run.documents[WINDOW_REPORT] = report
    shown = run.put(f"evidence/runs/{RUN}/obs/window-2/reconciliation.json", report)
    run.say(c.WindowReconciled(window=2, checks=checks, report_ref=shown))
    run.close("P15", corridor_documents(run.config.profile) | {"telemetry": learning.bundle_points(RUN, switches)})
    return run


def rehearse(run: GreenRun) -> None:
    """A teardown rehearsed between P11 and P16: its evidence, then what it tells."""
    outlived = run.put(f"evidence/runs/{SCRATCH_RUN}/scratch/namespace.json", {"run": SCRATCH_RUN})
    evidence = tuple(
        run.put(f"evidence/runs/{RUN}/rehearsal/{SCRATCH_RUN[-12:]}/{name}.json", document)
        for name, document in rehearsal_documents(RUN, outlived).items()
    )
    run.say(c.TeardownRehearsed(scratch_run=SCRATCH_RUN, actor="tester", reason="P16 asks for it", evidence=evidence,
                                outlived=(outlived,)), SCRATCH_RUN)  # fmt: skip


def _switches(profile: str) -> list[c.BundleSwitched]:
    """Promoted, rolled back, promoted again, as each partition reported it."""
    return [
        c.BundleSwitched(bundle_slot="payment_fraud", revision=revision, bundle_ref=ref, partition=part,
                         source="global" if ref else "guardrails", effective_us=at_us, merged_n=5 * revision)
        for revision, (at_us, ref) in enumerate(((10, BUNDLE), (14, None), (16, BUNDLE)), 1)
        for part in range(_partitions(profile))
    ]  # fmt: skip


def corridor_documents(profile: str = "local") -> dict[str, Any]:
    """What P15 shows of a promotion that went well."""
    positions = {str(part): 5 for part in range(_partitions(profile))}
    said = {"acknowledged": {"partition": 0, "offset": 1}, "read_back_equal": True}
    return {
        "promotion_receipt": {
            "promotion": {**said, "event": {"type": "BUNDLE_PROMOTED_ACTIVE"}}, "members": {"positions": positions},
            "approval": {**said, "event": {"actor": "reviewer", "requester": "tester"}},
        },
        "rollback_drill": {
            "rolled_back": {**said, "event": {"revision": 2, "bundle": None}}, "rollback_us": 3, "repromotion_us": 4,
            "members_rolled_back": {"positions": positions}, "members_repromoted": {"positions": positions},
        },
        "active_resolution": {"journal": {"bundle_id": "e" * 32}, "restarted": {"bundle_id": "e" * 32}},
        "compatibility": {"probe": {**said, "event": {"type": "BUNDLE_REFUSED"}}, "probe_reasons": ["schema"]},
    }  # fmt: skip


def close_p16(run: GreenRun) -> str:
    """Put the proof cells and P16's documents, close P16 as its verdict says, publish it; the final verdict's key."""
    log = read_log(RUN, run.records)
    found = recompute(run.objects.__getitem__, log, run.records[-1].offset + 1, run.metered)
    for (lane, proof), cell in found.cells.items():
        if cell.ok:
            run.put(proof_key(RUN, lane, proof), cell.document(RUN))
    spec, execution = PHASES["P16"], phase_execution_id(RUN, "P16", 1)
    refs = {name: run.put(spec.evidence_key(RUN, execution, name), found.documents[name]) for name in spec.evidence}
    final = found.documents["final_verdict"]
    receipt = c.Receipt(phase="P16", attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                        artifacts=(), risk_retired="x")  # fmt: skip
    green = final["verdict"] == "GREEN"
    common = {
        "phase": "P16", "attempt": 1, "phase_execution_id": execution, "evidence": tuple(refs.values()),
        "receipt": receipt, "checks": (c.Check(name="c", observed="0", required="1", ok=green),),
    }  # fmt: skip
    blockers = (c.Blocker(code=spec.blockers[0], reason="P12 OPEN"),)
    gate = (
        c.GatePassed.model_validate(common) if green else c.GateBlocked.model_validate({**common, "blockers": blockers})
    )
    run.say(gate, "P16", "1")
    run.say(c.VerdictPublished(
        verdict=final["verdict"], spine_verdict=final["spine_verdict"], profile=run.config.profile,
        merkle_root=final["merkle_root"], verdict_ref=refs["final_verdict"],
    ))  # fmt: skip
    run.say(c.RunClosed(reason="verdict_published"))
    return refs["final_verdict"].key


def green_run() -> GreenRun:
    """A run with a published verdict: BLOCKED by scope, spine GREEN."""
    run = until_p11()
    close_p16(run)
    return run
