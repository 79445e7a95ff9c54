"""Credentials of producers and readers: short-lived HMAC tokens bound to one run and to classes (reliability.md §5).

Token = base64url(canonical claims) "." base64url(HMAC-SHA256 of those claims under the key named by `kid`), unpadded.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from enum import StrEnum

from pydantic import ValidationError

from fp_contracts.canonical import trusted_bytes
from fp_contracts.envelope import Closed, Id, RunId, TimeUs
from fp_runtime.errors import UserError

MIN_KEY_BYTES = 16
MAX_TOKEN_CHARS = 4_096


class Claims(Closed):
    """What `sub` may do to this run until `exp_us`: the classes are those of fp_contracts.ingress."""

    kid: Id
    sub: Id
    run: RunId
    classes: tuple[Id, ...]
    exp_us: TimeUs


class Refusal(StrEnum):
    """Why a credential is not accepted; also the stable code of the HTTP answer."""

    MISSING = "TOKEN_MISSING"
    MALFORMED = "TOKEN_MALFORMED"
    UNKNOWN_KEY = "TOKEN_UNKNOWN_KEY"
    BAD_SIGNATURE = "TOKEN_BAD_SIGNATURE"
    EXPIRED = "TOKEN_EXPIRED"
    OTHER_RUN = "TOKEN_OTHER_RUN"
    SCOPE = "TOKEN_SCOPE"


class TokenRefused(Exception):
    """The credential does not hold; `status` is 401 (who are you) or 403 (not for this)."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
        self.status = 403 if refusal in (Refusal.OTHER_RUN, Refusal.SCOPE) else 401


def parse_keys(text: str) -> dict[str, bytes]:
    """`kid:hex[,kid:hex]` to keys by id; UserError for anything else and for keys under 16 bytes."""
    keys: dict[str, bytes] = {}
    for item in filter(None, text.split(",")):
        kid, _, digits = item.partition(":")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            key = b""
        if not kid or kid in keys or len(key) < MIN_KEY_BYTES:
            why = f"key {kid[:20]!r} is malformed, repeated or short"
            raise UserError("producer keys", why, "give kid:hex[,kid:hex], 16 bytes or more each")
        keys[kid] = key
    return keys


def issue(keys: Mapping[str, bytes], claims: Claims) -> str:
    """A token for these claims, signed with the key that `claims.kid` names; KeyError when there is no such key."""
    body = trusted_bytes(claims.model_dump(mode="json"))
    return f"{_text(body)}.{_text(_sign(keys[claims.kid], body))}"


def verify(keys: Mapping[str, bytes], token: str, now_us: int) -> Claims:
    """The claims of a token that holds now; raises TokenRefused. The comparison takes constant time."""
    if not token:
        raise TokenRefused(Refusal.MISSING)
    body_text, dot, mac_text = token.partition(".")
    if not dot or len(token) > MAX_TOKEN_CHARS:
        raise TokenRefused(Refusal.MALFORMED)
    try:
        body, mac = _bytes(body_text), _bytes(mac_text)
        claims = Claims.model_validate_json(body)
    except (ValueError, binascii.Error, ValidationError) as error:
        raise TokenRefused(Refusal.MALFORMED) from error
    key = keys.get(claims.kid)
    if key is None:
        raise TokenRefused(Refusal.UNKNOWN_KEY)
    if not hmac.compare_digest(_sign(key, body), mac):
        raise TokenRefused(Refusal.BAD_SIGNATURE)
    if now_us >= claims.exp_us:
        raise TokenRefused(Refusal.EXPIRED)
    return claims


def authorize(keys: Mapping[str, bytes], authorization: str | None, run: str, now_us: int) -> Claims:
    """The claims behind an `Authorization: Bearer …` header for this run; raises TokenRefused."""
    scheme, _, token = (authorization or "").partition(" ")
    claims = verify(keys, token.strip() if scheme.lower() == "bearer" else "", now_us)
    if claims.run != run:
        raise TokenRefused(Refusal.OTHER_RUN)
    return claims


def _sign(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
