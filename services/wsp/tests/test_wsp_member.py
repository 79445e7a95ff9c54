"""The end of one run's window is never said of another run."""

from fp_contracts.control import EvidenceRef, WindowEnded
from fp_contracts.fold import RunState
from fp_runtime.tokens import parse_keys, verify
from fp_wsp.member import Shared, Tokens
from fp_wsp.settings import WspSettings

RUN, NEXT = "platform_20260101T000000Z", "platform_20260101T000001Z"


def _ended() -> WindowEnded:
    return WindowEnded(window=1, lane_seqs={"0": 5}, ledger_ref=EvidenceRef(key="k", sha256="a" * 64, size=1))


def test_window_ended_is_published_on_its_own_run_only() -> None:
    shared = Shared(run=RUN, ended={1: _ended()})
    assert [event for event, _ in shared.react(RunState(RUN))] == [_ended()]
    assert shared.react(RunState(NEXT)) == ()


def test_what_is_on_the_log_is_not_repeated() -> None:
    shared = Shared(run=RUN, ended={1: _ended()})
    assert shared.react(RunState(RUN, windows_ended={1: _ended()})) == []


def test_a_token_is_renewed_at_half_its_life_and_when_refused() -> None:
    at_us = 0
    settings = WspSettings(
        producer_keys="k1:" + "11" * 32, token_life_s=100, instance="wsp-0", kafka_bootstrap="x", pg_dsn="x",
        evidence_url="file:///x",
    )  # fmt: skip
    tokens = Tokens(settings, RUN, lambda: at_us)
    first = tokens.current()
    at_us = 49_999_999
    assert tokens.current() == first
    at_us = 50_000_000
    second = tokens.current()
    assert second != first
    at_us += 1
    tokens.refused(first)
    assert tokens.current() == second
    tokens.refused(second)
    assert tokens.current() != second
    claims = verify(parse_keys(settings.producer_keys), tokens.current(), at_us)
    assert (claims.run, "adjudication" in claims.classes) == (RUN, True)
    assert "case_read" not in claims.classes, "who sends payments reads no case"
