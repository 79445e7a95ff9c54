"""What the endpoints that take lines share: credentials remembered, lines within limits, numbers in headers."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_runtime.ndjson import TOKENS_KEPT, Credentials, number, read_lines
from fp_runtime.problem import Refused
from fp_runtime.tokens import Claims, Refusal, TokenRefused, issue, parse_keys

RUN = "platform_20260101T000000Z"
OTHER_RUN = "platform_20260102T000000Z"
KEYS = parse_keys("k1:" + "11" * 32)
FAR_US = 2**62


def bearer(**changes: Any) -> str:
    claims = Claims(kid="k1", sub="wsp", run=RUN, classes=("traffic_fraud",), exp_us=FAR_US)
    return f"Bearer {issue(KEYS, claims.model_copy(update=changes))}"


def request(*chunks: bytes, **headers: str) -> Request:
    """A request whose body comes in these chunks."""
    left = [*chunks, b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": named}, receive)


def refusal(ask: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        ask()
    return refused.value.problem.status, refused.value.problem.code


def lines(*chunks: bytes, **options: int) -> list[bytes]:
    return asyncio.run(read_lines(request(*chunks), within_s=20, **options))


def test_a_remembered_credential_still_expires_and_still_belongs_to_one_run() -> None:
    credentials, soon = Credentials(KEYS), bearer(exp_us=1_000)
    assert credentials.claims(soon, RUN, 0) is credentials.claims(soon, RUN, 999)
    with pytest.raises(TokenRefused) as expired:
        credentials.claims(soon, RUN, 1_000)
    with pytest.raises(TokenRefused) as elsewhere:
        credentials.claims(soon, OTHER_RUN, 0)
    assert (expired.value.refusal, elsewhere.value.refusal) == (Refusal.EXPIRED, Refusal.OTHER_RUN)


def test_remembered_credentials_are_bounded() -> None:
    credentials = Credentials(KEYS)
    for n in range(3 * TOKENS_KEPT):
        credentials.claims(bearer(sub=f"s{n}"), RUN, 0)
    assert len(credentials._accepted) <= TOKENS_KEPT


def test_a_request_without_a_good_credential_is_refused() -> None:
    credentials, scope = Credentials(KEYS), {"traffic_fraud"}
    assert credentials.of(request(authorization=bearer(), fp_run=RUN), RUN, scope).sub == "wsp"
    assert refusal(lambda: credentials.of(request(), RUN, scope)) == (401, "TOKEN_MISSING")
    late = request(authorization=bearer(exp_us=1))
    assert refusal(lambda: credentials.of(late, RUN, scope)) == (401, "TOKEN_EXPIRED")
    other = request(authorization=bearer(), fp_run=OTHER_RUN)
    assert refusal(lambda: credentials.of(other, RUN, scope)) == (403, "TOKEN_OTHER_RUN")


@pytest.mark.parametrize("classes", [(), ("case_read",), ("traffic_fraud_2",), ("traffic",)])
def test_a_credential_opens_only_what_it_names(classes: tuple[str, ...]) -> None:
    asked = request(authorization=bearer(classes=classes))
    for scope in ({"traffic_fraud"}, {"adjudication", "traffic_fraud"}, set[str]()):
        assert refusal(lambda scope=scope: Credentials(KEYS).of(asked, RUN, scope)) == (403, "TOKEN_SCOPE")


def test_lines_are_cut_at_newlines_wherever_the_chunks_end() -> None:
    assert lines(b"a\n", b"\nb", b"c\r\nd") == [b"a", b"", b"bc\r", b"d"]
    assert lines(b"a\n") == [b"a"]
    assert lines() == lines(b"", b"") == []


def test_limits_to_the_byte_and_line() -> None:
    half = b"x" * (BODY_LIMIT // 2 - 1) + b"\n"
    assert len(lines(b"1\n" * BATCH_LIMIT)) == BATCH_LIMIT
    assert refusal(lambda: lines(b"1\n" * (BATCH_LIMIT + 1))) == (413, "BATCH_OVER_LIMIT")
    assert len(lines(half, half)) == 2
    assert refusal(lambda: lines(half, half, b"y")) == (413, "BODY_OVER_LIMIT")
    assert refusal(lambda: lines(b"x" * (BODY_LIMIT + 1))) == (413, "BODY_OVER_LIMIT")


def test_one_line_may_be_longer_where_the_endpoint_says_so() -> None:
    limit = 2 * BODY_LIMIT
    assert lines(b"x" * limit, line_limit=limit) == [b"x" * limit]
    assert refusal(lambda: lines(b"x" * (limit + 1), line_limit=limit)) == (413, "BODY_OVER_LIMIT")
    assert refusal(lambda: lines(b"x" * BODY_LIMIT, b"\ny", line_limit=limit)) == (413, "BODY_OVER_LIMIT")


def test_a_body_that_does_not_come_in_time_is_408_and_one_that_breaks_off_400() -> None:
    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    def ask(receive: Callable[[], Any]) -> object:
        return asyncio.run(read_lines(Request({"type": "http", "method": "POST", "headers": []}, receive), 0.01))

    assert refusal(lambda: ask(never)) == (408, "BODY_LATE")
    assert refusal(lambda: ask(gone)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("text", ["", "x", "-", "--5", "1.0", "9" * 19, "-1", "\xb2"])
def test_what_is_no_number_from_0_is_refused(text: str) -> None:
    assert refusal(lambda: number(request(fp_lane=text), "fp-lane")) == (400, "BAD_REQUEST")


def test_a_number_may_have_another_least_value() -> None:
    assert number(request(fp_lane="0"), "fp-lane") == 0
    assert refusal(lambda: number(request(fp_lane="0"), "fp-lane", minimum=1)) == (400, "BAD_REQUEST")
    assert refusal(lambda: number(request(), "fp-lane")) == (400, "BAD_REQUEST")
