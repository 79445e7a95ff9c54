"""A bundle comes from anywhere: whatever its bytes are, it ends in a result, or in a BundleError that says why."""

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fp_contracts.canonical import canonical_bytes
from fp_verify import unpacking
from fp_verify.bundle import INDEX, LOG, BundleError, export, load, verify_bundle
from fp_verify.sample import RUN, green_run

FLIPS = 400


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real archive of a torn-down run."""
    run = green_run()
    run.close("P17")
    path = tmp_path_factory.mktemp("archive") / "run.tar.gz"
    export(RUN, run.objects.__getitem__, run.objects, run.records, path)
    assert verify_bundle(load(path)).result == "PASS"
    return path.read_bytes()


def judged(path: Path) -> str:
    """PASS, FAIL or "refused"; whatever else is raised is a traceback for whoever asked."""
    try:
        return verify_bundle(load(path)).result
    except BundleError:
        return "refused"


def damaged(whole: bytes, seed: int) -> bytes:
    """One flipped bit, a cut, a run of zeros, or a piece put twice."""
    dice = random.Random(seed)
    at, to = sorted(dice.sample(range(len(whole)), 2))
    bit = bytes((whole[at] ^ 1 << dice.randrange(8),))
    kinds = (whole[:at] + bit + whole[at + 1 :], whole[:at], whole[:at] + bytes(to - at) + whole[to:],
             whole[:to] + whole[at:])  # fmt: skip
    return kinds[seed % 4]


def test_a_damaged_archive_is_refused_or_fails_and_never_raises_anything_else(archive: bytes, tmp_path: Path) -> None:
    path, found = tmp_path / "b.tar.gz", Counter[str]()
    for seed in range(FLIPS):
        path.write_bytes(damaged(archive, seed))
        found[judged(path)] += 1
    assert found.total() == FLIPS
    assert found["refused"] > FLIPS * 0.95  # a few bits of gzip's own header say nothing about the files


def test_damage_inside_the_packing_is_refused_or_fails_too(archive: bytes, tmp_path: Path) -> None:
    path, found, plain = tmp_path / "b.tar.gz", Counter[str](), gzip.decompress(archive)
    for seed in range(FLIPS):
        path.write_bytes(gzip.compress(damaged(plain, seed), compresslevel=1))
        found[judged(path)] += 1
    assert found["FAIL"] + found["refused"] > FLIPS * 0.8  # what lies between the files is nobody's


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member, body in members:
            tar.addfile(member, io.BytesIO(body))
    return out.getvalue()


def member(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size = size
    for field, value in fields.items():
        setattr(found, field, value)
    return found


def sparse(name: str, size: int) -> bytes:
    """A file of `size` bytes, all of them a hole."""
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": f"{size},0",
               "GNU.sparse.size": str(size)}  # fmt: skip
    return packed((member(name, pax_headers=headers), b""))


def promised(name: str, size: int) -> bytes:
    """A header that promises more than comes."""
    return gzip.compress(member(name, size).tobuf(tarfile.GNU_FORMAT))


def nested(depth: int) -> bytes:
    """Long names of long names."""
    header = member("x", 512, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    return gzip.compress((header + b"a".ljust(512, b"\0")) * depth)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a symbolic link": (lambda: packed((member("index.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")),
                        "'index.json' is a symbolic link"),
    "a hard link": (lambda: packed((member("a", 1), b"1"), (member("b", type=tarfile.LNKTYPE, linkname="a"), b"")),
                    "'b' is a hard link"),
    "a device": (lambda: packed((member("a", type=tarfile.CHRTYPE), b"")), "'a' is a device"),
    "a pipe": (lambda: packed((member("a", type=tarfile.FIFOTYPE), b"")), "'a' is a pipe"),
    "another kind": (lambda: packed((member("a", type=tarfile.CONTTYPE), b"")), "'a' is of an unknown kind"),
    "a file with holes": (lambda: sparse("a", 2**50), "'a' is a file with holes"),
    "a name twice": (lambda: packed((member("a", 1), b"1"), (member("a", 1), b"2")), "'a' is in it twice"),
    "a name twice in two spellings": (lambda: packed((member("./a"), b""), (member("a"), b"")), "'a' is in it twice"),
    "an absolute name": (lambda: packed((member("/etc/passwd"), b"")), "'/etc/passwd' is not a name"),
    "a name above": (lambda: packed((member("evidence/../../x"), b"")), "is not a name"),
    "a folded name": (lambda: packed((member("evidence/./x"), b"")), "is not a name"),
    "control characters": (lambda: packed((member("a\x1b[2Jb"), b"")), "is not a name"),
    "no name": (lambda: packed((member(""), b"")), "is not a name"),
    "a name that is no text": (lambda: packed((member("a\udcff"), b"")), "is not a name"),
    "a promise": (lambda: promised("a", 2**33 - 1), "not a bundle"),
    "a size below zero": (lambda: promised("a", -(2**40)), "not a bundle|is not a name|it twice"),
    "headers about headers": (lambda: nested(3_000), "not a bundle"),
    "no gzip": (lambda: b"PK\x03\x04", "not a bundle"),
    "nothing": (lambda: b"", "not a bundle"),
    "nothing packed": (lambda: gzip.compress(b""), "not a bundle"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    make, why = HOSTILE[name]
    path.write_bytes(make())
    with pytest.raises(BundleError, match=why):
        load(path)


BOMBS: dict[str, Callable[[], bytes]] = {
    "one file": lambda: packed((member("a", 3_000_000), bytes(3_000_000))),
    "many files": lambda: packed(*((member(f"a{n}", 300_000), bytes(300_000)) for n in range(10))),
    "what comes after the last file": lambda: gzip.compress(gzip.decompress(packed()) + bytes(3_000_000)),
    "a header": lambda: packed((member("a", pax_headers={"comment": "x" * 3_000_000}), b"")),
    "a long name": lambda: packed((member("a" * 3_000_000), b"")),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_that_unpacks_to_too_much_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_bytes(BOMBS[name]())
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(unpacking, "MAX_BYTES", 1_000_000)
    with pytest.raises(BundleError, match="over 1000000 bytes"):
        load(path)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.tar.gz").write_bytes(packed(*((member(f"a{n}"), b"") for n in range(11))))
    (tmp_path / "f").mkdir()
    for n in range(11):
        (tmp_path / "f" / str(n)).touch()
    for path in (tmp_path / "b.tar.gz", tmp_path / "f"):
        assert len(load(path)) == 11
    monkeypatch.setattr(unpacking, "MAX_FILES", 10)
    for path in (tmp_path / "b.tar.gz", tmp_path / "f"):
        with pytest.raises(BundleError, match="over 10 files"):
            load(path)


def test_folders_in_an_archive_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_bytes(packed((member("./", type=tarfile.DIRTYPE), b""), (member("./a/b", 2), b"xy")))
    assert load(path) == {"a/b": b"xy"}


def test_a_folder_that_holds_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        (tmp_path / str(n)).write_bytes(bytes(400))
    assert len(load(tmp_path)) == 3
    for limit in (1_000, 300):
        monkeypatch.setattr(unpacking, "MAX_BYTES", limit)
        with pytest.raises(BundleError, match=f"over {limit} bytes"):
            load(tmp_path)


def test_a_folder_holds_plain_files_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"xy")
    assert load(tmp_path) == {"a/b": b"xy"}
    for make, why in (
        (lambda at: at.symlink_to("/etc/passwd"), "'z' is a symbolic link"),
        (lambda at: at.symlink_to("/etc"), "'z' is a symbolic link"),
        (os.mkfifo, "'z' is no file"),
    ):
        make(tmp_path / "z")
        with pytest.raises(BundleError, match=why):
            load(tmp_path)
        (tmp_path / "z").unlink()


ENTRY = {"key": "k", "sha256": "a" * 64, "size": 1}
INDEXES: dict[str, object] = {
    "a list": [], "a number": 7, "no files": {"platform_run_id": RUN}, "files without a name": {"files": [{}]},
    "files that are no list": {"platform_run_id": RUN, "files": 7},
    "a name that is a list": {"platform_run_id": RUN, "files": [{**ENTRY, "key": []}]},
    "a file twice": {"platform_run_id": RUN, "files": [ENTRY, {**ENTRY, "size": 2}]},
}  # fmt: skip


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_of_another_form_fails(name: str) -> None:
    result = verify_bundle({INDEX: canonical_bytes(INDEXES[name])})
    assert [(m.key, m.blocker) for m in result.mismatches] == [(INDEX, "DFULL-RUN-B16.1")]


LINES = (b"", b"[]", b"7", b"{}", b"\xff", b'{"offset":"x","key":"","value":""}', b'{"offset":1,"key":7,"value":""}',
         b'{"offset":1,"key":"=","value":""}', b'{"offset":1e308,"key":"","value":""}',
         b'{"offset":null,"key":"","value":""}')  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_log_of_another_form_fails(line: bytes) -> None:
    index = canonical_bytes({"platform_run_id": RUN, "files": []})
    result = verify_bundle({INDEX: index, LOG: line + b"\n"})
    assert (result.result, {m.blocker for m in result.mismatches}) == ("FAIL", {"DFULL-RUN-B16.1"})


def test_an_export_that_does_not_end_leaves_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    run = green_run()
    monkeypatch.setattr(tarfile.TarFile, "addfile", killed)
    with pytest.raises(KeyboardInterrupt):
        export(RUN, run.objects.__getitem__, run.objects, run.records, tmp_path / "run.tar.gz")
    assert not (tmp_path / "run.tar.gz").exists()


def test_the_command_says_it_in_one_line(tmp_path: Path, archive: bytes) -> None:
    path = tmp_path / "b.tar.gz"
    for body in (archive[: len(archive) // 2], archive[:2000] + b"\xff" * 200 + archive[2200:], b""):
        path.write_bytes(body)
        done = subprocess.run([sys.executable, "-m", "fp_verify", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
