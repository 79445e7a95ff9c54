"""Evidence bundles: one folder or .tar.gz with the objects under their keys, the control log and an index.

The index names every file with its sha256 and size; it is canonical JSON, so that no byte of it can differ unseen.
"""

import base64
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from fp_contracts.canonical import CanonicalError, canonical_bytes, parse_strict, sha256_hex
from fp_verify.addendum import Holds
from fp_verify.check import INCONSISTENT, Result, verify
from fp_verify.log import Log, RawRecord, read_log
from fp_verify.sources import Mismatch, blocker_of
from fp_verify.unpacking import BundleError as BundleError
from fp_verify.unpacking import load as load

INDEX, LOG = "index.json", "control_log.ndjson"


def export(
    run: str, read: Callable[[str], bytes], keys: Iterable[str], records: Iterable[RawRecord], out: Path
) -> int:  # fmt: skip
    """Write a bundle: the objects under `keys`, those that the log names, the log, the index. Number of objects.

    `read` raises KeyError for what is gone: it is left out, and verification says so.
    """
    kept = [record for record in records if record.key == run.encode()]
    named = {ref.key for _, ref in read_log(run, kept).refs()}
    objects = {key: body for key in sorted({*keys, *named}) if (body := _read(read, key)) is not None}
    files = {**objects, LOG: b"".join(_line(record) for record in kept)}
    index = {
        "platform_run_id": run,
        "files": [{"key": k, "sha256": sha256_hex(v), "size": len(v)} for k, v in sorted(files.items())],
    }
    files[INDEX] = canonical_bytes(index)
    if out.name.endswith(".tar.gz"):
        _write_tar(out, files)
    else:
        for key, body in files.items():
            (out / key).parent.mkdir(parents=True, exist_ok=True)
            (out / key).write_bytes(body)
    return len(objects)


def verify_bundle(files: Mapping[str, bytes], candidate: str | None = None, holds: Holds | None = None) -> Result:
    """Verify a loaded bundle: its index, then the verdict and everything below it. `holds` as in `verify`."""
    if INDEX not in files:
        return _failed(Mismatch(INDEX, "missing, without it nothing is a bundle", INCONSISTENT))
    try:
        index = parse_strict(files[INDEX])
        run = str(index["platform_run_id"])
        named = {entry["key"]: (entry["sha256"], entry["size"]) for entry in index["files"]}
        canonical = canonical_bytes(index) == files[INDEX]
        if len(named) != len(index["files"]):
            raise CanonicalError("a file is named twice")
    except (KeyError, TypeError, CanonicalError) as error:
        return _failed(Mismatch(INDEX, f"not readable: {_told(error)}", INCONSISTENT))
    try:
        log = read_log(run, [_record(line) for line in files[LOG].splitlines()])
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        return _failed(Mismatch(LOG, f"not readable: {_told(error)}", INCONSISTENT))
    result = verify(files.__getitem__, log, candidate, holds)
    known = {mismatch.key for mismatch in result.mismatches}
    faults = [fault for fault in _index_faults(files, named, log) if fault.key not in known]
    if not canonical:
        faults.append(Mismatch(INDEX, "not canonical", INCONSISTENT))
    if not faults:
        return result
    return Result("FAIL", result.objects, (*result.mismatches, *faults), "FAIL", "FAIL")


def _index_faults(files: Mapping[str, bytes], named: Mapping[str, Any], log: Log) -> list[Mismatch]:
    owners = {ref.key: phase for phase, ref in log.refs()}

    def blocker(key: str) -> str:
        return blocker_of(owners[key]) if key in owners else INCONSISTENT

    faults = [Mismatch(key, "not named by the index", blocker(key)) for key in files if key not in {*named, INDEX}]
    for key, (sha256, size) in named.items():
        body = files.get(key)
        if body is None:
            faults.append(Mismatch(key, "missing", blocker(key)))
        elif len(body) != size or sha256_hex(body) != sha256:
            faults.append(Mismatch(key, "not as the index names it", blocker(key)))
    return faults


def _told(error: Exception) -> str:
    """What is wrong, for people; only what is printable of it."""
    text = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def _failed(mismatch: Mismatch) -> Result:
    return Result("FAIL", 0, (mismatch,), "FAIL", "FAIL")


def _read(read: Callable[[str], bytes], key: str) -> bytes | None:
    try:
        return read(key)
    except KeyError:
        return None


def _line(record: RawRecord) -> bytes:
    text = [base64.b64encode(part).decode() for part in (record.key, record.value)]
    return canonical_bytes({"offset": record.offset, "key": text[0], "value": text[1]}) + b"\n"


def _record(line: bytes) -> RawRecord:
    found = orjson.loads(line)
    return RawRecord(
        int(found["offset"]),
        base64.b64decode(found["key"], validate=True),
        base64.b64decode(found["value"], validate=True),
    )


def _write_tar(out: Path, files: Mapping[str, bytes]) -> None:
    """Whole or not at all: a bundle that is there is taken for the run's, so a kill must leave none."""
    part = out.with_name(f"{out.name}.part")
    with tarfile.open(part, "w:gz") as tar:
        for key, body in sorted(files.items()):
            member = tarfile.TarInfo(key)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    part.replace(out)
