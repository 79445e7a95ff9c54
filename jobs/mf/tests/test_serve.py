"""The served model answers with the trainer's scores bit for bit, over a real socket, and refuses the rest."""

import json
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fp_mf import batch, sample, serve
from fp_models import BundleBroken, NotFinite
from fp_runtime.errors import UserError

WIDTH = len(sample.FEATURES)
JSON = "application/json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def client(published: Any) -> Iterator[httpx.Client]:
    """A client of the server in a thread of its own, as `fp_mf serve` runs it."""
    stop, port = threading.Event(), free_port()
    thread = threading.Thread(target=serve.run, args=(published.bundle_folder, "127.0.0.1", port, stop))
    thread.start()
    transport = httpx.HTTPTransport(retries=8)  # while the server still comes up
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=20) as made:
        yield made
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def as_json(rows: np.ndarray) -> tuple[str, bytes]:
    return JSON, json.dumps({"rows": rows.tolist()}).encode()


def as_csv(rows: np.ndarray) -> tuple[str, bytes]:
    return "text/csv; charset=utf-8", "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()


def as_packed(rows: np.ndarray) -> tuple[str, bytes]:
    return serve.PACKED, rows.astype("<f8").tobytes()


def ask(client: httpx.Client, kind: str, body: bytes) -> httpx.Response:
    return client.post("/invocations", content=body, headers={"content-type": kind})


def test_ping_names_the_bundle(client: httpx.Client, published: Any) -> None:
    answer = client.get("/ping")
    assert (answer.status_code, answer.json()) == (200, {"bundle_id": published.result.bundle.bundle_id})


@pytest.mark.parametrize("form", [as_json, as_csv, as_packed])
@pytest.mark.parametrize("size", [1, 10, 500])
def test_scores_over_http_are_the_trainers_bits(
    form: Callable[[np.ndarray], tuple[str, bytes]], size: int, client: httpx.Client, published: Any, matrix: np.ndarray
) -> None:
    told = dict(
        zip(*pq.read_table(published.root / published.result.eval_scores.key).to_pydict().values(), strict=True)
    )
    rows = [at for at, key in enumerate(sample.World().table().column("event_id").to_pylist()) if key in told][:size]
    answer = ask(client, *form(matrix[rows]))
    assert answer.status_code == 200
    assert answer.json()["model_digest"] == published.result.bundle.model_digest
    assert [struct.pack("<d", score) for score in answer.json()["scores"]] == [
        struct.pack("<d", told[f"e{at}"]) for at in rows
    ]
    assert set(answer.json()["actions"]) <= {"ALLOW", "STEP_UP", "REVIEW", "BLOCK"}


def test_no_rows_give_no_scores(client: httpx.Client) -> None:
    assert ask(client, JSON, b'{"rows": []}').json()["scores"] == []


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-python-pickle", b"\x80\x04.", 415),
        ("", b"", 415),
        (JSON, b"no json", 422),
        (JSON, b"[]", 422),
        (JSON, b'{"rows": [[1, 2]]}', 422),
        (JSON, b'{"rows": [[1, 2, 3, 4, 5, "6"]]}', 422),
        (JSON, b'{"rows": [[1, 2, 3, 4, 5, null]]}', 422),
        (JSON, b'{"rows": [[1, 2, 3, 4, 5, true]]}', 422),
        (JSON, b'{"rows": [[1, 2, 3, 4, 5, 1e999]]}', 422),
        (JSON, b'{"rows": 3}', 422),
        ("text/csv", b"1,2,3,4,5,six", 422),
        ("text/csv", b"1,2,3,4,5,nan", 422),
        ("text/csv", b"\xff\xfe", 422),
        (serve.PACKED, b"\x00" * 9, 422),
        (serve.PACKED, struct.pack(f"<{WIDTH}d", *[math.nan] * WIDTH), 422),
        (serve.PACKED, b"\x00" * (serve.BODY_LIMIT + 8), 413),
    ],
)
def test_what_cannot_be_scored_is_refused(kind: str, body: bytes, status: int, client: httpx.Client) -> None:
    answer = ask(client, kind, body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_another_method_is_not_allowed(client: httpx.Client) -> None:
    assert client.get("/invocations").status_code == 405


def test_a_damaged_bundle_is_not_served(published: Any, tmp_path: Path) -> None:
    for path in published.bundle_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.ubj").write_bytes(b"{L other")
    with pytest.raises(BundleBroken, match="HASH"):
        serve.open_bundle(tmp_path)
    with pytest.raises(UserError, match="name the folder of a bundle"):
        serve.open_bundle(tmp_path / "none")


def written(tmp_path: Path, table: pa.Table) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    return path


def test_batch_transform_gives_the_same_scores(published: Any, tmp_path: Path, matrix: np.ndarray) -> None:
    source, target = written(tmp_path, sample.World().table()), tmp_path / "scores.parquet"
    assert batch.run(published.bundle_folder, source, target) == 0
    found = pq.read_table(target)
    scores = serve.open_bundle(published.bundle_folder).score(matrix)
    assert found.column("score").to_numpy().tobytes() == scores.tobytes()
    assert found.column("event_id").to_pylist() == [f"e{at}" for at in range(len(matrix))]


def test_batch_transform_leaves_nothing_half_written(published: Any, tmp_path: Path) -> None:
    target = tmp_path / "scores.parquet"
    spoiled = sample.with_column("amount", lambda found: np.where(np.arange(len(found)) == 5_999, math.nan, found))
    with pytest.raises(NotFinite):
        batch.run(published.bundle_folder, written(tmp_path, spoiled.table()), target)
    narrow = written(tmp_path, sample.World().table().drop_columns(["amount"]))
    with pytest.raises(UserError, match="lacks amount"):
        batch.run(published.bundle_folder, narrow, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet"]
