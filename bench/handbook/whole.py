"""The whole set up to the last test week, streamed in one process: for train windows longer than the slice."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path

from bench.handbook import folds, streamed
from bench.handbook.streamed import Cost, Streamed


def make(data: Path, folder: Path) -> Cost:
    """Stream it to `folder`, unless that holds it."""
    figures = folder / "whole.json"
    if not figures.exists():
        figures.write_text(json.dumps(streamed.stream(data, folds.until_us(), _vectors(folder))._asdict()))
    return Cost(**json.loads(figures.read_text()))


def load(folder: Path) -> Streamed:
    """What `make` left."""
    return streamed.load(_vectors(folder))


@contextmanager
def beside(data: Path, folder: Path, wanted: bool) -> "Iterator[Future[Cost] | None]":
    """`make` in another process, with what the platform leaves of the processors; None when it is not wanted."""
    with ProcessPoolExecutor(1, get_context("spawn"), step_back) as pool:
        yield pool.submit(make, data, folder) if wanted else None


def step_back() -> None:
    """Begin a companion process: it takes what others leave of the processors, and ends with its parent."""
    os.nice(19)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _vectors(folder: Path) -> Path:
    return folder / "whole.parquet"
