"""The facts of P9: read from tables and bus while both go on, and never without end."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from fp_contracts.fold import RunState
from fp_contracts.header import Kind
from fp_df import facts, sample
from fp_df.catalogue import policies
from fp_df.gates import evaluate_p9
from fp_runtime.errors import Unavailable

from .test_act import SOUND


def test_p9_does_not_wait_for_ever_for_a_bus_that_stopped_delivering(run_header: Any) -> None:
    class Quiet:
        def ends(self, places: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
            return dict.fromkeys(places, 2**40)

        def assign(self, places: Mapping[tuple[str, int], int]) -> None:
            pass

        def poll(self, *_: Any) -> list[Any]:
            return []

    state = RunState(sample.RUN, header=run_header({rev: found for rev, (_, found) in policies().items()}))
    with pytest.raises(Unavailable, match="not read to their ends"):
        facts.topic_counts(Quiet(), state)  # type: ignore[arg-type]


def test_what_is_published_while_p9_looks_is_no_difference(monkeypatch: pytest.MonkeyPatch, run_header: Any) -> None:
    """A restarted df publishes its last batch just then: tables first, so nothing counts as published too early."""
    published = {"yes": False}

    def stored(*_: Any) -> dict[str, Any]:
        seen = {name: value for name, value in asdict(SOUND).items() if not name.startswith("topic_")}
        return {**seen, "unpublished": 0 if published["yes"] else 9}

    def topic_counts(*_: Any) -> dict[Kind, int]:
        n = 9 if published["yes"] else 0
        published["yes"] = True
        return {Kind.AUTH_REQUEST: 9, Kind.FEATURE_SNAPSHOT: 9, Kind.DECISION: n, Kind.ACTION_OUTCOME: 3,
                Kind.AUDIT_RECORD: n + 3}  # fmt: skip

    monkeypatch.setattr(facts, "_stored", stored)
    monkeypatch.setattr(facts, "topic_counts", topic_counts)
    monkeypatch.setattr(facts, "caught_up", lambda *_: True)
    known = policies()
    header = run_header({rev: found for rev, (_, found) in known.items()})
    conn: Any = SimpleNamespace(transaction=nullcontext, execute=lambda _: None)
    state = RunState(sample.RUN, header=header)
    first, second = (evaluate_p9(facts.gather(conn, None, state, known, None)) for _ in range(2))  # type: ignore[arg-type]
    assert not first.settled()
    assert second.settled()
    assert all(predicate.ok for predicate in second.predicates)
