"""Finding a run: by id, by a part of it, the last one; one that was asked for a moment ago is waited for."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fp_operator import project
from fp_operator.pinning import Pinned
from fp_operator.runs import Reader
from fp_runtime.bus import Consumer
from fp_runtime.errors import UserError

OLD, NEW = "platform_20260101T000000Z", "platform_20260101T000001Z"


@dataclass
class Runs:
    """sr's table, newest run first; `late` appears when it was asked for so often."""

    rows: list[tuple[str, int, int]]
    late: int = 0

    def execute(self, _: str) -> "Runs":
        self.late -= 1
        if self.late == 0:
            self.rows.insert(0, (NEW, 1, 9))
        return self

    def fetchall(self) -> list[tuple[str, int, int]]:
        return list(self.rows)


def reader(folder: Path, runs: Runs) -> Reader:
    return Reader(cast(Any, SimpleNamespace(state_dir=folder)), cast(Any, runs), cast(Consumer, None))


def test_a_run_is_found_by_its_id_by_a_part_of_it_or_as_the_last_one(tmp_path: Path) -> None:
    both = reader(tmp_path, Runs([(NEW, 1, 9), (OLD, 0, 3)]))
    assert both.find(OLD) == both.find("000000Z") == Pinned(OLD, 0, 3)
    assert both.find(None) == Pinned(NEW, 1, 9)
    with pytest.raises(UserError, match="stands for 2 runs"):
        both.find("platform")


def test_before_the_first_run_the_fix_is_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run: there is none yet. Fix: start one: `fp run`"):
        reader(tmp_path, Runs([])).find(None)


def test_a_run_that_was_just_asked_for_is_waited_for(tmp_path: Path) -> None:
    project.remember_latest(tmp_path, NEW, "")
    assert reader(tmp_path, Runs([(OLD, 0, 3)], late=3)).find(NEW) == Pinned(NEW, 1, 9)


def test_another_unknown_one_is_not_waited_for(tmp_path: Path) -> None:
    runs = Runs([(OLD, 0, 3)], late=2)
    with pytest.raises(UserError, match="not known here"):
        reader(tmp_path, runs).find(NEW)
