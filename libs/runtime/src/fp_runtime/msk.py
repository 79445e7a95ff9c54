"""Tokens for MSK's IAM authentication: one wrapper of the AWS signer, shared by every client of the process."""

import threading
import time
from collections.abc import Callable
from functools import cache

import botocore.session
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # type: ignore[import-untyped]  # it ships no types
from botocore.credentials import CredentialProvider, Credentials

from fp_runtime.errors import Unavailable

MAX_LIFE_S = 900.0


class _Fixed(CredentialProvider):
    """Hands the signer one set of credentials that cannot be refreshed between its two reads."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> Credentials:
        return self._credentials


class MskTokens:
    """`oauth_cb` of confluent-kafka: (token, expiry in seconds since the epoch). Thread-safe.

    A token lives for 900 s or as long as its credentials, whichever is shorter, and is signed again (16 ms of CPU)
    only when half of its life is gone. Raises Unavailable without credentials.
    """

    def __init__(
        self,
        region: str,
        credentials: Callable[[], Credentials | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._region = region
        self._credentials = credentials or botocore.session.Session().get_credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._expires_s = 0.0
        self._renew_s = 0.0

    def __call__(self, _config: str) -> tuple[str, float]:
        with self._lock:
            now_s = self._clock()
            if now_s >= self._renew_s:
                self._token, self._expires_s = self._sign(now_s)
                self._renew_s = (now_s + self._expires_s) / 2
            return self._token, self._expires_s

    def _sign(self, now_s: float) -> tuple[str, float]:
        credentials = self._credentials()
        if credentials is None:
            raise Unavailable("no AWS credentials in the default chain: MSK IAM cannot sign a token")
        frozen = credentials.get_frozen_credentials()
        fixed = _Fixed(Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token))
        token, expires_ms = MSKAuthTokenProvider.generate_auth_token_from_credentials_provider(self._region, fixed)
        life_ends = getattr(credentials, "_expiry_time", None)  # refreshable credentials alone have one
        expires_s = min(expires_ms / 1000, now_s + MAX_LIFE_S)
        return token, min(expires_s, life_ends.timestamp()) if life_ends else expires_s


@cache
def tokens_of(region: str) -> MskTokens:
    """The one token source of a region in this process."""
    return MskTokens(region)
