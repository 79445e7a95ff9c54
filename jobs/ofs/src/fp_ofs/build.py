"""One build from request to result: read, recompute, check, publish, roll back once (learning.md §2)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from fp_contracts.control import Blocker, EvidenceRef
from fp_contracts.dataset import BuildIntent, DatasetManifest, OfsRequest, OfsResult, SplitHint, dataset_fingerprint
from fp_contracts.evaluation import Predicate
from fp_features import FeatureSet
from fp_ofs import checks, kept
from fp_ofs.archive import ArchiveReader
from fp_ofs.blind import future_blind_pairs
from fp_ofs.engine import Engine
from fp_ofs.errors import BASIS, BUILD, Blocked
from fp_ofs.history import History, execute_recipe
from fp_ofs.kept import Kept
from fp_ofs.labels import known_at
from fp_ofs.leakage import FEW, Finding, examine, facts_of
from fp_ofs.material import Material, Say, feature_set_of, gather, read_served
from fp_ofs.parity import Parity, Served, compare
from fp_ofs.publish import RECIPE, Publisher, put_rows
from fp_ofs.quality import measures, quality_document
from fp_ofs.rows import Rows, columns_of, make_rows, row_digest, splits
from fp_runtime.beside import Call, Here
from fp_runtime.evidence import EvidenceStore
from fp_runtime.failpoint import Failpoint, hit

PICTURES = "fp_ofs.pictures:pictures"


@dataclass(slots=True)
class Told:
    """What the reports say, as far as the build came; `refs` name those of the stage whose material is reused."""

    documents: dict[str, dict[str, Any]]
    refs: dict[str, EvidenceRef]
    predicates: list[Predicate]

    def add(self, name: str, predicates: Sequence[Predicate], doc: dict[str, Any]) -> None:
        """Keep a report with the predicates it stands for."""
        self.documents[name] = {**doc, "checks": [asdict(one) for one in predicates]}
        self.predicates += predicates


class Build:
    """One job run. `archive` and `out` may be the same store."""

    def __init__(
        self, request: OfsRequest, archive: EvidenceStore, out: EvidenceStore, engine: Engine, say: Say,
        *, dry: bool = False, drawing: Call | None = None,
    ) -> None:  # fmt: skip
        """`drawing`: where PICTURES is called; in this process unless given."""
        basis = tuple(sorted(request.intent.basis, key=lambda part: (part.topic, part.partition)))
        self.intent: BuildIntent = request.intent.model_copy(update={"basis": basis})
        self.fingerprint = dataset_fingerprint(self.intent)
        self.metrics: dict[str, int] = {}
        self.quality: dict[str, int] = {}
        self._request = request
        self._reader = ArchiveReader(archive, self.intent.platform_run_id, basis, request.archive_objects)
        self._out = out
        self._material: EvidenceRef | None = None
        self._publisher = Publisher(out, self.fingerprint, dry)
        self._history = History(out, request.dataset_name)
        self._engine = engine
        self._say = say
        self._dry = dry
        self._drawing = drawing or Here(PICTURES)
        self._told = Told({}, {}, [])

    def run(self) -> OfsResult:
        """Build, or say that it stands already. Unavailable and Cancelled go through; a blocked build is a result."""
        try:
            return self._run()
        except Blocked as blocked:
            return self._blocked((Blocker(code=blocked.code, reason=blocked.reason),))

    def _run(self) -> OfsResult:
        standing = self._publisher.published()
        if standing is not None:
            return self._already(*standing)
        features = feature_set_of(self.intent)
        whole = self._request.stage == "dataset"
        found: Material | Kept | None = self._kept() if whole else None
        found = found or gather(self._reader, self.intent, self._engine, self._say)
        served = read_served(self._reader, self.intent, self._say) if whole else Served()
        rows = make_rows(found.payments, known_at(found.labels, self.intent.labels), served, self.intent, features)
        self.metrics |= {"payments": found.payments.num_rows, "rows": rows.table.num_rows}
        parts = splits(rows.table, self.intent.labels.maturity_days)
        if isinstance(found, Material):
            self._examine(found, rows, features, parts)
        parity = self._compare(found.payments, rows, served, features, parts) if whole else None
        self.metrics |= {"archive_objects": self._reader.objects, "archive_bytes": self._reader.size}
        blockers = tuple(
            Blocker(code=one.code, reason=f"{one.name}: {one.observed}, required {one.required}")
            for one in self._told.predicates
            if not one.ok
        )
        if blockers:
            return self._blocked(blockers)
        if parity:
            return self._publish(rows, parts, features)
        assert isinstance(found, Material)
        return self._input_ready(found, rows)

    def _kept(self) -> Kept | None:
        """What the input stage left, when the request names it and it reads back: then nothing is recomputed."""
        ref = self._request.material
        found = kept.unpack(self._out, ref, self.fingerprint) if ref is not None else None
        if found is not None:
            self._material = ref
            self._told.refs |= {"readiness.json": found.readiness, "leakage.json": found.leakage}
        return found

    def _examine(self, material: Material, rows: Rows, features: FeatureSet, parts: tuple[SplitHint, ...]) -> None:
        """Readiness and leakage: what P12 asks."""
        ready = checks.readiness(self.intent, material, rows)
        document = checks.readiness_document(self.intent, self.fingerprint, material, rows, self._reader)
        self._told.add("readiness.json", ready, document)
        if rows.table.num_rows < 2 * FEW:
            raise Blocked(BASIS, f"{rows.table.num_rows} eligible payments are too few to look for leakage in")
        blind = future_blind_pairs(material.steps, material.payments, features)
        facts = facts_of(rows, self.intent, features, columns_of(features), parts, blind)
        findings: tuple[Finding, ...] = examine(facts)
        self._told.add("leakage.json", checks.leakage(findings), checks.leakage_document(findings, len(blind)))
        self._say("checks", 1, 2)

    def _compare(
        self, payments: pa.Table, rows: Rows, served: Served, features: FeatureSet, parts: tuple[SplitHint, ...]
    ) -> Parity:
        """Parity and quality: what P13 asks beside the objects themselves."""
        quality = quality_document(rows, features, parts)
        self._told.add("quality.json", checks.quality(self.intent, rows), quality)
        if not self._dry:
            self._drawing.begin(quality)
        parity = compare(payments, served, features)
        self._told.add("parity.json", checks.parity(parity), parity.document())
        self.quality = measures(quality, parity.document())
        self._say("checks", 2, 2)
        return parity

    def _input_ready(self, material: Material, rows: Rows) -> OfsResult:
        refs, digest = self._put_reports(), row_digest(rows.table, rows.matrix)
        if self._dry:
            return self._result("DRY_RUN", digest, {})
        clean = Kept(material.payments, material.labels, refs["readiness.json"], refs["leakage.json"])
        body = kept.pack(clean, self.fingerprint)
        self._material = self._publisher.put(kept.name_of(body), body)
        return self._result("INPUT_READY", digest, refs)

    def _put_reports(self) -> dict[str, EvidenceRef]:
        """References to every report: put now, or by the stage whose material is reused."""
        put = {name: self._publisher.document(name, doc) for name, doc in self._told.documents.items()}
        return {**self._told.refs, **put}

    def _publish(self, rows: Rows, parts: tuple[SplitHint, ...], features: FeatureSet) -> OfsResult:
        digest = row_digest(rows.table, rows.matrix)
        if self._dry:
            return self._result("DRY_RUN", digest, {})
        self._say("publish", 0, 3)
        files = tuple(put_rows(self._publisher, rows.table))
        hit(Failpoint.OFS_AFTER_ROWS)
        refs = self._put_reports()
        self._say("publish", 1, 3)
        drawn: dict[str, bytes] = self._drawing.answer()
        shown = tuple(self._publisher.put(f"pictures/{name}", body) for name, body in drawn.items())
        self._say("publish", 2, 3)
        times = rows.table.column("event_us").to_numpy()
        manifest = DatasetManifest(
            dataset_fingerprint=self.fingerprint, intent=self.intent, rows=rows.table.num_rows, row_digest=digest,
            files=files, columns=columns_of(features), feature_set=features.name,
            feature_schema_digest=features.schema_digest, label_counts=rows.counts,
            first_event_us=int(times.min()), last_event_us=int(times.max()), splits=parts,
            readiness=refs["readiness.json"], leakage=refs["leakage.json"], quality=refs["quality.json"],
            parity=refs["parity.json"], pictures=shown,
        )  # fmt: skip
        ref = self._publisher.document("manifest.json", manifest.model_dump(mode="json"))
        self._publisher.verify_ref(ref)
        self._say("publish", 3, 3)
        return self._rolled("PUBLISHED", manifest, ref)

    def _already(self, manifest: DatasetManifest, ref: EvidenceRef) -> OfsResult:
        """A manifest stands. A build killed before its rollback was executed goes on there."""
        self.metrics |= {"payments": manifest.label_counts.payments, "rows": manifest.rows}
        self.quality = measures(*map(self._publisher.read, (manifest.quality, manifest.parity)))
        if self._publisher.recipe() is None and not self._dry:
            return self._rolled("PUBLISHED", manifest, ref)
        return self._of(manifest, "ALREADY_PUBLISHED", ref)

    def _rolled(self, status: str, manifest: DatasetManifest, ref: EvidenceRef) -> OfsResult:
        self._say("rollback", 0, 1)
        done = execute_recipe(self._history, self.fingerprint, ref, self._publisher.verify_ref)
        if not done["ok"]:
            raise Blocked(BUILD, f"the rollback did not read back as made: {done['executed']}")
        self._publisher.document(RECIPE, done)
        self._say("rollback", 1, 1)
        return self._of(manifest, status, ref)

    def _of(self, manifest: DatasetManifest, status: str, ref: EvidenceRef) -> OfsResult:
        refs = {
            "readiness.json": manifest.readiness, "leakage.json": manifest.leakage, "quality.json": manifest.quality,
            "parity.json": manifest.parity, "manifest.json": ref,
        }  # fmt: skip
        recipe = self._publisher.recipe()
        if recipe is not None:
            refs[RECIPE] = recipe
        return self._result(status, manifest.row_digest, refs, manifest.pictures)

    def _blocked(self, blockers: tuple[Blocker, ...]) -> OfsResult:
        kept = {name: self._publisher.why_blocked(name, doc) for name, doc in self._told.documents.items()}
        refs = {name: ref for name, ref in kept.items() if ref is not None}
        return self._result("BLOCKED", None, refs, (), blockers)

    def _result(
        self, status: str, digest: str | None, refs: dict[str, EvidenceRef], shown: tuple[EvidenceRef, ...] = (),
        blockers: tuple[Blocker, ...] = (),
    ) -> OfsResult:  # fmt: skip
        named = {name.removesuffix(".json"): ref for name, ref in refs.items()}
        return OfsResult.model_validate(
            {
                "status": status, "dataset_fingerprint": self.fingerprint, "engine": self._engine.name,
                "row_digest": digest, "pictures": shown, "blockers": blockers, "metrics": self.metrics,
                "material": self._material, "inputs": self._reader.inputs(), **named,
            }
        )  # fmt: skip
