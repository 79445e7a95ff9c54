"""Model bundles and the training job that makes them (learning.md §3, gates.md P14). Data and digests, no I/O.

Shares, scores and metrics are integers in parts per million (`_ppm`), so that every document has a canonical form.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fp_contracts.canonical import digest_of, sha256_hex
from fp_contracts.control import Blocker, EvidenceRef
from fp_contracts.envelope import Closed, Hex32, Hex64, Id, RunId, TimeUs
from fp_contracts.ids import framed
from fp_contracts.jobrun import JobRuntime

PPM = 1_000_000
BUNDLE_FORMAT = "fp.bundle.v1"
MODEL_FILES = {"logistic": "model.json", "xgboost": "model.ubj"}
MANIFEST_FILE = "bundle.json"
PROFILE_FILE = "profile.json"
TRAININGS, BUNDLES, CANDIDATE = "training", "bundles", "candidate.json"
DAY_US = 86_400_000_000

Family = Literal["logistic", "xgboost"]
Share = Annotated[int, Field(ge=0, le=PPM)]


class Thresholds(Closed):
    """Scores (ppm) from which an action is asked for; None = never by score. Growing with the action's strength."""

    step_up_ppm: Share | None
    review_ppm: Share | None
    block_ppm: Share | None

    @model_validator(mode="after")
    def _growing(self) -> Self:
        given = [value for value in (self.step_up_ppm, self.review_ppm, self.block_ppm) if value is not None]
        if given != sorted(given):
            raise ValueError("a stronger action has a lower threshold")
        return self


class ActionBudgets(Closed):
    """Shares of payments (ppm) whose score may ask for at least this action; the policy's alert budget.

    The trainer turns them into `Thresholds` by the scores of the payments between train and test, which need no
    labels for that, since each model has its own scale of scores.
    """

    step_up_ppm: Share = 10_000
    review_ppm: Share = 5_000
    block_ppm: Share = 2_000

    @model_validator(mode="after")
    def _shrinking(self) -> Self:
        if not self.step_up_ppm >= self.review_ppm >= self.block_ppm:
            raise ValueError("a stronger action has a larger budget")
        return self


class TimeBounds(Closed):
    """Explicit windows [start, end) of payment time in microseconds."""

    train_start_us: TimeUs
    train_end_us: TimeUs
    test_start_us: TimeUs
    test_end_us: TimeUs

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.train_start_us < self.train_end_us <= self.test_start_us < self.test_end_us:
            raise ValueError("windows are empty or not in the order train, test")
        return self


class SplitRule(Closed):
    """Train, then a gap of `delay_us` (labels of the gap are not known yet at the test), then test; by time only.

    Without `bounds` the test window is the last `test_share_ppm` of the dataset's time range.
    """

    delay_us: int = Field(default=7 * DAY_US, ge=0)
    test_share_ppm: int = Field(default=300_000, gt=0, lt=PPM)
    bounds: TimeBounds | None = None


class Floors(Closed):
    """What a candidate must reach on the test window: AP ≥ max(baseline + margin, active − tolerance)."""

    margin_ppm: Share = 0
    tolerance_ppm: Share = 20_000
    min_train_frauds: int = Field(default=20, ge=1)
    min_test_frauds: int = Field(default=10, ge=1)


class Boosting(Closed):
    """Hyperparameters of gradient boosting (`_milli` = thousandths); None in a request = chosen by the train window.

    `method`: exact splits, or `hist` (256 bins a feature) where rows are too many for them.
    """

    method: Literal["exact", "hist"] = "exact"
    trees: int = Field(default=100, ge=1, le=5_000)
    max_depth: int = Field(default=5, ge=1, le=16)
    eta_milli: int = Field(default=100, ge=1, le=1_000)
    min_child_weight_milli: int = Field(default=1_000, ge=0)
    lambda_milli: int = Field(default=1_000, ge=0)


class BundleRef(Closed):
    """A bundle by id, by the manifest that names its files, and by the digest of what it computes."""

    bundle_id: Hex32
    model_digest: Hex64
    manifest: EvidenceRef


class DatasetRef(Closed):
    """The dataset that P13 closed on: its manifest object and the fingerprint of its build intent."""

    manifest: EvidenceRef
    dataset_fingerprint: Hex64


class TrainRequest(Closed):
    """Everything that decides what a training computes. Equal requests give equal bundles, byte for byte."""

    schema_version: Literal["v1"] = "v1"
    platform_run_id: RunId
    dataset: DatasetRef
    policy_rev: Id
    feature_set: Id
    feature_schema_digest: Hex64
    family: Family = "xgboost"
    seed: int = Field(default=7, ge=0, lt=2**31)
    split: SplitRule = SplitRule()
    floors: Floors = Floors()
    budgets: ActionBudgets = ActionBudgets()
    boosting: Boosting | None = None
    alert_budget_per_day: int = Field(default=100, ge=1)
    active: BundleRef | None = None
    code_release: Id
    environment_lock_digest: Hex64

    @property
    def digest(self) -> str:
        """hex64 sha256 of the canonical request; names the job's outputs."""
        return digest_of(self.model_dump(mode="json"))


class TrainJob(Closed):
    """REQUEST.json of `python -m fp_mf run`: the request, and where its inputs are read (no part of any digest)."""

    request: TrainRequest
    dataset_url: str
    active_url: str | None = None
    s3_endpoint: str | None = None
    tracking_url: str | None = None


def training_key(digest: str, name: str) -> str:
    """The key of one object of a training; `name` may hold slashes."""
    return f"{TRAININGS}/{digest}/{name}"


def candidate_note(request_digest: str, model_sha256: str) -> dict[str, str]:
    """What a training puts as soon as it has fitted, write-once: a repetition that fits another model is refused."""
    return {"train_request_digest": request_digest, "model_sha256": model_sha256}


class BundleManifest(Closed):
    """What a bundle is, where it came from and what its file must hash to.

    `profile_sha256` names `profile.json` beside it: how features and scores were spread at training, for drift.
    """

    format: Literal["fp.bundle.v1"] = "fp.bundle.v1"
    bundle_id: Hex32
    family: Family
    model_file: Literal["model.json", "model.ubj"]
    model_sha256: Hex64
    model_size: int = Field(ge=1)
    model_digest: Hex64
    feature_set: Id
    feature_schema_digest: Hex64
    feature_names: tuple[str, ...] = Field(min_length=1)
    policy_rev: Id
    thresholds: Thresholds
    profile_sha256: Hex64 | None = None
    dataset_fingerprint: Hex64
    dataset_sha256: Hex64
    train_request_digest: Hex64
    code_release: Id
    environment_lock_digest: Hex64

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model_file != MODEL_FILES[self.family]:
            raise ValueError(f"a {self.family} model is kept in {MODEL_FILES[self.family]}")
        digest = model_digest(self.model_sha256, self.feature_schema_digest, self.policy_rev)
        if self.model_digest != digest:
            raise ValueError("model_digest is not that of model, schema and policy")
        if self.bundle_id != bundle_id(self.model_dump(mode="json", exclude_unset=True)):
            raise ValueError("bundle_id is not that of the manifest")
        return self


def model_digest(model_sha256: str, feature_schema_digest: str, policy_rev: str) -> str:
    """hex64 over what a bundle computes: model bytes, feature schema and policy revision."""
    return sha256_hex(framed(model_sha256, feature_schema_digest, policy_rev))


def bundle_id(manifest: dict[str, object]) -> str:
    """hex32 of the canonical manifest, as written, without its own id: a repeated training names the same bundle."""
    return digest_of({name: value for name, value in manifest.items() if name != "bundle_id"})[:32]


class Metrics(Closed):
    """Headline figures of one model on one window (ppm); `None` where the window cannot give it."""

    rows: int = Field(ge=0)
    frauds: int = Field(ge=0)
    average_precision_ppm: Share | None
    auc_ppm: Share | None
    card_precision_ppm: Share | None
    calibration_error_ppm: Share | None


class EvalReport(Closed):
    """The summary a gate reads; the full report with curves is the object `MfResult.eval_report`."""

    train_request_digest: Hex64
    windows: TimeBounds
    candidate: Metrics
    baseline: Metrics
    active: Metrics | None
    floor_ppm: Share
    average_precision_low_ppm: Share
    average_precision_high_ppm: Share
    shuffled_ap_ppm: Share
    prevalence_ppm: Share
    checks: tuple[tuple[str, bool], ...]
    notes: tuple[str, ...] = ()


def tracked_metrics(summary: EvalReport) -> dict[str, int]:
    """What a tracker notes of an evaluation, in ppm: candidate, baseline, and what shuffled labels taught."""
    found = {"shuffled_ap": summary.shuffled_ap_ppm}
    for who, figures in (("candidate", summary.candidate), ("baseline", summary.baseline)):
        shares = ((name, value) for name, value in figures.model_dump().items() if name.endswith("_ppm"))
        found |= {f"{who}_{name.removesuffix('_ppm')}": value for name, value in shares if value is not None}
    return found


class EvalRows(Closed):
    """The payments of a test window by event id, in the order in which the report's scores stand."""

    event_ids: tuple[Id, ...]


class MfResult(Closed):
    """The last line of the job. Refs are objects below --out; only a candidate that may be promoted is `eligible`.

    `eval_scores`: parquet with event_id and score (float64) of the test rows, for whoever re-scores them; `eval_rows`:
    their event ids in order as `EvalRows`, without the scores, for the df process that has to find these.
    `challenger`: the bundle of the baseline, of the same training, to be scored in shadow; in the receipt too.

    `metrics`: rows, features, train_ms, wall_ms, cpu_ms, peak_rss_bytes. With BLOCKED the reports that were reached
    are still named, so a person can read why.
    """

    schema_version: Literal["v1"] = "v1"
    platform_run_id: RunId
    train_request_digest: Hex64
    status: Literal["TRAINED", "ALREADY_PUBLISHED", "DRY_RUN", "BLOCKED", "CANCELLED"]
    eligible: bool
    reasons: tuple[str, ...]
    blockers: tuple[Blocker, ...]
    summary: EvalReport | None = None
    bundle: BundleRef | None = None
    eval_report: EvidenceRef | None = None
    eval_scores: EvidenceRef | None = None
    eval_rows: EvidenceRef | None = None
    challenger: BundleRef | None = None
    mlflow_refs: EvidenceRef | None = None
    bundle_receipt: EvidenceRef | None = None
    safe_disable: EvidenceRef | None = None
    pictures: tuple[EvidenceRef, ...] = ()
    metrics: dict[str, int] = Field(default_factory=dict)
    runtime: JobRuntime | None = None
