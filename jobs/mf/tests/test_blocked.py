"""Each thing that can be wrong with a dataset, a model or a bundle, alone: the right blocker and nothing published."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fp_contracts.bundle import PPM, DatasetRef, Floors, SplitRule, TimeBounds, TrainRequest
from fp_contracts.timestamps import US_PER_DAY
from fp_mf import sample
from fp_mf.errors import FAILED, Blocked
from fp_mf.evaluate import train
from fp_mf.job import Places, run
from fp_mf.progress import silent
from fp_mf.table import read_dataset
from fp_models import Bundle
from fp_models import sample as bundles
from fp_models.model import Matrix, Scores
from fp_runtime.evidence import FileStore

B14, B14_1 = "DFULL-RUN-B14", "DFULL-RUN-B14.1"
Make = Callable[..., Places]


def blocked(request: TrainRequest, places: Places, code: str, told: str) -> None:
    result = run(request, places, silent)
    assert (result.status, result.eligible, result.bundle) == ("BLOCKED", False, None)
    assert {blocker.code for blocker in result.blockers} == {code}
    assert told in result.reasons[0]
    assert not [stored.key for stored in places.out.list("bundles/")]
    assert not places.out.exists(f"training/{request.digest}/result.json")


def spoil(root: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = next(iter(sorted(root.rglob(name))))
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("name", ["manifest.json", "0.parquet"])
def test_a_dataset_changed_since_p13(name: str, dataset: DatasetRef, places: Make, tmp_path: Path) -> None:
    spoil(tmp_path / "datasets", name, lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    blocked(sample.request(dataset), places(), B14, "the dataset changed")


@pytest.mark.parametrize("name", ["manifest.json", "1.parquet"])
def test_a_dataset_object_that_is_gone(name: str, dataset: DatasetRef, places: Make, tmp_path: Path) -> None:
    next((tmp_path / "datasets").rglob(name)).unlink()
    blocked(sample.request(dataset), places(), B14, "is missing")


def test_a_dataset_of_another_intent(dataset: DatasetRef, places: Make) -> None:
    other = dataset.model_copy(update={"dataset_fingerprint": "00" * 32})
    blocked(sample.request(other), places(), B14, "asked was 000000000000")


def test_a_manifest_whose_fingerprint_is_not_that_of_its_intent(datasets: FileStore, places: Make) -> None:
    ref = sample.put_dataset(datasets, dataset_fingerprint="00" * 32)
    lying = ref.model_copy(update={"dataset_fingerprint": "00" * 32})
    blocked(sample.request(lying), places(), B14, "the dataset answers 000000000000")


def test_features_of_another_schema(dataset: DatasetRef, places: Make) -> None:
    blocked(sample.request(dataset, feature_schema_digest="00" * 32), places(), B14, "not the schema asked for")


def test_a_manifest_that_is_none(datasets: FileStore, places: Make) -> None:
    ref = DatasetRef(manifest=datasets.put("datasets/x/manifest.json", b"{}"), dataset_fingerprint="00" * 32)
    blocked(sample.request(ref), places(), B14, "is no dataset manifest")


def test_a_file_that_is_no_parquet(datasets: FileStore, places: Make) -> None:
    from fp_contracts.dataset import DataFile

    ref = datasets.put("datasets/x/rows.parquet", b"PAR1 but not really PAR1")
    broken = sample.put_dataset(datasets, files=(DataFile(key=ref.key, sha256=ref.sha256, size=ref.size, rows=1),))
    blocked(sample.request(broken), places(), B14, "cannot be read as parquet")


def test_fewer_rows_than_the_manifest_says(datasets: FileStore, places: Make) -> None:
    blocked(sample.request(sample.put_dataset(datasets, rows=6_001)), places(), B14, "its manifest says 6001")


def test_no_rows(datasets: FileStore, places: Make) -> None:
    blocked(sample.request(sample.put_dataset(datasets, files=(), rows=0)), places(), B14, "no rows")


def test_a_missing_column(datasets: FileStore, places: Make) -> None:
    world = replace(sample.World(), change=lambda table: table.drop_columns(["risk_7d"]))
    blocked(sample.request(sample.put_dataset(datasets, world)), places(), B14, "the rows lack risk_7d")


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("amount", lambda found: np.where(np.arange(len(found)) == 9, math.nan, found), "1 values that are no numbers"),
        ("amount", lambda found: np.where(np.arange(len(found)) == 9, math.inf, found), "first in row 9"),
        ("amount", lambda found: [None, *found[1:].tolist()], "not a full column of numbers"),
        ("amount", lambda found: [str(value) for value in found], "not a full column of numbers"),
        ("label", lambda found: np.where(np.arange(len(found)) == 9, 2, found), "a label is neither 0 nor 1"),
        ("label", lambda found: np.zeros(len(found), np.int8), "0 frauds"),
        ("label", lambda found: np.ones(len(found), np.int8), "frauds only"),
    ],
)
def test_rows_that_cannot_teach(
    name: str, values: Callable[[Any], Any], told: str, datasets: FileStore, places: Make
) -> None:
    dataset = sample.put_dataset(datasets, sample.with_column(name, values))
    blocked(sample.request(dataset), places(), B14, told)


@pytest.mark.parametrize(
    ("floors", "told"),
    [
        (Floors(min_train_frauds=5_000), "the train window has"),
        (Floors(min_test_frauds=5_000), "the test window has"),
    ],
)
def test_too_few_frauds(floors: Floors, told: str, dataset: DatasetRef, places: Make) -> None:
    blocked(sample.request(dataset, floors=floors), places(), B14, told)


def test_a_time_range_shorter_than_the_delay(dataset: DatasetRef, places: Make) -> None:
    split = SplitRule(delay_us=30 * US_PER_DAY)
    blocked(sample.request(dataset, split=split), places(), B14, "leave no train window before the label delay")


def test_windows_closer_than_the_delay(dataset: DatasetRef, places: Make) -> None:
    start = sample.START_US
    bounds = TimeBounds(
        train_start_us=start, train_end_us=start + 20 * US_PER_DAY, test_start_us=start + 24 * US_PER_DAY,
        test_end_us=start + 40 * US_PER_DAY,
    )  # fmt: skip
    split = SplitRule(delay_us=5 * US_PER_DAY, bounds=bounds)
    blocked(sample.request(dataset, split=split), places(), B14, "less than the label delay")


def test_a_candidate_under_the_floor_of_the_baseline_has_reports_and_no_bundle(
    dataset: DatasetRef, places: Make
) -> None:
    made, request = places(), sample.request(dataset, floors=Floors(margin_ppm=900_000))
    blocked(request, made, B14_1, "ap_reaches_floor")
    result = run(request, made, silent)
    assert result.eval_report is not None
    assert made.out.exists(result.eval_report.key)


def test_a_candidate_behind_the_active_bundle(dataset: DatasetRef, places: Make) -> None:
    made = places()
    active = run(sample.request(dataset), made, silent).bundle
    weaker = sample.request(dataset, active=active, family="logistic", floors=Floors(tolerance_ppm=10_000))
    result = run(weaker, made, silent)
    assert {blocker.code for blocker in result.blockers} == {B14_1}
    assert result.summary is not None
    assert result.summary.active is not None
    assert result.summary.active.average_precision_ppm is not None
    assert result.summary.floor_ppm == result.summary.active.average_precision_ppm - 10_000


def test_the_next_bundle_is_held_against_the_active_one_and_measures_drift(dataset: DatasetRef, places: Make) -> None:
    made = places()
    active = run(sample.request(dataset), made, silent).bundle
    result = run(sample.request(dataset, active=active, seed=8), made, silent)
    assert result.eligible
    assert result.summary is not None
    assert result.summary.active == result.summary.candidate
    assert any(ref.key.endswith("drift.png") for ref in result.pictures)


@pytest.mark.parametrize(
    ("name", "told"), [("model.ubj", "is damaged"), ("bundle.json", "is damaged"), ("profile.json", "not the profile")]
)
def test_a_damaged_active_bundle(name: str, told: str, dataset: DatasetRef, places: Make, tmp_path: Path) -> None:
    first, second = places("first"), places("second")
    active = run(sample.request(dataset), first, silent).bundle
    assert active is not None
    folder = (tmp_path / "first" / active.manifest.key).parent  # the challenger's lies beside it
    spoil(folder, name, lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    made = second._replace(active=first.out)
    blocked(sample.request(dataset, active=active), made, B14, told)


def test_an_active_bundle_for_other_features_is_named_and_not_compared(
    dataset: DatasetRef, places: Make, tmp_path: Path
) -> None:
    made, files = places(), bundles.files()
    for name, body in files.items():
        made.out.put(f"bundles/b/{name}", body)
    other = {**files, **bundles.files(feature_schema_digest="00" * 32)}
    ref = bundles.ref_to(other, "bundles/c/bundle.json")
    for name, body in other.items():
        made.out.put(f"bundles/c/{name}", body)
    result = run(sample.request(dataset, active=ref), made, silent)
    assert result.eligible
    assert result.summary is not None
    assert result.summary.active is None
    assert "made for other features" in result.summary.notes[0]


class Broken:
    """A model that answers NaN for one row in a hundred."""

    features = len(sample.FEATURES)

    def raw_scores(self, matrix: Matrix) -> Scores:
        scores = np.full(len(matrix), 0.5)
        scores[::100] = math.nan
        return scores


def test_a_model_that_answers_nan(dataset: DatasetRef, datasets: FileStore) -> None:
    request = sample.request(dataset)
    _, table = read_dataset(datasets.get, request, silent)
    manifest = bundles.load_sample().manifest
    with pytest.raises(Blocked, match="the active bundle answers what is no number") as refused:
        train(request, table, Bundle(manifest, Broken()), silent)
    assert refused.value.code == FAILED


def test_floors_beyond_one_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1000000"):
        Floors(margin_ppm=PPM + 1)


def test_other_bytes_under_a_published_key_block(dataset: DatasetRef, places: Make) -> None:
    made, request = places(), sample.request(dataset)
    made.out.put(f"training/{request.digest}/eval_report.json", b"another report")
    result = run(request, made, silent)
    assert [blocker.code for blocker in result.blockers] == [B14]
    assert "other bytes" in result.reasons[0]


def test_the_table_helper_reads_segments_of_any_kind(datasets: FileStore) -> None:
    world = replace(
        sample.World(),
        change=lambda table: table.set_column(
            table.column_names.index("channel"), "channel",
            pa.array([f"c{at % 40}" if at % 3 else None for at in range(table.num_rows)]),
        ),
    )  # fmt: skip
    request = sample.request(sample.put_dataset(datasets, world))
    _, table = read_dataset(datasets.get, request, silent)
    assert "(other)" in set(table.segments["channel"])
    assert len(set(table.segments["channel"])) <= 12
    assert len(set(table.segments["amount_minor"])) == 4
