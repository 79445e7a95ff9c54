"""Hash chains of audit records: one per (kind, rtdl partition), over facts without clocks (law 6). Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from fp_contracts.canonical import digest_of
from fp_contracts.downstream import AuditRecord
from fp_contracts.ids import h32

GENESIS = "0" * 64


def record_hash(fields: Mapping[str, Any]) -> str:
    """hex64 of everything in a record but its own hash; `prev_hash` is in it, so a link fixes all before it."""
    return digest_of({name: value for name, value in fields.items() if name != "record_hash"})


def link(run: str, chain: str, chain_seq: int, prev_hash: str, fields: Mapping[str, Any]) -> AuditRecord:
    """The next record of a chain; `fields` are those of AuditRecord without its chain fields and id."""
    body = {
        **fields,
        "audit_id": h32("audit", run, chain, str(chain_seq)),
        "chain": chain,
        "chain_seq": chain_seq,
        "prev_hash": prev_hash,
    }
    return AuditRecord.model_validate({**body, "record_hash": record_hash(body)}, strict=False)


def chain_break(records: Iterable[AuditRecord]) -> str | None:
    """The first broken link of one chain in order (what is wrong and where), None for a sound chain."""
    previous, expected = GENESIS, 1
    for record in records:
        if record.chain_seq != expected:
            return f"{record.chain}: link {expected} is missing"
        if record.prev_hash != previous:
            return f"{record.chain}: link {expected} does not follow the one before it"
        if record_hash(record.model_dump(mode="json")) != record.record_hash:
            return f"{record.chain}: link {expected} was changed"
        previous, expected = record.record_hash, expected + 1
    return None
