"""Tokens of MSK IAM: their life, their sharing, and what a client gets to see. The signer works without a network."""

import base64
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlparse

import pytest
from botocore.credentials import Credentials, RefreshableCredentials

from fp_runtime.bus import FetchProfile
from fp_runtime.errors import Unavailable
from fp_runtime.kafka_client import consumer_options, producer_options
from fp_runtime.msk import MskTokens, tokens_of
from fp_runtime.settings import RuntimeSettings


class Clock:
    """Seconds since the epoch, moved by hand; starts now, since the signer reads the real clock."""

    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s


def _static() -> Credentials:
    return Credentials("AKIDTEST", "s3cret")


def _expiring(life_s: float) -> RefreshableCredentials:
    ends = datetime.now(UTC) + timedelta(seconds=life_s)
    return RefreshableCredentials(
        "AKIDTEST",
        "s3cret",
        "session",
        ends,
        refresh_using=lambda: {},
        method="test",
        advisory_timeout=0,
        mandatory_timeout=0,
    )


def _url(token: str) -> dict[str, list[str]]:
    return parse_qs(urlparse(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()).query)


def test_the_expiry_is_in_seconds_and_at_most_900_ahead() -> None:
    clock = Clock()
    token, expires_s = MskTokens("eu-west-1", _static, clock)("")
    assert 890 < expires_s - clock.now_s <= 900
    assert _url(token)["Action"] == ["kafka-cluster:Connect"]
    assert "/eu-west-1/kafka-cluster/" in _url(token)["X-Amz-Credential"][0]


def test_a_token_does_not_outlive_its_credentials() -> None:
    clock = Clock()
    token, expires_s = MskTokens("eu-west-1", lambda: _expiring(120), clock)("")
    assert 110 < expires_s - clock.now_s <= 121
    assert _url(token)["X-Amz-Security-Token"] == ["session"]


def test_credentials_that_live_longer_do_not_stretch_the_token() -> None:
    clock = Clock()
    assert MskTokens("eu-west-1", lambda: _expiring(3_600), clock)("")[1] - clock.now_s <= 900


def test_a_token_is_shared_until_half_of_its_life_is_gone() -> None:
    clock = Clock()
    signed: list[int] = []

    def credentials() -> Credentials:
        signed.append(1)
        return _static()

    tokens = MskTokens("eu-west-1", credentials, clock)
    first = tokens("")
    clock.now_s += 440
    assert tokens("") == first
    clock.now_s += 20
    tokens("")
    assert len(signed) == 2


def test_many_threads_get_one_signature() -> None:
    signed: list[int] = []

    def credentials() -> Credentials:
        signed.append(1)
        return _static()

    tokens = MskTokens("eu-west-1", credentials, Clock())
    got: list[tuple[str, float]] = []
    threads = [threading.Thread(target=lambda: got.append(tokens(""))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signed) == 1
    assert len(set(got)) == 1


def test_missing_credentials_say_so() -> None:
    with pytest.raises(Unavailable, match="no AWS credentials"):
        MskTokens("eu-west-1", lambda: None)("")


def _settings(profile: str, region: str | None) -> RuntimeSettings:
    return RuntimeSettings.model_validate(
        {
            "profile": profile,
            "instance": "ig-0",
            "kafka_bootstrap": "b:9098",
            "pg_dsn": "unused",
            "evidence_url": "file:///unused",
            "msk_region": region,
        }
    )


def test_dev_full_reaches_kafka_through_iam_with_one_token_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    tokens_of.cache_clear()
    consumer = consumer_options(_settings("dev_full", "eu-west-1"), "g", FetchProfile.BULK)
    producer = producer_options(_settings("dev_full", "eu-west-1"), 1, 30.0)
    for options in (consumer, producer):
        assert (options["security.protocol"], options["sasl.mechanisms"]) == ("SASL_SSL", "OAUTHBEARER")
    assert consumer["oauth_cb"] is producer["oauth_cb"]
    tokens_of.cache_clear()


def test_dev_full_without_a_region_is_refused() -> None:
    with pytest.raises(Unavailable, match="msk_region"):
        producer_options(_settings("dev_full", None), 1, 30.0)


def test_local_profiles_use_no_authentication() -> None:
    assert producer_options(_settings("local", None), 1, 30.0)["security.protocol"] == "PLAINTEXT"
    assert "oauth_cb" not in producer_options(_settings("kind", "eu-west-1"), 1, 30.0)
