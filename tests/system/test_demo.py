"""The demo as a newcomer runs it: the sample world in scope full, twice, to the full verdict, proven and torn down."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fp_contracts.phases import ORDER
from fp_operator.stack import down

pytestmark = [pytest.mark.system, pytest.mark.timeout(1_200)]

FP = str(Path(sys.executable).with_name("fp"))


class Demo:
    """One environment in which the demo was run; `text` is what it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FP_") or key == "FP_REVISION"}
        self.env = {**kept, "FP_STATE_DIR": str(folder)}
        self.code, self.text = self.fp("demo", timeout=900)

    def fp(self, *words: str, timeout: float = 180) -> tuple[int, str]:
        """(exit code, standard output) of `fp …` in a process of its own."""
        done = subprocess.run([FP, *words], env=self.env, capture_output=True, text=True, timeout=timeout)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.fp(*words, "-o", "json")[1])


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """The demo, run once; stopped and gone at the end."""
    with tempfile.TemporaryDirectory(prefix="fp-demo-") as name:
        Path(name).chmod(0o755)
        try:
            yield Demo(Path(name))
        finally:
            down(Path(name))


def test_every_phase_and_proof_up_to_the_verdict_passes(demo: Demo) -> None:
    assert demo.code == 0, demo.text
    status = demo.json("status")
    states = {row["phase"]: row["state"] for row in status["phases"]}
    assert {phase: states[phase] for phase in ORDER[:-1]} == dict.fromkeys(ORDER[:-1], "PASS")
    assert (status["verdict"], status["spine_verdict"], status["scope"]) == ("GREEN", "GREEN", "full")
    matrix = json.loads(demo.fp("evidence", "show", "proof_matrix")[1])["lanes"]
    cells = [cell["state"] for found in matrix.values() for cell in found.values()]
    assert cells == ["PASS"] * 30


def test_both_runs_come_to_the_same_and_it_is_said(demo: Demo) -> None:
    assert "every fingerprint is equal" in demo.text
    assert "they differ" not in demo.text
    for name in ("snapshot", "decision", "decision w2", "bundle"):
        assert any(line.split("  ")[1:2] == [name] and "GREEN" in line for line in demo.text.splitlines()), name


def test_it_says_numbers_effect_memory_and_what_to_type_next(demo: Demo) -> None:
    assert demo.text.count(" ok") >= 50
    assert " NO" not in demo.text
    for words in ("demo-reviewer", "window 2", "average precision", "guardrails only", "memory at its peak", "next: "):
        assert words in demo.text, words


def test_the_bundle_verifies_in_a_process_of_its_own(demo: Demo) -> None:
    found = demo.json("verify")
    assert (found["result"], found["mismatches"]) == ("PASS", [])
    assert (found["verdict"], found["spine_verdict"]) == ("GREEN", "GREEN")


def test_down_closes_the_last_phase(demo: Demo) -> None:
    ended = demo.json("down")
    assert (ended["p17"], ended["left"]) == ("PASS", [])
    states = [row["state"] for row in demo.json("status")["phases"]]
    assert states == ["PASS"] * 19
    demo.fp("down")
