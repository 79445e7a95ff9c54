"""A training publishes what it says, the same bytes each time, however often it was killed."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fp_contracts.bundle import CANDIDATE, DatasetRef, MfResult, training_key
from fp_contracts.canonical import parse_strict
from fp_contracts.control import EvidenceRef
from fp_mf import sample
from fp_mf.errors import Cancelled
from fp_mf.job import Places, run
from fp_mf.progress import Progress, silent
from fp_models import action_of, fetch
from fp_runtime.evidence import FileStore, read

Make = Callable[..., Places]


def contents(places: Places) -> dict[str, bytes]:
    return {stored.key: places.out.get(stored.key) for stored in places.out.list("")}


def cancel_at(stage: str, at: int) -> Progress:
    def progress(name: str, done: int, _total: int) -> None:
        if (name, done) == (stage, at):
            raise Cancelled(stage)

    return progress


def refs_of(result: MfResult) -> list[EvidenceRef]:
    named = (result.eval_report, result.eval_scores, result.mlflow_refs, result.bundle_receipt, result.safe_disable)
    assert all(named)
    return [ref for ref in named if ref] + list(result.pictures)


def test_everything_a_training_names_lies_there(dataset: DatasetRef, places: Make) -> None:
    made = places()
    result = run(sample.request(dataset), made, silent)
    assert (result.status, result.eligible, result.reasons, result.blockers) == ("TRAINED", True, (), ())
    for ref in refs_of(result):
        assert read(made.out, ref)
    assert {ref.key.rpartition("/")[2] for ref in result.pictures} == {
        "curves.png", "calibration.png", "importance.png", "training.png",
    }  # fmt: skip


def test_the_bundle_gives_the_scores_of_the_report_bit_for_bit(dataset: DatasetRef, places: Make) -> None:
    made = places()
    result = run(sample.request(dataset), made, silent)
    assert result.bundle is not None
    assert result.eval_scores is not None
    bundle = fetch(made.out.get, result.bundle, schema_digest=sample.SCHEMA)
    told = pq.read_table(io.BytesIO(read(made.out, result.eval_scores)))
    rows = {key: at for at, key in enumerate(sample.World().table().column("event_id").to_pylist())}
    table = sample.World().table()
    matrix = np.column_stack([table.column(name).to_numpy() for name in sample.FEATURES]).astype(np.float64)
    chosen = matrix[[rows[key] for key in told.column("event_id").to_pylist()]]
    one_by_one = b"".join(bundle.score(chosen[at : at + 1]).tobytes() for at in range(len(chosen)))
    assert len(chosen) > 1_000
    assert one_by_one == told.column("score").to_numpy().tobytes()


def test_the_report_adds_up(dataset: DatasetRef, places: Make) -> None:
    made = places()
    result = run(sample.request(dataset), made, silent)
    assert result.eval_report is not None
    assert result.summary is not None
    report = parse_strict(read(made.out, result.eval_report))
    test = report["windows"]["test"]
    assert sum(sum(kinds.values()) for kinds in report["confusion"].values()) == test["rows"]
    assert sum(kinds["fraud"] for kinds in report["confusion"].values()) == test["frauds"]
    assert sum(item["rows"] for item in report["reliability"]) == test["rows"]
    assert {part["segment"] for part in report["segments"]} == {"amount_minor", "channel"}
    for segment in ("amount_minor", "channel"):
        assert sum(part["rows"] for part in report["segments"] if part["segment"] == segment) == test["rows"]
    assert sum(report["importance_ppm"].values()) == pytest.approx(1_000_000, abs=10)
    assert report["importance_ppm"]["constant"] == 0
    assert result.summary.candidate.average_precision_ppm == report["summary"]["candidate"]["average_precision_ppm"]


def test_the_candidate_finds_what_the_baseline_cannot(dataset: DatasetRef, places: Make) -> None:
    summary = run(sample.request(dataset), places(), silent).summary
    assert summary is not None
    candidate, baseline = summary.candidate.average_precision_ppm, summary.baseline.average_precision_ppm
    assert candidate is not None
    assert baseline is not None
    assert candidate > baseline + 100_000
    assert summary.average_precision_low_ppm < candidate < summary.average_precision_high_ppm
    assert any("AP is known within" in note for note in summary.notes)


def test_two_trainings_publish_the_same_bytes(dataset: DatasetRef, places: Make) -> None:
    one, other = places("one"), places("other")
    for made in (one, other):
        run(sample.request(dataset), made, silent)
    assert contents(one) == contents(other)


def test_a_second_run_finds_the_first(dataset: DatasetRef, places: Make) -> None:
    made = places()
    first = run(sample.request(dataset), made, silent)
    before = contents(made)
    second = run(sample.request(dataset), made, silent)
    assert second == first.model_copy(update={"status": "ALREADY_PUBLISHED"})
    assert contents(made) == before


@pytest.mark.parametrize(
    ("stage", "at"), [("read", 1), ("fit", 7), ("shuffle", 2), ("publish", 0), ("publish", 1), ("publish", 2)]
)
def test_a_training_cut_short_is_run_again_to_the_same_bytes(
    stage: str, at: int, dataset: DatasetRef, places: Make
) -> None:
    whole, cut = places("whole"), places("cut")
    run(sample.request(dataset), whole, silent)
    with pytest.raises(Cancelled):
        run(sample.request(dataset), cut, cancel_at(stage, at))
    assert not any(key.endswith("result.json") for key in contents(cut))
    assert run(sample.request(dataset), cut, silent).status == "TRAINED"
    assert contents(cut) == contents(whole)


def test_a_run_that_fits_another_model_than_the_run_before_is_refused(dataset: DatasetRef, places: Make) -> None:
    made, request = places(), sample.request(dataset)
    made.out.put(training_key(request.digest, CANDIDATE), b'{"model_sha256":"another"}')
    result = run(request, made, silent)
    assert (result.status, result.blockers[0].code) == ("BLOCKED", "DFULL-RUN-B14")
    assert "fitted another model" in result.reasons[0]
    assert not list(made.out.list("bundles/"))


def test_a_dry_run_examines_and_puts_nothing(dataset: DatasetRef, places: Make) -> None:
    made = places()
    result = run(sample.request(dataset), made, silent, dry=True)
    assert (result.status, result.bundle) == ("DRY_RUN", None)
    assert result.summary is not None
    assert contents(made) == {}


@pytest.mark.parametrize(
    "name", ["bundle.json", "model.ubj", "model.json", "profile.json", "eval_report.json", "eval_rows.json"]
)
def test_a_published_object_that_was_damaged_blocks(
    name: str, dataset: DatasetRef, places: Make, tmp_path: Path
) -> None:
    made = places()
    run(sample.request(dataset), made, silent)
    path = sorted((tmp_path / "out").rglob(name))[-1]  # of two bundles, whichever
    body = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    result = run(sample.request(dataset), made, silent)
    assert [blocker.code for blocker in result.blockers] == ["DFULL-RUN-B14"]
    assert "is damaged" in result.reasons[0]


def test_thresholds_keep_the_budget_on_unlabelled_payments_between(
    datasets: FileStore, places: Make
) -> None:  # fmt: skip
    dataset = sample.put_dataset(datasets, sample.World(rows=12_000))
    made = places()
    result = run(sample.request(dataset), made, silent)
    assert result.bundle is not None
    assert result.summary is not None
    bundle = fetch(made.out.get, result.bundle, schema_digest=sample.SCHEMA)
    table, windows = sample.World(rows=12_000).table(), result.summary.windows
    times = table.column("event_us").to_numpy()
    between = (times >= windows.train_end_us) & (times < windows.test_start_us)
    matrix = np.column_stack([table.column(name).to_numpy() for name in sample.FEATURES]).astype(np.float64)[between]
    actions = [action_of(score, bundle.manifest.thresholds) for score in bundle.score(matrix).tolist()]
    stopped = sum(action != "ALLOW" for action in actions)
    assert len(actions) > 1_000
    assert 0 < stopped <= len(actions) // 100


def test_a_logistic_candidate_is_held_against_the_prevalence(dataset: DatasetRef, places: Make) -> None:
    made = places()
    result = run(sample.request(dataset, family="logistic"), made, silent)
    assert result.status == "TRAINED"
    assert result.bundle is not None
    assert result.summary is not None
    assert result.summary.floor_ppm == result.summary.prevalence_ppm
    assert fetch(made.out.get, result.bundle, schema_digest=sample.SCHEMA).manifest.model_file == "model.json"


def test_the_baseline_is_a_bundle_of_its_own_with_the_same_provenance(dataset: DatasetRef, places: Make) -> None:
    made, request = places(), sample.request(dataset)
    result = run(request, made, silent)
    assert result.bundle is not None
    assert result.challenger is not None
    assert result.eval_report is not None
    candidate, beside = (fetch(made.out.get, ref, schema_digest=sample.SCHEMA)
                         for ref in (result.bundle, result.challenger))  # fmt: skip
    assert (candidate.manifest.family, beside.manifest.family) == ("xgboost", "logistic")
    for name in ("dataset_fingerprint", "dataset_sha256", "train_request_digest", "code_release", "policy_rev",
                 "environment_lock_digest", "feature_schema_digest"):  # fmt: skip
        assert getattr(candidate.manifest, name) == getattr(beside.manifest, name)
    assert beside.manifest.thresholds != candidate.manifest.thresholds
    assert beside.manifest.profile_sha256 != candidate.manifest.profile_sha256
    receipt = parse_strict(read(made.out, result.bundle_receipt))  # type: ignore[arg-type]
    assert receipt["challenger"] == result.challenger.model_dump(mode="json")
    assert result.challenger.manifest.key in {file["key"] for file in receipt["files"]}


def test_the_rows_of_the_evaluation_are_named_in_the_order_of_their_scores(dataset: DatasetRef, places: Make) -> None:
    made = places()
    result = run(sample.request(dataset), made, silent)
    assert result.eval_rows is not None
    assert result.eval_scores is not None
    told = pq.read_table(io.BytesIO(read(made.out, result.eval_scores)))
    assert parse_strict(read(made.out, result.eval_rows)) == {"event_ids": told.column("event_id").to_pylist()}


def test_a_logistic_candidate_has_no_challenger(dataset: DatasetRef, places: Make) -> None:
    request = sample.request(dataset).model_copy(update={"family": "logistic"})
    result = run(request, places(), silent)
    assert result.bundle is not None
    assert result.challenger is None
