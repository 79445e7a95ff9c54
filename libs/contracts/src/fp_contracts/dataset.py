"""Training datasets: what one is built from, what it holds, and what the job that builds it answers (learning.md §2).

The fingerprint names the *question* (the intent); the row digest names the *answer*. Same intent, same fingerprint,
same rows, same bytes. Times in µs of event time, money in minor units, shares in parts per million; no floats.
"""

from typing import Literal

from pydantic import Field

from fp_contracts.canonical import digest_of
from fp_contracts.control import Blocker, EvidenceRef
from fp_contracts.envelope import Closed, Hex32, Hex64, RunId, TimeUs
from fp_contracts.jobrun import InputsRead, JobRuntime

ROOT = "datasets"


class BasisRange(Closed):
    """Offsets [start, end) of one topic-partition: the replay basis names one for every partition it reads."""

    topic: str
    partition: int = Field(ge=0)
    start: int = Field(ge=0)
    end: int = Field(ge=0)


class JoinScope(Closed):
    """The join rules of the run, as its header pins them; `window_ends_us` ascends."""

    join_wait_us: int = Field(ge=1)
    horizon_us: int = Field(ge=1)
    window_ends_us: tuple[TimeUs, ...] = Field(min_length=1)


class LabelRule(Closed):
    """What counts as known of a payment.

    Only assertions with observed_time ≤ `as_of_us`, and only payments at least `maturity_days` older than that. Then
    HUMAN > EXTERNAL > AUTO, the latest effective, the latest observed; a tie of different values is CONFLICT.
    `unlabelled`: what a mature payment is of which nobody spoke: `legit` where adjudication names frauds only,
    `censored` where it names every payment.
    """

    as_of_us: TimeUs
    label_type: Literal["fraud_disposition"] = "fraud_disposition"
    resolution: Literal["source_rank,effective,observed;tie=CONFLICT"] = "source_rank,effective,observed;tie=CONFLICT"
    maturity_days: int = Field(ge=0, le=365)
    effect_delay_us: int = Field(ge=0)
    unlabelled: Literal["legit", "censored"] = "legit"


class RowFilter(Closed):
    """Which decisions may become rows: by event time [from, until), and whether degraded snapshots count."""

    event_from_us: TimeUs | None = None
    event_until_us: TimeUs | None = None
    degraded: Literal["keep", "drop"] = "keep"


class Floors(Closed):
    """Below these a build is blocked. `coverage_ppm`: rows ÷ (rows + censored) of the mature payments."""

    coverage_ppm: int = Field(default=900_000, ge=0, le=1_000_000)
    conflict_ppm: int = Field(default=1_000, ge=0, le=1_000_000)
    rows: int = Field(default=1, ge=0)
    frauds: int = Field(default=1, ge=0)


class BuildIntent(Closed):
    """Everything that decides a dataset's rows; its canonical JSON is what `dataset_fingerprint` hashes."""

    schema_version: Literal["v1"] = "v1"
    platform_run_id: RunId
    scenario_run_id: Hex32
    manifest_fingerprint: Hex64
    run_config_digest: Hex64
    basis: tuple[BasisRange, ...] = Field(min_length=1)
    labels: LabelRule
    feature_set: str
    feature_schema_digest: Hex64
    join: JoinScope
    filters: RowFilter = RowFilter()
    floors: Floors = Floors()
    code_release: str = Field(min_length=1, max_length=128)


def dataset_fingerprint(intent: BuildIntent) -> str:
    """hex64 sha256 of the intent's canonical JSON, its ranges in order of topic and partition."""
    doc = intent.model_dump(mode="json")
    doc["basis"] = sorted(doc["basis"], key=lambda part: (part["topic"], part["partition"]))
    return digest_of(doc)


def dataset_key(fingerprint: str, name: str) -> str:
    """The key of one object of a dataset; `name` may hold slashes."""
    return f"{ROOT}/{fingerprint}/{name}"


class OfsRequest(Closed):
    """What a job run is told: the intent, and where to read. Credentials never stand here.

    `archive_url` is the store below which `archive/<run>/<topic>/<partition>/<first>-<next>.parquet` lies;
    `archive_objects`, when given, pins every object by hash and size. `stage`: `input` answers P12 (readiness and
    leakage only), `dataset` answers P13. `material`: what an input stage of the same intent kept; with it the dataset
    stage recomputes nothing of that, and without it (or when it does not read back) everything.
    """

    intent: BuildIntent
    archive_url: str
    archive_endpoint: str | None = None
    archive_objects: tuple[EvidenceRef, ...] = ()
    out_endpoint: str | None = None
    stage: Literal["input", "dataset"] = "dataset"
    material: EvidenceRef | None = None
    dataset_name: str = Field(default="core", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    requested_by: str = "ofs_trigger"


class Column(Closed):
    """One column of the rows. Features stand in schema order; only `feature` columns may feed a model."""

    name: str
    kind: Literal["string", "int64", "float64", "int8"]
    role: Literal["key", "time", "segment", "served", "label", "feature"]


class DataFile(Closed):
    """One parquet object of the rows, in release order within and across files."""

    key: str
    sha256: Hex64
    size: int = Field(ge=0)
    rows: int = Field(ge=0)


class LabelCounts(Closed):
    """Every AUTH_REQUEST of the basis is in exactly one count: payments = fraud + legit + all the rest."""

    payments: int
    fraud: int
    legit: int
    filtered: int
    immature: int
    conflict: int
    suspected: int
    unlabelled: int


class SplitHint(Closed):
    """One part of a split by event time, [start, end); `delay` is the gap in which labels were still coming."""

    name: Literal["train", "delay", "test"]
    start_us: TimeUs
    end_us: TimeUs
    rows: int
    frauds: int


class DatasetManifest(Closed):
    """What a dataset holds. It is written last: where a manifest lies, everything it names lies.

    `row_digest`: sha256 over the rows' canonical frames in release order (event_id breaks ties). It covers no offset
    and no run id, so two runs of one world give equal digests.
    """

    schema_version: Literal["v1"] = "v1"
    dataset_fingerprint: Hex64
    intent: BuildIntent
    rows: int
    row_digest: Hex64
    files: tuple[DataFile, ...]
    columns: tuple[Column, ...]
    label_column: str = "label"
    time_column: str = "event_us"
    feature_set: str
    feature_schema_digest: Hex64
    label_counts: LabelCounts
    first_event_us: TimeUs | None
    last_event_us: TimeUs | None
    splits: tuple[SplitHint, ...]
    readiness: EvidenceRef
    leakage: EvidenceRef
    quality: EvidenceRef
    parity: EvidenceRef
    pictures: tuple[EvidenceRef, ...]

    def features(self) -> tuple[str, ...]:
        """Names of the feature columns in schema order."""
        return tuple(column.name for column in self.columns if column.role == "feature")


class HistoryEntry(Closed):
    """One move of a dataset name, append-only: entry n is put write-once, so two movers cannot both be n."""

    n: int = Field(ge=1)
    dataset_name: str
    move: Literal["activate", "roll_back", "re_activate"]
    dataset_fingerprint: Hex64 | None
    manifest: EvidenceRef | None
    previous_n: int = Field(ge=0)
    cause: Hex64


class OfsResult(Closed):
    """The last line of a job run; also what the runner's event carries.

    `metrics`: rows, payments, rows_per_s, peak_rss_bytes, wall_ms, cpu_ms. With BLOCKED the reports that were reached
    are still named, so a person can read the differing rows. `material`: with INPUT_READY what is kept for the dataset
    stage, else what of that was reused; None = everything was recomputed. `inputs`: what was read of the archive, by
    topic; nothing when the dataset stood already.
    """

    status: Literal["INPUT_READY", "PUBLISHED", "ALREADY_PUBLISHED", "DRY_RUN", "BLOCKED", "CANCELLED"]
    dataset_fingerprint: Hex64
    engine: str
    row_digest: Hex64 | None = None
    readiness: EvidenceRef | None = None
    leakage: EvidenceRef | None = None
    manifest: EvidenceRef | None = None
    quality: EvidenceRef | None = None
    parity: EvidenceRef | None = None
    rollback_recipe: EvidenceRef | None = None
    material: EvidenceRef | None = None
    pictures: tuple[EvidenceRef, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    metrics: dict[str, int] = Field(default_factory=dict)
    inputs: dict[str, InputsRead] = Field(default_factory=dict)
    runtime: JobRuntime | None = None
