"""Identities: every id is derived from facts, so a retry or a replay gives the same one (architecture.md law 1)."""

import hashlib
import re

RUN_ID = re.compile(r"platform_[0-9]{8}T[0-9]{6}Z(-[a-z0-9][a-z0-9-]{0,31})?")
HEX32 = re.compile(r"[0-9a-f]{32}")
HEX64 = re.compile(r"[0-9a-f]{64}")


def framed(*fields: str) -> bytes:
    """Length-prefixed fields (4 bytes big endian each), so that no two field lists share bytes."""
    parts = []
    for field in fields:
        raw = field.encode()
        parts.append(len(raw).to_bytes(4, "big"))
        parts.append(raw)
    return b"".join(parts)


def h32(*fields: str) -> str:
    """H32: the first 32 hex digits of sha256 over the length-prefixed fields."""
    return hashlib.sha256(framed(*fields)).hexdigest()[:32]


def identity_key(platform_run_id: str, event_class: str, event_id: str) -> bytes:
    """The dedupe identity: sha256 (32 bytes) of the length-prefixed (run, class, event id)."""
    return hashlib.sha256(framed(platform_run_id, event_class, event_id)).digest()


def run_tag(platform_run_id: str) -> bytes:
    """Eight bytes that name a run in packed headers: the start of sha256 of its id."""
    return hashlib.sha256(platform_run_id.encode()).digest()[:8]


def phase_execution_id(platform_run_id: str, phase: str, attempt: int) -> str:
    """H32(run, phase, attempt): names one attempt of one phase (decisions.md)."""
    return h32("phase", platform_run_id, phase, str(attempt))


def is_run_id(text: str) -> bool:
    """Whether `text` is a well-formed platform_run_id."""
    return RUN_ID.fullmatch(text) is not None


def is_hex32(text: str) -> bool:
    """Whether `text` is 32 lower-case hex digits (a scenario_run_id)."""
    return HEX32.fullmatch(text) is not None
