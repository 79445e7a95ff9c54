"""A full run with two windows on the memory bus: bundles in a store, registry events on their topic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from fp_contracts import registry as r
from fp_contracts import topics
from fp_contracts.bundle import BundleManifest, BundleRef, Thresholds
from fp_contracts.control import EvidenceRef
from fp_contracts.header import Kind
from fp_contracts.partition import partition_of
from fp_contracts.records import body_of
from fp_contracts.resolution import Serving
from fp_contracts.runconfig import Window
from fp_df import sample
from fp_df.bundles import Bundles
from fp_df.domain import Switch
from fp_df.marks import Truth
from fp_df.models import Models
from fp_df.service import Decider
from fp_df.serving import BundlePlan
from fp_features import CORE_V1
from fp_models import pack
from fp_models.boosted import xgboost
from fp_models.logistic import LogisticModel
from fp_runtime.bus import Out
from fp_runtime.evidence import FileStore, ref_of

T1 = sample.START_US + 60_000_000
WINDOWS = (Window(start_us=sample.START_US, end_us=T1), Window(start_us=T1, end_us=T1 + 60_000_000))
TIMES = r.SwitchTimes(T1, T1 + 20_000_000, T1 + 30_000_000)
assert r.switch_times(WINDOWS) == TIMES
SCOPE = r.Scope(environment=f"local.{sample.RUN}", mode="replay", bundle_slot=r.FRAUD_SLOT)
SERVING = Serving("core.v1", CORE_V1.schema_digest, frozenset({"spine-v0", "spine-v1"}), r.SERVED_CAPABILITIES)
REGISTRY_PART = partition_of(r.FRAUD_SLOT, topics.TOPICS[topics.REGISTRY_EVENTS].partitions)
STRICT = Thresholds(step_up_ppm=300_000, review_ppm=500_000, block_ppm=600_000)
WIDTH = len(CORE_V1.names)


def logistic(weight: float = 2e-5, bias: float = -1.0) -> bytes:
    """A model that goes by the amount, the first feature, alone."""
    zeros = (0.0,) * WIDTH
    return LogisticModel(zeros, (1.0e4, *(1.0,) * (WIDTH - 1)), (weight * 1e4, *zeros[1:]), bias).to_bytes()


@cache
def boosted() -> bytes:
    """Trees over made-up payments of this width."""
    rows = np.random.default_rng(3).lognormal(2.0, 2.0, (2_000, WIDTH))
    truth = ((rows[:, 0] > 12.0) ^ (rows[:, 5] > 30.0)).astype(np.float64)
    library = xgboost()
    settings = {"objective": "binary:logistic", "tree_method": "exact", "max_depth": 5, "nthread": 1, "base_score": 0.5}
    return bytes(library.train(settings, library.DMatrix(rows, truth), 100).save_raw("ubj"))


def fields(family: str, thresholds: Thresholds = STRICT, **changed: Any) -> dict[str, Any]:
    return {
        "family": family, "feature_set": "core.v1", "feature_schema_digest": CORE_V1.schema_digest,
        "feature_names": list(CORE_V1.names), "policy_rev": "spine-v1", "thresholds": thresholds.model_dump(),
        "dataset_fingerprint": "da" * 32, "dataset_sha256": "db" * 32, "train_request_digest": "dc" * 32,
        "code_release": "r1", "environment_lock_digest": "dd" * 32, **changed,
    }  # fmt: skip


@dataclass
class Learning:
    """A world whose run is full; `store` holds bundles, `say` writes registry events."""

    world: Any
    store: FileStore
    root: Path
    revision: int = 0
    active: BundleRef | None = None
    challenges: int = 0

    def bundle(self, model: bytes | None = None, family: str = "logistic", **changed: Any) -> BundleRef:
        """Put a bundle into the store."""
        files = pack(fields(family, **changed), logistic() if model is None else model)
        raw = files["bundle.json"]
        manifest = BundleManifest.model_validate_json(raw)
        folder = f"bundles/{manifest.bundle_id}"
        for name, body in files.items():
            self.store.put(f"{folder}/{name}", body)
        named = ref_of(f"{folder}/bundle.json", raw)
        return BundleRef(bundle_id=manifest.bundle_id, model_digest=manifest.model_digest, manifest=named)

    def file(self, bundle: BundleRef, name: str) -> Path:
        """Where a bundle's file lies, for whoever wants to spoil it."""
        path = self.root / bundle.manifest.key.replace("bundle.json", name)
        path.chmod(0o644)
        return path

    def say(self, *events: r.RegistryPayload, scope: r.Scope = SCOPE) -> None:
        """Publish registry events."""
        outs = []
        for event in events:
            placed = event.model_copy(update={"scope": scope})
            body = body_of(sample.PINS, event.type, r.registry_event_id(placed), 1, "ofs_trigger-0", placed)
            outs.append(Out(topics.REGISTRY_EVENTS, REGISTRY_PART, scope.bundle_slot.encode(), body, b""))
        self.world.write(outs)

    def promotion(
        self, bundle: BundleRef, effective_us: int, *, fallback: BundleRef | None = None, **published: Any
    ) -> list[r.RegistryPayload]:
        """All events that let a bundle in."""
        offered = r.BundlePublished.model_validate(
            {
                "scope": SCOPE, "bundle": bundle, "feature_set": "core.v1", "policy_rev": "spine-v1",
                "feature_schema_digest": CORE_V1.schema_digest, "capabilities": ("format:fp.bundle.v1",),
                "dataset_fingerprint": "da" * 32, "eval_report": EvidenceRef(key="e/r", sha256="0" * 64, size=1),
                "requester": "ana", "at_us": 1, **published,
            }
        )  # fmt: skip
        approved = r.BundleApproved(scope=SCOPE, bundle=bundle, requester="ana", actor="bo", at_us=1)
        self.revision += 1
        before, self.active = self.active, bundle
        return [offered, approved, r.BundlePromotedActive(
            scope=SCOPE, bundle=bundle, previous=before, fallback=fallback, revision=self.revision,
            effective_us=effective_us, actor="ofs_trigger", at_us=1,
        )]  # fmt: skip

    def promote(self, bundle: BundleRef, effective_us: int, **more: Any) -> None:
        self.say(*self.promotion(bundle, effective_us, **more))

    def rollback(self, effective_us: int, to: BundleRef | None = None) -> None:
        assert self.active is not None
        self.revision += 1
        before, self.active = self.active, to
        self.say(r.BundleRolledBack(
            scope=SCOPE, bundle=to, previous=before, revision=self.revision, effective_us=effective_us,
            actor="ofs_trigger", reason="drill", at_us=1,
        ))  # fmt: skip

    def challenge(self, bundle: BundleRef, effective_us: int, previous: BundleRef | None = None, **more: Any) -> None:
        """Publish a bundle and name it the challenger."""
        standing = self.revision, self.active
        offered = self.promotion(bundle, effective_us, **more)[0]
        self.revision, self.active = standing  # nothing was promoted by that
        self.challenges += 1
        self.say(offered, r.BundleChallengerNamed(
            scope=SCOPE, bundle=bundle, previous=previous, challenger_revision=self.challenges,
            effective_us=effective_us, actor="ofs_trigger", at_us=1,
        ))  # fmt: skip

    def withdraw(self, previous: BundleRef, effective_us: int) -> None:
        """Name no challenger any more."""
        self.challenges += 1
        self.say(r.BundleChallengerWithdrawn(
            scope=SCOPE, previous=previous, challenger_revision=self.challenges, effective_us=effective_us,
            actor="ofs_trigger", reason="enough", at_us=1,
        ))  # fmt: skip

    def refuse(self, bundle: BundleRef, effective_us: int | None) -> None:
        self.say(r.BundleRefused(
            scope=SCOPE, bundle=bundle, reasons=("no",), effective_us=effective_us, actor="ofs_trigger", at_us=1
        ))  # fmt: skip

    def settle_all(self, bundle: BundleRef) -> None:
        """Promotion, rollback and re-promotion at the three pinned times."""
        self.promote(bundle, TIMES.promote_us)
        self.rollback(TIMES.rollback_us)
        self.promote(bundle, TIMES.repromote_us)

    def models(self) -> Models:
        return Models(lambda: self.store)

    def bundles(self) -> Bundles:
        return Bundles(self.world.plan.bundles, self.world.bus.consumer("registry"), self.models(), self.world.clock)

    def decider(self, parts: Sequence[int] = tuple(range(sample.PARTITIONS))) -> Decider:
        decider: Decider = self.world.decider(parts, self.bundles())
        return decider

    def run(self) -> Decider:
        """Decide everything that can be decided, by a new member."""
        decider = self.decider()
        self.world.settle(decider)
        return decider

    def truth(self, part: int) -> Truth:
        """The progress of a partition."""
        return Truth.from_bytes(*self.world.tables.progress["df", part])

    def decisions(self) -> list[tuple[int, Mapping[str, Any]]]:
        """(order_us, payload) of each decision, by event id."""
        found = [(header.order_us, orjson.loads(record.value)["payload"])
                 for record, header in self.world.on_bus(topics.RTDL, Kind.DECISION)]  # fmt: skip
        return sorted(found, key=lambda one: one[1]["source_event"]["event_id"])

    def used(self) -> dict[str, set[Any]]:
        """bundle_ref by the interval between switches."""
        ends = {"before": T1, "promoted": TIMES.rollback_us, "rolled back": TIMES.repromote_us, "again": 2**62}
        found: dict[str, set[Any]] = {name: set() for name in ends}
        for order_us, payload in self.decisions():
            found[next(name for name, end in ends.items() if order_us < end)].add(payload["bundle_ref"])
        return found


def make(kit: Any, root: Path, *, times: tuple[int, ...] = (T1,), later: Sequence[Switch] = (),
         lines: Sequence[Out] | None = None, start_offset: int = 0) -> Learning:  # fmt: skip
    """A full run of the sample world with switches at `times`."""
    plan = sample.plan(kit.policy, *later)
    plan = replace(plan, bundles=BundlePlan(SCOPE, times, SERVING, REGISTRY_PART, start_offset))
    world = kit.make(plan)
    world.write(kit.lines() if lines is None else lines)
    return Learning(world, FileStore(root), root)
