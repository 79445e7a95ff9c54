"""What the import refuses: text that no store keeps, made-up money, mappings that contradict themselves, odd files."""

import csv
import errno
import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fp_operator.worlds import failures
from fp_operator.worlds.importer import import_world
from fp_operator.worlds.mapping import SHIPPED, Fields, Source, load_mapping, parse_mapping
from fp_runtime.errors import UserError
from fp_wsp.world_store import World, open_world

COLUMNS = (
    "id", "when", "shop", "buyer", "card", "device", "till", "total", "cur", "how", "code", "land", "kind", "said",
    "bad", "ring",
)  # fmt: skip
ROW = ("a", "2024-01-02", "s", "ann", "c1", "d1", "t1", "10.5", "EUR", "ECOM", "5411", "FR", "food", "OK", "no", "r1")
FIELDS = {
    "payment_id": "id", "merchant_id": "shop", "account_id": "buyer", "instrument_id": "card", "device_id": "device",
    "terminal_id": "till", "currency": "cur", "channel": "how", "mcc": "code", "country": "land", "category": "kind",
    "auth_result": "said",
}  # fmt: skip
MAPPING = """
name = "mine"
description = "test"
licence = "none"
format = "csv"
time = { column = "when" }
amount = { column = "total" }
[truth]
is_fraud = { column = "bad" }
campaign = { column = "ring" }
[fields]
""" + "\n".join(f'{field} = {{ column = "{column}" }}' for field, column in FIELDS.items())


def bring(folder: Path, changes: dict[str, str], mapping: str = MAPPING) -> World:
    """Import two rows, the second with `changes` by column."""
    source = folder / "in.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        second = {**dict(zip(COLUMNS, ROW, strict=True)), "id": "b", **changes}
        csv.writer(file).writerows([COLUMNS, ROW, second.values()])
    url = f"file://{folder}/oracle"
    return open_world(url, import_world(source, parse_mapping(mapping), url).fingerprint)


def refusal(folder: Path, changes: dict[str, str], mapping: str = MAPPING) -> str:
    with pytest.raises(UserError) as caught:
        bring(folder, changes, mapping)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- text that no store keeps ---


@pytest.mark.parametrize("text", ["\0", "x\0y", "\u00e9\0y", "e\u0301\0", "  \0"])
@pytest.mark.parametrize(("field", "column"), [*FIELDS.items(), ("campaign", "ring")])
def test_a_nul_is_refused_by_row_and_column(field: str, column: str, text: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, {column: text})
    assert said.startswith(f"{field} (column {column!r}): row 2: it holds a NUL character")
    assert list((tmp_path / "oracle").iterdir()) == []


def test_every_field_is_tried() -> None:
    assert FIELDS.keys() == Fields.model_fields.keys()


def test_a_nul_of_the_mapping_or_of_parquet_is_refused_too(tmp_path: Path) -> None:
    constant = MAPPING.replace('account_id = { column = "buyer" }', 'account_id = { constant = "x\\u0000" }')
    assert refusal(tmp_path, {}, constant).startswith("account_id: row 1 and 1 more: it holds a NUL character")
    with pytest.raises(UserError, match="description"):
        parse_mapping(MAPPING.replace('description = "test"', 'description = "x\\u0000"'))
    table = pa.table({column: [value] for column, value in zip(COLUMNS, ROW, strict=True)})
    table = table.set_column(COLUMNS.index("shop"), "shop", pa.array(["s\0"]))
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(UserError, match="merchant_id \\(column 'shop'\\): row 1: it holds a NUL"):
        import_world(
            tmp_path / "in.parquet", parse_mapping(MAPPING.replace('"csv"', '"parquet"')), f"file://{tmp_path}"
        )


@pytest.mark.parametrize("text", ["two\nlines", "\ufeffbom", "tab\tbed", "caf\u00e9", "\x1b[31m", "\\u0000"])
def test_other_text_is_taken_as_the_contract_takes_it(text: str, tmp_path: Path) -> None:
    assert [payment.account_id for payment in bring(tmp_path, {"buyer": text}).payments()] == ["ann", text]


# --- money ---


@pytest.mark.parametrize("code", ["YEN", "XXZ", "jpy", "XXX", "XAU", "EURO"])
def test_what_is_no_currency_is_refused_from_a_column_and_as_a_constant(code: str, tmp_path: Path) -> None:
    for changes, mapping in (
        ({"cur": code, "total": "1.2345"}, MAPPING),
        ({}, MAPPING.replace('currency = { column = "cur" }', f'currency = {{ constant = "{code}" }}')),
    ):
        said = refusal(tmp_path, changes, mapping)
        assert said.startswith("currency: row ")
        assert f"it is no ISO 4217 code ({code!r}). Fix: map it to the code of money with a minor unit" in said


@pytest.mark.parametrize(("code", "minor"), [("USD", 1_050), ("KWD", 10_500), ("CLF", 105_000), ("HRK", 1_050)])
def test_amounts_have_the_decimals_of_their_currency(code: str, minor: int, tmp_path: Path) -> None:
    assert [payment.amount_minor for payment in bring(tmp_path, {"cur": code}).payments()] == [1_050, minor]


@pytest.mark.parametrize("code", ["JPY", "UYI", "KRW"])
def test_money_without_a_minor_unit_has_no_decimals(code: str, tmp_path: Path) -> None:
    assert "the amount has more decimals than its currency" in refusal(tmp_path, {"cur": code})


# --- mappings that contradict themselves ---


@pytest.mark.parametrize(
    ("lists", "text"),
    [
        ('positive = ["yes"], negative = ["no", "yes"]', "yes"),
        ('positive = ["Yes"], negative = ["no", " yES"]', "yes"),
        ('positive = ["0"]', "0"),
    ],
)
def test_a_label_that_means_both_is_refused(lists: str, text: str, tmp_path: Path) -> None:
    said = refusal(
        tmp_path, {}, MAPPING.replace('is_fraud = { column = "bad"', f'is_fraud = {{ column = "bad", {lists}')
    )
    assert f"truth.is_fraud: {text!r} is both positive and negative. Fix: give both lists" in said


def test_labels_are_compared_whatever_their_case(tmp_path: Path) -> None:
    lists = MAPPING.replace('column = "bad"', 'column = "bad", positive = ["Ja"], negative = ["NO"]')
    assert [row.is_fraud for row in bring(tmp_path, {"bad": "JA"}, lists).truth()] == [False, True]


@pytest.mark.parametrize(
    ("field", "column", "other"),
    [("merchant_id", "id", "payment_id"), ("category", "total", "amount"), ("device_id", "when", "event_time"),
     ("payment_id", "when", "event_time"), ("account_id", "shop", "merchant_id"), ("merchant_id", "ID", "payment_id")],
)  # fmt: skip
def test_a_column_with_two_roles_that_exclude_each_other_is_refused(
    field: str, column: str, other: str, tmp_path: Path
) -> None:
    said = refusal(tmp_path, {}, MAPPING.replace(f'"{FIELDS[field]}"', f'"{column}"'))
    assert "field " in said
    assert f"is {other} already" in said or f"is {field} already" in said


@pytest.mark.parametrize(("field", "column"), [("payment_id", "bad"), ("account_id", "ring"), ("category", "bad")])
def test_truth_has_no_other_role(field: str, column: str, tmp_path: Path) -> None:
    assert "is truth" in refusal(tmp_path, {}, MAPPING.replace(f'"{FIELDS[field]}"', f'"{column}"'))


@pytest.mark.parametrize(("field", "column"), [("terminal_id", "shop"), ("instrument_id", "buyer"), ("mcc", "kind")])
def test_a_column_may_have_roles_that_go_together(field: str, column: str, tmp_path: Path) -> None:
    assert bring(tmp_path, {}, MAPPING.replace(f'"{FIELDS[field]}"', f'"{column}"')).manifest.rows == 2


def test_a_mapping_made_in_code_is_looked_at_too(tmp_path: Path) -> None:
    sound = parse_mapping(MAPPING)
    twice = sound.model_copy(update={"fields": sound.fields.model_copy(update={"mcc": Source(column="id")})})
    with pytest.raises(UserError, match="is payment_id already"):
        import_world(tmp_path / "none.csv", twice, f"file://{tmp_path}/oracle")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_name_of_a_shipped_world_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mapping.toml"
    path.write_text(MAPPING.replace('"mine"', f'"{name}"'))
    with pytest.raises(UserError, match=f"name: '{name}' is a world that comes with the project.* another name"):
        load_mapping(path)


def test_a_mapping_that_is_no_text_or_no_file_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "data.parquet"
    binary.write_bytes(b"PAR1\xff\xfe\0\0")
    with pytest.raises(UserError, match=r"it is not UTF-8 text\. Fix: give the TOML file, not the data"):
        load_mapping(binary)
    with pytest.raises(UserError, match="it cannot be read: Is a directory"):
        load_mapping(tmp_path)


# --- files ---


def of_file(folder: Path, raw: bytes) -> str:
    source = folder / "raw.csv"
    source.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        import_world(source, parse_mapping(MAPPING), f"file://{folder}/oracle")
    assert str(caught.value).isprintable()
    assert list((folder / "oracle").iterdir()) == []
    return str(caught.value)


HEADER = ",".join(COLUMNS).encode() + b"\n"
LINE = ",".join(ROW).encode() + b"\n"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "raw.csv: it is empty: no column and no row. Fix: give a file that begins with a line of column names"),
        (b"\n" + LINE, "its first line is empty: it names no column"),
        (bytes(100), "raw.csv: it is no text: its first line holds NUL characters. Fix: give UTF-8 text"),
        (bytes(300_000), "its first line is no header of a CSV file"),
        (b"a," * 1_000_001, "its first line is no header of a CSV file"),
        (b"\x1b[31m;x\n", "change the mapping: the source has '\\x1b[31m;x'"),
        (HEADER + LINE + b"1,2,3\n", "raw.csv: line 3 has 3 fields where the header has 16. Fix: mend the line"),
        (HEADER + LINE[:-1] + b",7\n", "line 2 has 17 fields where the header has 16"),
        (HEADER + LINE.replace(b"ann", b'"ann'), "line 2: a quote is opened and not closed. Fix: close it"),
        (HEADER + LINE.replace(b"ann", b"\xff"), "raw.csv: it is not UTF-8 text. Fix: convert it to UTF-8"),
        (HEADER + LINE * 999 + LINE.replace(b"ann", b"\xff"), "line 1001: it is not UTF-8 text. Fix: convert the file"),
        (HEADER + LINE.replace(b"ann", b"4" * 2_100_000), "line 2: it is longer than two million bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_told_as_it_is(raw: bytes, said: str, tmp_path: Path) -> None:
    assert said in of_file(tmp_path, raw)


def test_a_bad_line_is_told_without_its_values_and_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "part-1.csv").write_bytes(HEADER + LINE)
    (tmp_path / "part-2.csv").write_bytes(HEADER + b"4111111111111111,x\n")
    with pytest.raises(UserError) as caught:
        import_world(f"{tmp_path}/part-*.csv", parse_mapping(MAPPING), f"file://{tmp_path}/oracle")
    assert f"{tmp_path}/part-2.csv: line 2 has 2 fields where the header has 16" in str(caught.value)
    assert "4111" not in str(caught.value)


@pytest.mark.parametrize(("name", "why"), [(".", "it is a folder"), ("/dev/null", "it is no regular file"),
                                           ("none.csv", "there is no such file")])  # fmt: skip
def test_what_is_no_file_is_told_as_it_is(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{why}. Fix: give the path or glob of the data files"):
        import_world(tmp_path / name, parse_mapping(MAPPING), f"file://{tmp_path}/oracle")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_told_whatever_the_engine_calls_it(code: int) -> None:
    why = os.strerror(code)
    error = duckdb.TransactionException(f'TransactionContext Error: Failed to commit: Could not write "x.wal": {why}')
    said = str(failures.of_engine(error, "in.csv", "file:///o"))
    assert said == f"oracle store file:///o: {why}. Fix: free space or choose another folder"
    spilled = duckdb.OutOfMemoryException(
        'Out of Memory Error: failed to offload data block ("max_temp_directory_size")'
    )
    assert "free space" in str(failures.of_engine(spilled, "in.csv", "file:///o"))
