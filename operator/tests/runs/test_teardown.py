"""P17: each blocker is reached by breaking exactly one thing."""

from dataclasses import replace
from typing import Any

import pytest

from fp_contracts.phases import PHASES
from fp_operator.teardown import RESIDUE, UNREADABLE, TeardownFacts, evaluate

CLEAN = TeardownFacts(
    verdict_sha256="a" * 64, stopped={"rtdl-0": "STOPPED", "ig-0": "STOPPED"}, servers={"kafka": "RUNNING"}, strays=(),
    open_ports=(), spend_microusd=12, month_spend_microusd=40, objects={"evidence/runs/r/a.json": None},
    actor="a", reason="done", at_us=1,
)  # fmt: skip


def test_a_clean_teardown_passes_with_every_artifact() -> None:
    evaluation = evaluate(CLEAN)
    assert all(predicate.ok for predicate in evaluation.predicates)
    assert set(evaluation.documents) == set(PHASES["P17"].evidence)


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"verdict_sha256": None}, RESIDUE),
        ({"stopped": {"rtdl-0": "RUNNING", "ig-0": "STOPPED"}}, RESIDUE),
        ({"strays": ("77 python",)}, RESIDUE),
        ({"open_ports": ("ig",)}, RESIDUE),
        ({"scratch": ("topic r0.fp.bus.control.v1",)}, RESIDUE),
        ({"spend_microusd": None}, RESIDUE),
        ({"month_spend_microusd": None}, RESIDUE),
        ({"month_spend_microusd": 270_000_000}, RESIDUE),
        ({"objects": {}}, UNREADABLE),
        ({"objects": {"evidence/runs/r/a.json": "sha256 differs"}}, UNREADABLE),
    ],
)
def test_one_broken_thing_is_one_blocker(broken: dict[str, Any], code: str) -> None:
    failed = [predicate for predicate in evaluate(replace(CLEAN, **broken)).predicates if not predicate.ok]
    assert [predicate.code for predicate in failed] == [code]
