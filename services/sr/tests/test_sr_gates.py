"""P5: READY exactly once by identity."""

from fp_sr.gates import ReadyFacts, ReadyRecord, evaluate_p5


def _record(ready: str, offset: int = 1) -> ReadyRecord:
    return ReadyRecord(ready, "e", 0, offset, "f" * 64)


def _codes(facts: ReadyFacts) -> list[str]:
    return [p.code for p in evaluate_p5(facts).predicates if not p.ok]


def test_one_identity_passes_even_when_a_crash_repeated_it() -> None:
    assert _codes(ReadyFacts("r1", "r1", (_record("r1"), _record("r1", 2)))) == []


def test_ready_missing_on_the_log_blocks_emission() -> None:
    evaluation = evaluate_p5(ReadyFacts("r1", "r1", ()))
    assert [p.code for p in evaluation.predicates if not p.ok] == ["DFULL-RUN-B5"]
    assert not evaluation.settled()


def test_a_second_identity_is_ambiguous_for_good() -> None:
    evaluation = evaluate_p5(ReadyFacts("r1", "r1", (_record("r1"), _record("r2", 2))))
    assert [p.code for p in evaluation.predicates if not p.ok] == ["DFULL-RUN-B5.1"]
    assert evaluation.settled()


def test_ready_not_recorded_blocks() -> None:
    assert _codes(ReadyFacts("r1", None, (_record("r1"),))) == ["DFULL-RUN-B5"]
