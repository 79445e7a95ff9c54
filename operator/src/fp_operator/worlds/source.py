"""The foreign files as one SQL relation, and that they hold the columns a mapping names."""

import csv
import glob
import hashlib
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

import duckdb

from fp_operator.worlds import sql
from fp_operator.worlds.mapping import Mapping
from fp_runtime.errors import UserError

_LINE_LIMIT = 2_000_000  # characters; the SQL engine takes as many bytes
_NO_TEXT = "give UTF-8 text, or say what it is in the mapping's format"


def find_files(source: str | Path) -> list[str]:
    """The files of a path or glob, by name; UserError when there is none or one may not be read."""
    what, fix = f"source {source}", "give the path or glob of the data files"
    found = sorted(glob.glob(str(source)))
    files = [path for path in found if Path(path).is_file()]
    if not found:
        raise UserError(what, "there is no such file", fix)
    if not files:
        folder = Path(found[0]).is_dir()
        raise UserError(what, "it is a folder" if folder else "it is no regular file", f"{fix}, such as data/*.csv")
    for path in files:
        if not os.access(path, os.R_OK):
            raise UserError(f"source {path}", "it may not be read", "give yourself the right to read it")
    return files


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
        headers.append(_columns(path, delimiter))
        if headers[-1] != headers[0]:
            raise UserError(f"source {path}", f"its header differs from that of {files[0]}", "import them apart")
    if len(set(headers[0])) != len(headers[0]) or not all(headers[0]):
        raise UserError(f"source {files[0]}", "its header has an empty or repeated column name", "mend the header line")
    return headers[0]


def _columns(path: str, delimiter: str) -> list[str]:
    """The column names of a CSV file; UserError when its first line names none."""
    what = f"source {path}"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(_lines(file), delimiter=delimiter), [])
    except UnicodeDecodeError as error:
        raise UserError(what, "it is not UTF-8 text", "convert it to UTF-8") from error
    except csv.Error as error:
        raise UserError(what, "its first line is no header of a CSV file", _NO_TEXT) from error
    if not columns:
        empty = not Path(path).stat().st_size
        why = "it is empty: no column and no row" if empty else "its first line is empty: it names no column"
        raise UserError(what, why, "give a file that begins with a line of column names")
    if any("\0" in column for column in columns):
        raise UserError(what, "it is no text: its first line holds NUL characters", _NO_TEXT)
    return columns


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file; csv.Error for one that nobody would read: what is no text may be one line without an end."""
    while line := file.readline(_LINE_LIMIT):
        if len(line) == _LINE_LIMIT:
            raise csv.Error("line over the limit")
        yield line


def _check(mapping: Mapping, present: list[str]) -> None:
    for field, column in mapping.columns().items():
        if column not in present:
            near = get_close_matches(column, present, n=1, cutoff=0.5)
            shown = (name if name.isprintable() else repr(name) for name in present[:12])
            hint = f"did you mean {near[0]!r}?" if near else f"the source has {', '.join(shown)}"
            raise UserError(f"field {field}", f"the source has no column {column!r}", f"change the mapping: {hint}")
