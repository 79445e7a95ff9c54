"""Reading a bundle's files into memory. A bundle comes from anywhere: what is not whole and plain is refused."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 2**30
MAX_FILES = 100_000
"""Far above what a run leaves (a hundred objects, a megabyte), far below what would take the machine with it."""

_PIECE = 2**16
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link", tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe", tarfile.GNUTYPE_SPARSE: "a file with holes",
}  # fmt: skip
# What gzip, zlib and tarfile raise on damaged bytes; ValueError and the like of numbers and names that make no sense,
# RecursionError of headers about headers about headers.
_DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, OverflowError, RecursionError)


class BundleError(ValueError):
    """The path is no bundle that can be read at all."""


def load(path: Path) -> dict[str, bytes]:
    """key -> bytes of every file of a bundle, a folder or .tar.gz; BundleError."""
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    try:
        for name, body in _folder(path) if path.is_dir() else _archive(path):
            left -= len(body)
            if left < 0:
                raise BundleError(f"{path}: over {MAX_BYTES} bytes")
            if len(files) >= MAX_FILES:
                raise BundleError(f"{path}: over {MAX_FILES} files")
            if name in files:
                raise BundleError(f"{path}: {name!r} is in it twice")
            files[name] = body
    except BundleError:
        raise
    except _DAMAGED as error:
        raise BundleError(f"{path}: not a bundle ({error or type(error).__name__})") from error
    return files


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for item in path.rglob("*"):
        if item.is_symlink():
            raise BundleError(f"{path}: {str(item.relative_to(path))!r} is a symbolic link")
        if item.is_dir():
            continue
        if not item.is_file():
            raise BundleError(f"{path}: {str(item.relative_to(path))!r} is no file")
        if item.stat().st_size > MAX_BYTES:
            raise BundleError(f"{path}: over {MAX_BYTES} bytes")
        yield _name(path, item.relative_to(path).as_posix()), item.read_bytes()


def _archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Read as a stream, once: nothing is looked for, nothing that a header promises is reserved before it came."""
    with _Measured(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for count, member in enumerate(tar):
            if count >= MAX_FILES:
                raise BundleError(f"{path}: over {MAX_FILES} files")
            if member.isdir():
                continue
            file = tar.extractfile(member) if member.type in _PLAIN and not member.issparse() else None
            if file is None:
                kind = _KINDS.get(member.type, "a file with holes" if member.issparse() else "of an unknown kind")
                raise BundleError(f"{path}: {member.name!r} is {kind}")
            yield _name(path, member.name), file.read()
        while stream.read(_PIECE):  # to its end, where gzip says whether what was unpacked is what was packed
            pass


class _Measured(gzip.GzipFile):
    """The unpacked stream, which ends in a BundleError as soon as it is longer than a bundle may be."""

    length = 0

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes."""
        body = super().read(size)
        self.length += len(body)
        if self.length > MAX_BYTES:
            raise BundleError(f"{self.name}: over {MAX_BYTES} bytes when unpacked")
        return body


def _name(path: Path, found: str) -> str:
    """A key: relative, of plain segments, printable."""
    name = found.removeprefix("./")
    if not name.isprintable() or any(segment in ("", ".", "..") for segment in name.split("/")):
        raise BundleError(f"{path}: {found[:200]!r} is not a name of a bundle's file")
    return name
