"""What a run's end looks like: equations side by side, the proof matrix, nothing that was not found."""

import io
from typing import Any

from rich.console import Console

from fp_contracts.fold import RunState
from fp_operator.cli import board

from .pinned import HEADER, RUN


def shown(call: Any, *args: Any) -> str:
    text = io.StringIO()
    call(Console(file=text, width=160), *args)
    return text.getvalue()


def equation(name: str, left: int, right: int) -> dict[str, Any]:
    return {"name": name, "left": left, "right": right, "ok": left == right}


def test_both_windows_of_an_equation_stand_in_one_row() -> None:
    found = [equation("a = b", 90_934, 90_934), equation("c = d", 1, 1), equation("window 2: a = b", 7, 8)]
    lines = shown(board.print_end, RunState(RUN, header=HEADER), found).splitlines()
    (row,) = [line for line in lines if line.startswith("a = b")]
    assert "90,934 = 90,934 ok" in row
    assert "7 = 8 NO" in row
    (row,) = [line for line in lines if line.startswith("c = d")]
    assert row.split() == ["c", "=", "d", "1", "=", "1", "ok"]


def test_a_run_of_one_window_says_both_sides() -> None:
    text = shown(board.print_end, RunState(RUN, header=HEADER), [equation("a = b", 1, 1)])
    assert "both sides" in text
    assert "window" not in text.partition("equation")[2]


def test_the_proof_matrix_has_a_row_per_lane_and_is_not_shown_before_it_was_made() -> None:
    assert shown(board.print_proofs, {}) == ""
    lines = shown(board.print_proofs, {"spine": {"deploy": "PASS", "cost_control": "OPEN"}}).splitlines()
    assert lines[0].split() == ["proofs", "of", "deploy", "cost", "control"]
    assert lines[1].split() == ["spine", "PASS", "OPEN"]
