"""The evidence store: write-once objects named by content (laws 11 and 13). One contract, files or S3."""

import os
import secrets
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fp_contracts.canonical import canonical_bytes, sha256_hex
from fp_contracts.control import EvidenceRef
from fp_runtime.errors import Unavailable, UserError
from fp_runtime.evidence_key import (
    EvidenceBroken,
    EvidenceConflict,
    EvidenceKeyError,
    EvidenceMissing,
    Stored,
    check_key,
    ref_of,
)

__all__ = [
    "EvidenceBroken",
    "EvidenceConflict",
    "EvidenceKeyError",
    "EvidenceMissing",
    "EvidenceStore",
    "FileStore",
    "Stored",
    "check_key",
    "open_store",
    "put_json",
    "read",
    "ref_of",
]

_FILE_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class EvidenceStore(Protocol):
    """Write-once objects. Every method raises EvidenceKeyError for a bad key and Unavailable when the store is down."""

    def put(self, key: str, body: bytes) -> EvidenceRef:
        """Write once; the same bytes again give the same ref, other bytes EvidenceConflict."""
        ...

    def get(self, key: str) -> bytes:
        """The bytes; EvidenceMissing."""
        ...

    def list(self, prefix: str) -> list[Stored]:
        """All objects whose key starts with `prefix`, by key."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        ...


def put_json(store: EvidenceStore, key: str, doc: Any) -> EvidenceRef:
    """Write a document as canonical JSON; CanonicalError when it has no canonical form."""
    return store.put(key, canonical_bytes(doc))


def read(store: EvidenceStore, ref: EvidenceRef) -> bytes:
    """The bytes that `ref` names; EvidenceMissing, or EvidenceBroken when size or hash differ."""
    body = store.get(ref.key)
    if len(body) != ref.size or sha256_hex(body) != ref.sha256:
        raise EvidenceBroken(f"{ref.key}: size or sha256 is not the recorded one")
    return body


def open_store(url: str, endpoint: str | None = None) -> EvidenceStore:
    """The store at `file:///absolute/folder` or `s3://bucket/prefix`; `endpoint` = an S3-compatible server."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return FileStore(Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        from fp_runtime.evidence_s3 import S3Store, s3_client  # here, because boto3 takes 0.3 s to import

        return S3Store(s3_client(endpoint), parts.netloc, parts.path.strip("/"))
    raise UserError(f"store {url!r}", "unknown form", "use file:///absolute/folder or s3://bucket/prefix")


class FileStore:
    """Evidence in a folder: written aside, fsynced, then linked without replacing. Survives power loss."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._aside = root / ".aside"  # no key segment starts with a dot

    def put(self, key: str, body: bytes) -> EvidenceRef:
        """See EvidenceStore. A crash leaves at most a file aside, never a partial object."""
        ref = ref_of(key, body)
        target = self._root / key
        try:
            self._write(target, body)
        except FileExistsError:
            if not target.is_file():
                raise EvidenceKeyError(f"{key} is the folder of another key") from None
            if self.get(key) != body:
                raise EvidenceConflict(f"{key}: other bytes are already there") from None
        except NotADirectoryError as error:
            raise EvidenceKeyError(f"{key} lies below another key") from error
        except OSError as error:
            raise self._unavailable(error) from error
        return ref

    def _write(self, target: Path, body: bytes) -> None:
        _make_folder(self._aside)
        _make_folder(target.parent)
        aside = self._aside / secrets.token_hex(16)
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(aside, target)
            finally:
                _sync_folder(target.parent)  # also when another writer linked it: its bytes are then durable too
        finally:
            aside.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        """See EvidenceStore."""
        try:
            return (self._root / check_key(key)).read_bytes()
        except _FILE_ERRORS as error:
            raise EvidenceMissing(key) from error
        except OSError as error:
            raise self._unavailable(error) from error

    def list(self, prefix: str) -> list[Stored]:
        """See EvidenceStore."""
        start = self._root / prefix.rpartition("/")[0]
        found = []
        for folder, _, names in os.walk(start, onerror=self._listed):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                if key.startswith(prefix) and not key.startswith(".aside/"):
                    found.append(Stored(key, path.stat().st_size))
        return sorted(found)

    def exists(self, key: str) -> bool:
        """See EvidenceStore."""
        return (self._root / check_key(key)).is_file()

    def _listed(self, error: OSError) -> None:
        if not isinstance(error, _FILE_ERRORS):
            raise self._unavailable(error)

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(f"evidence store {self._root}: {error.strerror or error}")


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents durably: each new entry's parent is fsynced."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
