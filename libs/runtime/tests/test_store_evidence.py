import errno
import os
import threading
from pathlib import Path

import pytest

from fp_contracts.canonical import CanonicalError
from fp_contracts.control import EvidenceRef
from fp_runtime.errors import Unavailable, UserError
from fp_runtime.evidence import (
    EvidenceBroken,
    EvidenceConflict,
    EvidenceKeyError,
    EvidenceMissing,
    FileStore,
    Stored,
    check_key,
    open_store,
    put_json,
    read,
)

BAD_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    ".aside/x",
    "a\\b",
    "a b",
    "é",
    "a\0",
    "x" * 121,
    "a/" * 500 + "a",
    "a\n",
]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "evidence")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_stores_do_not_keep_apart_is_refused(store: FileStore, key: str) -> None:
    for call in (
        lambda: check_key(key),
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.exists(key),
    ):
        with pytest.raises(EvidenceKeyError):
            call()


def test_equal_bytes_again_are_the_same_object_and_others_a_conflict(store: FileStore) -> None:
    ref = store.put("runs/r/a.json", b"one")
    assert store.put("runs/r/a.json", b"one") == ref
    with pytest.raises(EvidenceConflict):
        store.put("runs/r/a.json", b"two")
    assert read(store, ref) == b"one"


def test_missing_and_broken_objects_are_told_apart(store: FileStore, tmp_path: Path) -> None:
    ref = store.put("a/b", b"one")
    with pytest.raises(EvidenceMissing):
        read(store, EvidenceRef(key="a/c", sha256=ref.sha256, size=3))
    path = tmp_path / "evidence/a/b"
    path.chmod(0o644)
    path.write_bytes(b"onf")
    with pytest.raises(EvidenceBroken):
        read(store, ref)


def test_a_key_is_never_the_folder_of_another(store: FileStore) -> None:
    store.put("a/b", b"one")
    with pytest.raises(EvidenceKeyError):
        store.put("a/b/c", b"two")
    with pytest.raises(EvidenceKeyError):
        store.put("a", b"two")
    assert not store.exists("a")
    with pytest.raises(EvidenceMissing):
        store.get("a")


def test_a_list_has_every_object_below_the_prefix_and_nothing_aside(store: FileStore, tmp_path: Path) -> None:
    for key in ("runs/r1/a", "runs/r1/b/c", "runs/r10/a", "x"):
        store.put(key, key.encode())
    (tmp_path / "evidence/.aside/left").write_bytes(b"half")
    assert store.list("runs/r1/") == [Stored("runs/r1/a", 9), Stored("runs/r1/b/c", 11)]
    assert [item.key for item in store.list("runs/r1")] == ["runs/r1/a", "runs/r1/b/c", "runs/r10/a"]
    assert [item.key for item in store.list("")] == ["runs/r1/a", "runs/r1/b/c", "runs/r10/a", "x"]
    assert store.list("nowhere/") == []


def test_one_of_eight_racing_writers_wins(store: FileStore, tmp_path: Path) -> None:
    for turn in range(20):
        won: list[int] = []
        lost: list[int] = []
        start = threading.Barrier(8)

        def write(n: int, key: str, start: threading.Barrier, won: list[int], lost: list[int]) -> None:
            start.wait()
            try:
                store.put(key, b"writer %d" % n)
                won.append(n)
            except EvidenceConflict:
                lost.append(n)

        threads = [threading.Thread(target=write, args=(n, f"race/{turn}", start, won, lost)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 7)
        assert store.get(f"race/{turn}") == b"writer %d" % won[0]
    assert os.listdir(tmp_path / "evidence/.aside") == []


def test_a_full_disk_says_so_and_leaves_nothing(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left on device"):
            store.put("a", b"x" * 1000)
    assert store.list("") == []
    store.put("a", b"x")


def test_documents_are_canonical_json(store: FileStore) -> None:
    ref = put_json(store, "doc.json", {"b": 1, "a": ["é"]})
    assert read(store, ref) == '{"a":["é"],"b":1}'.encode()
    with pytest.raises(CanonicalError):
        put_json(store, "bad.json", {"a": 0.5})


def test_stores_open_by_address(tmp_path: Path) -> None:
    assert isinstance(open_store(f"file://{tmp_path}"), FileStore)
    for url in ("ftp://x", "file://relative/x", "s3://", "file:///", "/tmp"):
        with pytest.raises(UserError):
            open_store(url)
