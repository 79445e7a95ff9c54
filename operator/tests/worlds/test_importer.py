"""The importer: foreign shapes become sealed worlds; every bad input is one line saying what, why and the fix."""

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fp_operator.worlds.importer import import_world
from fp_operator.worlds.mapping import Mapping, Source, parse_mapping
from fp_runtime.errors import UserError
from fp_wsp.world import AUTH_REQUEST, event_id
from fp_wsp.world_check import verify
from fp_wsp.world_store import World, list_worlds, open_world

COLUMNS = ("id", "when", "shop", "buyer", "card", "total", "cur", "how", "bad", "ring")
ROWS: list[list[str]] = [
    ["b", "2024-01-02 10:00:00", "shop-1", "ann", "c1", "12.34", "EUR", "web", "0", ""],
    ["a", "2024-01-02 10:00:00", "shop-1", "bob", "c2", "5", "JPY", "till", "1", "r9"],
    ["c", "2024-01-01T09:00:00+02:00", "shop-2", "ann", "c1", "0.5", "EUR", "web", "0", ""],
    ["d", "2024-01-03 00:00:00.250", "shop-1", "cyd", "c3", "1.234", "KWD", "web", "0", ""],
]
MAPPING = """
name = "other-shape"
description = "test"
licence = "none"
format = "csv"
[time]
column = "when"
[amount]
column = "total"
[fields]
payment_id = { column = "id", prefix = "p-" }
merchant_id = { column = "shop" }
account_id = { column = "buyer" }
instrument_id = { column = "card" }
currency = { column = "cur" }
[fields.channel]
column = "how"
map = { web = "ECOM", till = "CARD_PRESENT" }
[truth.is_fraud]
column = "bad"
[truth.campaign]
column = "ring"
"""


@pytest.fixture
def oracle(tmp_path: Path) -> Path:
    return tmp_path / "oracle"


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[list[str]], name: str = "in.csv", header: tuple[str, ...] = COLUMNS) -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


def mapping(old: str = "", new: str = "") -> Mapping:
    assert old in MAPPING
    return parse_mapping(MAPPING.replace(old, new) if old else MAPPING)


def bring(source: Path | str, oracle: Path, with_mapping: Mapping | None = None, **options: Any) -> World:
    manifest = import_world(source, with_mapping or mapping(), f"file://{oracle}", **options)
    return open_world(f"file://{oracle}", manifest.fingerprint)


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000) * 1_000


def test_another_shape_out_of_order_becomes_a_sound_world(write_csv: Callable[..., Path], oracle: Path) -> None:
    world = bring(write_csv(ROWS), oracle)
    assert verify(world) == []
    payments = list(world.payments())
    assert [(p.payment_id, p.ts_us, p.merchant_id, p.arrival_seq) for p in payments] == [
        ("p-c", us("2024-01-01 07:00:00"), "shop-2", 1),
        ("p-a", us("2024-01-02 10:00:00"), "shop-1", 1),
        ("p-b", us("2024-01-02 10:00:00"), "shop-1", 2),
        ("p-d", us("2024-01-03 00:00:00.250"), "shop-1", 3),
    ]
    assert [(p.amount_minor, p.currency, p.channel, p.instrument_id) for p in payments] == [
        (50, "EUR", "ECOM", "c1"), (5, "JPY", "CARD_PRESENT", "c2"), (1234, "EUR", "ECOM", "c1"),
        (1234, "KWD", "ECOM", "c3"),
    ]  # fmt: skip
    truth = list(world.truth())
    assert [(t.is_fraud, t.campaign) for t in truth] == [(False, None), (True, "r9"), (False, None), (False, None)]
    assert truth[1].event_id == event_id(world.manifest.world_id, "p-a", AUTH_REQUEST)
    assert (world.manifest.rows, world.manifest.frauds, world.manifest.accounts) == (4, 1, 3)
    assert world.manifest.currencies == ("EUR", "JPY", "KWD")


def test_the_same_import_is_the_same_world(write_csv: Callable[..., Path], oracle: Path) -> None:
    source = write_csv(ROWS)
    assert bring(source, oracle).fingerprint == bring(source, oracle).fingerprint
    assert [world.manifest.name for world in list_worlds(f"file://{oracle}")] == ["other-shape"]
    assert [path.name for path in oracle.iterdir() if path.name.startswith(".")] == []


def test_files_of_a_glob_are_one_world_and_files_of_a_view_tile_it(
    write_csv: Callable[..., Path], oracle: Path, tmp_path: Path
) -> None:
    write_csv(ROWS[:2], "part-1.csv")
    write_csv(ROWS[2:], "part-2.csv")
    heard: list[tuple[str, int, int | None]] = []
    world = bring(
        str(tmp_path / "part-*.csv"), oracle, rows_per_file=3, progress=lambda *event: heard.append(event)
    )  # fmt: skip
    assert [file.rows for file in world.manifest.stream] == [3, 1]
    assert [file.rows for file in world.manifest.truth] == [3, 1]
    assert verify(world) == []
    assert heard[-1] == ("truth", 4, 4)


def test_parquet_with_native_types(oracle: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    columns = {
        "id": [1, 2], "when": pa.array([1_700_000_000_123, 1_700_000_001_000], pa.timestamp("ms")), "shop": [7, 7],
        "buyer": [1, 2], "card": [1, 2], "total": [285.90000000000003, 0.1 + 0.2], "cur": ["USD", "USD"],
        "how": ["web", "web"], "bad": [True, False], "ring": [0, 0],
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)
    payments = list(bring(path, oracle, mapping('format = "csv"', 'format = "parquet"')).payments())
    assert [(p.ts_us, p.amount_minor, p.merchant_id) for p in payments] == [
        (1_700_000_000_123_000, 28_590, "7"), (1_700_000_001_000_000, 30, "7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ('format = "epoch_s"', "1700000000.5", 1_700_000_000_500_000),
        ('format = "epoch_ms"', "1700000000123", 1_700_000_000_123_000),
        ('format = "epoch_us"', "1700000000123456", 1_700_000_000_123_456),
        ('format = "%d/%m/%Y %H:%M"\ntz = "Europe/Paris"', "14/11/2023 23:13", us("2023-11-14 22:13:00")),
        ('format = "%d/%m/%Y %H:%M %z"', "14/11/2023 23:13 +0200", us("2023-11-14 21:13:00")),
        ('tz = "America/New_York"', "2024-07-01 00:00:00", us("2024-07-01 04:00:00")),
    ],
)
def test_times(form: str, text: str, expected: int, write_csv: Callable[..., Path], oracle: Path) -> None:
    rows = [[*ROWS[0][:1], text, *ROWS[0][2:]]]
    world = bring(write_csv(rows), oracle, mapping('column = "when"', f'column = "when"\n{form}'))
    assert next(world.payments()).ts_us == expected


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ('unit = "minor"', "1234", 1234),
        ("decimal_comma = true", "1.234,5", 123_450),
        ("rounding = true", "1.005", 101),
    ],
)
def test_amounts(option: str, text: str, expected: int, write_csv: Callable[..., Path], oracle: Path) -> None:
    rows = [[*ROWS[0][:5], text, *ROWS[0][6:]]]
    world = bring(write_csv(rows), oracle, mapping('column = "total"', f'column = "total"\n{option}'))
    assert next(world.payments()).amount_minor == expected


def changed(row: int, column: str, value: str) -> list[list[str]]:
    rows = [list(cells) for cells in ROWS]
    rows[row - 1][COLUMNS.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (3, "when", "yesterday", "column 'when': row 3: it cannot be read as a time ('yesterday')"),
        (2, "when", "", "column 'when': row 2: it cannot be read as a time"),
        (2, "when", "infinity", "it cannot be read as a time"),
        (1, "when", "3024-01-01", "the time is not between 1970 and 2100"),
        (2, "total", "NaN", "column 'total': row 2: the amount is not a number ('NaN')"),
        (2, "total", "inf", "the amount is not a number"),
        (2, "total", "five", "the amount is not a number ('five')"),
        (2, "total", "", "the amount is not a number"),
        (4, "total", "-1", "row 4: the amount is negative ('-1')"),
        (1, "total", "12.345", "row 1: the amount has more decimals than its currency"),
        (1, "total", "999999999999999", "the amount is too large"),
        (1, "cur", "euro", "currency: row 1: it is no ISO 4217 code ('euro')"),
        (1, "how", "pigeon", "channel: row 1: it is empty or its value is not in the map"),
        (1, "shop", "  ", "merchant_id: row 1: it is empty"),
        (1, "buyer", "x" * 257, "account_id: row 1: it is longer than 256 characters"),
        (2, "bad", "maybe", "column 'bad': row 2: it is neither a positive nor a negative label ('maybe')"),
        (2, "bad", "", "it is neither a positive nor a negative label"),
        (3, "id", "a", "payment_id: 'p-a' is in row 2 and again in row 3"),
    ],
)
def test_bad_rows_are_named_and_leave_nothing(
    row: int, column: str, value: str, message: str, write_csv: Callable[..., Path], oracle: Path
) -> None:
    with pytest.raises(UserError) as caught:
        bring(write_csv(changed(row, column, value)), oracle)
    assert message in str(caught.value)
    assert "Fix: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(oracle.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('column = "total"', 'column = "totale"', "no column 'totale'. Fix: change the mapping: did you mean 'total'?"),
        ('column = "when"', 'column = "when"\ntz = "Mars/Base"', "unknown time zone 'Mars/Base'"),
        ('column = "when"', 'column = "when"\nformat = "epoch"', "unknown format 'epoch'"),
        ('{ column = "shop" }', '{ column = "bad" }', "column 'bad' is truth and may never reach the stream"),
        ('{ column = "shop" }', '{ column = "TX_FRAUD" }', "is truth and may never reach the stream"),
        ('{ column = "shop" }', '{ column = "ring" }', "column 'ring' is truth"),
        ('{ column = "shop" }', '{ column = "shop", constant = "x" }', "give either column or constant"),
        ('{ column = "shop" }', "{ colum = 'shop' }", "Extra inputs are not permitted"),
        ('merchant_id = { column = "shop" }', "", "merchant_id: Field required"),
        ('name = "other-shape"', 'name = "a/b"', "name: "),
        ("[time]", "[time", "it is not TOML"),
        ('licence = "none"', 'licence = "none"\nfilter = { start = "2030-01-01T00:00:00Z" }', "no row is left"),
        ('licence = "none"', 'licence = "none"\nfilter = { start = "soon" }', "'soon' is not a time"),
        ('licence = "none"', 'licence = "none"\ndelimiter = ";"', "the source has no column"),
    ],
)
def test_bad_mappings_are_named_and_leave_nothing(
    old: str, new: str, message: str, write_csv: Callable[..., Path], oracle: Path
) -> None:
    with pytest.raises(UserError) as caught:
        bring(write_csv(ROWS), oracle, mapping(old, new))
    assert message in str(caught.value)
    assert not oracle.exists() or list(oracle.iterdir()) == []


def test_a_mapping_made_in_code_cannot_smuggle_truth_either(write_csv: Callable[..., Path], oracle: Path) -> None:
    sound = mapping()
    leaky = sound.model_copy(update={"fields": sound.fields.model_copy(update={"category": Source(column="bad")})})
    with pytest.raises(UserError, match="field category: column 'bad' is truth"):
        bring(write_csv(ROWS), oracle, leaky)
    assert not oracle.exists()


def test_bad_files_are_named(write_csv: Callable[..., Path], oracle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        bring(tmp_path / "none.csv", oracle)
    ragged = tmp_path / "ragged.csv"
    ragged.write_text(",".join(COLUMNS) + "\n1,2,3\n")
    with pytest.raises(UserError, match="source"):
        bring(ragged, oracle)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(
        ",".join(COLUMNS).encode() + b"\n" + ",".join(ROWS[0]).replace("ann", "ann\xe9").encode("latin-1")
    )
    with pytest.raises(UserError, match="source"):
        bring(latin, oracle)
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(UserError, match="no column"):
        bring(empty, oracle)
    with pytest.raises(UserError, match="no row is left"):
        bring(write_csv([]), oracle)
    text = tmp_path / "text.parquet"
    text.write_text("not parquet")
    with pytest.raises(UserError, match="source"):
        bring(text, oracle, mapping('format = "csv"', 'format = "parquet"'))
    write_csv(ROWS[:1], "x-1.csv")
    write_csv([], "x-2.csv", header=("id",))
    with pytest.raises(UserError, match="header differs"):
        bring(str(tmp_path / "x-*.csv"), oracle)
    assert list(oracle.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    write_csv: Callable[..., Path], oracle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(UserError, match="No space left on device"):
        bring(write_csv(ROWS), oracle)
    assert list(oracle.iterdir()) == []


def test_an_oracle_that_cannot_be_made_is_named(write_csv: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="oracle store"):
        bring(write_csv(ROWS), tmp_path / "file" / "oracle")


def test_keep_first_drops_later_copies_of_an_id(write_csv: Callable[..., Path], oracle: Path) -> None:
    keep = mapping('licence = "none"', 'licence = "none"\nduplicates = "keep_first"')
    world = bring(write_csv([*ROWS, changed(1, "total", "99")[0]]), oracle, keep)
    assert world.manifest.dropped_duplicates == 1
    assert {p.payment_id: p.amount_minor for p in world.payments()}["p-b"] == 1234


def test_a_missing_label_may_be_declared_legit(write_csv: Callable[..., Path], oracle: Path) -> None:
    legit = mapping('column = "bad"', 'column = "bad"\nmissing = "legit"')
    world = bring(write_csv(changed(2, "bad", "")), oracle, legit)
    assert world.manifest.frauds == 0
    assert "legit" in world.manifest.label_policy


def test_card_numbers_become_tokens(write_csv: Callable[..., Path], oracle: Path) -> None:
    rows = changed(1, "card", "4111 1111 1111 1111")
    rows[2][COLUMNS.index("card")] = "4111 1111 1111 1111"
    rows[1][COLUMNS.index("shop")] = "till 5500005555555559 left"
    rows[3][COLUMNS.index("card")] = "4111111111111112"  # fails the check digit: an id like any other
    world = bring(write_csv(rows), oracle, token_key=b"k" * 32)
    cards = {p.payment_id: p.instrument_id for p in world.payments()}
    assert cards["p-b"] == cards["p-c"]
    assert cards["p-b"].startswith("tok_")
    assert cards["p-d"] == "4111111111111112"
    assert world.manifest.tokenised == {"instrument_id": 1, "merchant_id": 1}
    files = [path.read_bytes() for path in oracle.rglob("*.parquet")]
    assert not any(b"5500005555555559" in raw for raw in files)
    other = bring(write_csv(rows), oracle, token_key=b"x" * 32)
    assert {p.payment_id: p.instrument_id for p in other.payments()}["p-b"] != cards["p-b"]


def test_filters_keep_whole_accounts_and_a_time_range(write_csv: Callable[..., Path], oracle: Path) -> None:
    rows = [[str(n), f"2024-01-{1 + n % 28:02d} 00:00:00", "s", f"acct{n % 10}", "c", "1", "EUR", "web", "0", ""]
            for n in range(200)]  # fmt: skip
    source = write_csv(rows)
    kept = 'licence = "none"\nfilter = { accounts = { modulo = 10, below = 5 } }'
    world = bring(source, oracle, mapping('licence = "none"', kept))
    accounts = {p.account_id for p in world.payments()}
    digits = {a: int(str(duckdb.execute("SELECT sha256(?)", [a]).fetchall()[0][0])[:15], 16) for a in accounts}
    assert 0 < len(accounts) < 10
    assert all(value % 10 < 5 for value in digits.values())
    assert world.manifest.rows == 20 * len(accounts)
    ranged = 'filter = { start = "2024-01-03T00:00:00Z", until = "2024-01-05T00:00:00Z", rows = 9 }'
    cut = bring(source, oracle, mapping('licence = "none"', f'licence = "none"\n{ranged}'))
    assert cut.manifest.rows == 9
    assert us("2024-01-03 00:00:00") <= cut.manifest.first_us <= cut.manifest.last_us < us("2024-01-05 00:00:00")
    asked = mapping().between("2024-01-03T00:00:00Z", "2024-01-05T00:00:00Z")
    assert bring(source, oracle, asked).manifest.last_us == us("2024-01-04 00:00:00")
    assert mapping().between(None, None) == mapping()


def test_row_numbers_hold_over_many_rows(write_csv: Callable[..., Path], oracle: Path) -> None:
    rows = [[str(n), "2024-01-01 00:00:00", "s", "a", "c", "1", "EUR", "web", "0", ""] for n in range(150_000)]
    rows[140_000][5] = "oops"
    with pytest.raises(UserError, match="row 140001: the amount is not a number"):
        bring(write_csv(rows), oracle)
