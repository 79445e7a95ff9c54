"""The foreign files as one SQL relation, and that they hold the columns a mapping names."""

import csv
import glob
import hashlib
from difflib import get_close_matches
from pathlib import Path

import duckdb

from fp_operator.worlds import sql
from fp_operator.worlds.mapping import Mapping
from fp_runtime.errors import UserError


def find_files(source: str | Path) -> list[str]:
    """The files of a path or glob, by name; UserError when there is none."""
    found = sorted(path for path in glob.glob(str(source)) if Path(path).is_file())
    if not found:
        raise UserError(f"source {source}", "there is no such file", "give the path or glob of the data files")
    return found


def files_sha256(files: list[str]) -> str:
    """sha256 over the sha256 of each file, in the order of their names."""
    whole = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def relation(staged: duckdb.DuckDBPyConnection, files: list[str], mapping: Mapping) -> str:
    """SQL that reads all files, every CSV column as text; UserError when a mapped column is missing."""
    paths = ", ".join(sql.literal(path) for path in files)
    if mapping.format == "parquet":
        read = f"read_parquet([{paths}])"
        _check(mapping, [row[0] for row in staged.execute(f"DESCRIBE SELECT * FROM {read}").fetchall()])
        return read
    columns = _header(files, mapping.delimiter)
    _check(mapping, columns)
    types = ", ".join(f"{sql.literal(column)}: 'VARCHAR'" for column in columns)
    return (
        f"read_csv([{paths}], header = true, auto_detect = false, columns = {{{types}}}, "
        f"delim = {sql.literal(mapping.delimiter)}, quote = '\"', escape = '\"')"
    )


def _header(files: list[str], delimiter: str) -> list[str]:
    headers = []
    for path in files:
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                headers.append(next(csv.reader(file, delimiter=delimiter), []))
        except UnicodeDecodeError as error:
            raise UserError(f"source {path}", "it is not UTF-8 text", "convert it to UTF-8") from error
        if headers[-1] != headers[0]:
            raise UserError(f"source {path}", f"its header differs from that of {files[0]}", "import them apart")
    if len(set(headers[0])) != len(headers[0]) or not all(headers[0]):
        raise UserError(f"source {files[0]}", "its header has an empty or repeated column name", "mend the header line")
    return headers[0]


def _check(mapping: Mapping, present: list[str]) -> None:
    for field, column in mapping.columns().items():
        if column not in present:
            near = get_close_matches(column, present, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the source has {', '.join(present[:12])}"
            raise UserError(f"field {field}", f"the source has no column {column!r}", f"change the mapping: {hint}")
