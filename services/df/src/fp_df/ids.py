"""The ids that every decision needs, put together from prepared fragments. Pure.

A third of the cost of `fp_contracts.derive` and `fp_contracts.ids`, whose recipes they follow and to which a test holds
them: the fields that a run repeats are framed once.
"""

from functools import lru_cache
from hashlib import sha256

from fp_contracts.ids import framed

_EVENT_CLASS = "traffic_fraud"


@lru_cache(maxsize=64)
def _decision_head(run: str) -> bytes:
    return framed("decision", run, _EVENT_CLASS)


@lru_cache(maxsize=256)
def _origin_head(bundle_ref: str | None, topic: str, partition: int) -> bytes:
    """The bundle, topic and partition of an origin."""
    return framed(bundle_ref or "", topic, str(partition))


@lru_cache(maxsize=64)
def _audit_head(run: str, chain: str) -> bytes:
    return framed("audit", run, chain)


def decision_id(run: str, source_event_id: str, origin: tuple[str, int, int], bundle_ref: str | None = None) -> str:
    """As derive.decision_id."""
    topic, partition, offset = origin
    event, tail = source_event_id.encode(), b"%d" % offset
    framed_id = b"".join(
        (
            _decision_head(run), len(event).to_bytes(4, "big"), event,
            _origin_head(bundle_ref, topic, partition), len(tail).to_bytes(4, "big"), tail,
        )
    )  # fmt: skip
    return sha256(framed_id).hexdigest()[:32]


def audit_id(run: str, chain: str, chain_seq: int) -> str:
    """The identity of a link of an audit chain: its place."""
    seq = b"%d" % chain_seq
    return sha256(_audit_head(run, chain) + len(seq).to_bytes(4, "big") + seq).hexdigest()[:32]
