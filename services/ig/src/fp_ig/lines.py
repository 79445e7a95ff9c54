"""What a line of a batch turns out to be."""

from typing import NamedTuple

from fp_contracts.reasons import Quarantine


class Admissible(NamedTuple):
    """A line that may be admitted. `topic` indexes topics.INGRESS; `payload_hash` and `identity` are sha256 bytes."""

    raw: bytes
    identity: bytes
    payload_hash: bytes
    kind: int
    topic: int
    ts_us: int
    key: bytes
    traceparent: bytes | None


class Quarantined(NamedTuple):
    """A line set aside. `raw` is None where the bytes must not be kept; `sha256` is over the bytes."""

    reason: Quarantine
    sha256: bytes
    raw: bytes | None
