"""What the SQL engine and the system said of a failed import, as one line: what, why and the fix. Pure."""

import errno
import os
import re

import duckdb

from fp_runtime.errors import UserError

# The engine gives the system's word on and no number.
_STORE_FAULTS = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
_LINE = re.compile(r"CSV Error on Line: (\d+)")
_COUNTS = re.compile(r"^Expected Number of Columns: (\d+) Found: (\d+)", re.MULTILINE)
_FILE = re.compile(r"^  file = (.+)$", re.MULTILINE)
_CSV_FAULTS = (
    ("Value with unterminated quote", "a quote is opened and not closed", "close it, or double the quotes in a field"),
    ("Invalid unicode", "it is not UTF-8 text", "convert the file to UTF-8"),
    ("Maximum line size", "it is longer than two million bytes", "check the quotes and the line ends of the file"),
)


def of_engine(error: duckdb.Error, source: str, store: str) -> UserError:
    """Why the engine could not do it: the disk, a line of a CSV file, or its own first line. Shows no field's value."""
    text = str(error)
    for fault in _STORE_FAULTS:
        if fault in text:
            return of_store(fault, store)
    if isinstance(error, duckdb.OutOfMemoryException):
        return of_store("the disk has no room for what is sorted", store)
    line = _LINE.search(text)
    return _of_line(int(line[1]), text, source) if line else UserError(
        f"source {source}", text.strip().splitlines()[0][:200], "check the mapping's format and delimiter"
    )  # fmt: skip


def of_store(why: str, store: str) -> UserError:
    """Why nothing could be written where the world is built."""
    return UserError(f"oracle store {store}", why, "free space or choose another folder")


def _of_line(number: int, text: str, source: str) -> UserError:
    file = _FILE.search(text)
    what = f"source {file[1] if file else source}"
    counts = _COUNTS.search(text)
    if counts:
        wanted, found = counts.groups()
        why = f"line {number} has {found} fields where the header has {wanted}"
        return UserError(what, why, "mend the line, or quote a field that holds the delimiter")
    for sign, why, fix in _CSV_FAULTS:
        if sign in text:
            return UserError(what, f"line {number}: {why}", fix)
    return UserError(what, f"line {number} is no CSV", "check the mapping's format and delimiter")
