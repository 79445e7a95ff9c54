"""Write-once on a real S3 server (versitygw): the race that decides who wrote first.

Needs `versitygw` on the path or named by FP_TEST_VERSITYGW; `go install` it from
github.com/versity/versitygw/cmd/versitygw@v1.8.0.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import EvidenceConflict, EvidenceMissing, EvidenceStore, Stored, open_store, read
from fp_runtime.evidence_s3 import S3Store, s3_client

pytestmark = pytest.mark.stack

BUCKET = "evidence"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A versitygw of this module; its address."""
    program = os.environ.get("FP_TEST_VERSITYGW") or shutil.which("versitygw")
    if program is None:
        pytest.skip("no versitygw here")
    root, iam = (tmp_path_factory.mktemp(name) for name in ("objects", "iam"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--access", "key", "--secret", "secret", "--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive"]
    server = subprocess.Popen([program, *options, "--iam-dir", str(iam), "posix", str(root)], cwd=Path("/"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            address = f"http://127.0.0.1:{port}"
            until(lambda: _created(address), 30, "versitygw answers")
            yield address
    finally:
        server.terminate()
        server.wait(10)


def _created(address: str) -> bool:
    try:
        S3Store(s3_client(address), BUCKET).exists("a")
        s3_client(address).create_bucket(Bucket=BUCKET)
    except Unavailable:
        return False
    return True


@pytest.fixture
def store(endpoint: str, run: str) -> EvidenceStore:
    return open_store(f"s3://{BUCKET}/{run}", endpoint)


def test_write_once_list_and_read_back(store: EvidenceStore) -> None:
    ref = store.put("runs/a.json", b"one")
    assert store.put("runs/a.json", b"one") == ref
    with pytest.raises(EvidenceConflict):
        store.put("runs/a.json", b"two")
    assert read(store, ref) == b"one"
    assert store.list("runs/") == [Stored("runs/a.json", 3)]
    assert (store.exists("runs/a.json"), store.exists("runs/b.json")) == (True, False)
    with pytest.raises(EvidenceMissing):
        store.get("runs/b.json")


def test_one_of_eight_racing_writers_wins(endpoint: str, run: str) -> None:
    stores = [open_store(f"s3://{BUCKET}/{run}", endpoint) for _ in range(8)]
    barrier = Barrier(8)

    def write(n: int, key: str) -> bool:
        barrier.wait()
        try:
            stores[n].put(key, b"writer %d" % n)
        except EvidenceConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for turn in range(25):
            won = list(pool.map(write, range(8), [f"race/{turn}"] * 8))
            assert won.count(True) == 1
            assert stores[0].get(f"race/{turn}") == b"writer %d" % won.index(True)


def test_a_wrong_key_is_unavailable_not_missing(endpoint: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Unavailable):
        open_store(f"s3://{BUCKET}/{run}", endpoint).get("a")
