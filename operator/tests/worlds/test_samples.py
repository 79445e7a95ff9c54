"""The shipped worlds: sealed in seconds, the same each time, with what the demo needs in them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fp_contracts.timestamps import US_PER_DAY
from fp_operator.worlds import cut as cutting
from fp_operator.worlds.mapping import BUILT_IN, load_mapping, parse_mapping
from fp_operator.worlds.samples import sample_world, tiny_world
from fp_runtime.errors import UserError
from fp_wsp.world_check import verify
from fp_wsp.world_store import open_world

SHIPPED = Path(cutting.__file__).parent / "sample"


@pytest.mark.parametrize(("make", "rows", "frauds"), [(sample_world, 24_964, 331), (tiny_world, 500, 42)])
def test_a_shipped_world_is_sound(make: object, rows: int, frauds: int, tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    manifest = sample_world(url) if make is sample_world else tiny_world(url)
    assert (manifest.rows, manifest.frauds) == (rows, frauds)
    assert manifest.last_us - manifest.first_us > 35 * US_PER_DAY
    assert manifest.tokenised == {}
    assert verify(open_world(url, manifest.fingerprint)) == []
    assert not any(
        payment.merchant_id.startswith("fraud_") for payment in open_world(url, manifest.fingerprint).payments()
    )


def test_the_shipped_files_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 2 * 2**20


def test_a_cut_of_a_cut_keeps_whole_cards(tmp_path: Path) -> None:
    wanted = cutting.Cut(2, 1, "2019-03-10", "2019-03-20", 10_000)
    rows = cutting.cut(SHIPPED / "sample.parquet", tmp_path / "cut.parquet", wanted)
    table = pq.read_table(tmp_path / "cut.parquet")
    source = pq.read_table(SHIPPED / "sample.parquet")
    cards = set(table.column("card_id").to_pylist())
    days = [(c, t) for c, t in zip(*(source.column(n).to_pylist() for n in ("card_id", "event_time")), strict=True)
            if c in cards and "2019-03-10" <= t.isoformat() < "2019-03-20"]  # fmt: skip
    assert rows == table.num_rows == len(days) > 0
    assert table.schema.names == list(cutting.COLUMNS)


def test_every_built_in_mapping_loads() -> None:
    assert len({load_mapping(name).digest for name in BUILT_IN}) == len(BUILT_IN)


def test_the_sample_mappings_follow_the_sparkov_one() -> None:
    for name in ("sample", "tiny"):
        shipped = parse_mapping((SHIPPED / f"{name}.toml").read_text())
        assert shipped.model_copy(update={"name": "sparkov"}) == load_mapping("sparkov")


def test_a_mapping_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="there is no such file"):
        load_mapping("nowhere.toml")
