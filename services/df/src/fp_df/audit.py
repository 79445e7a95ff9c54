"""Hash chains of audit records: one per (kind, rtdl partition), over facts without clocks (law 6). Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from fp_contracts.canonical import sha256_hex, trusted_bytes
from fp_df.ids import audit_id

GENESIS = "0" * 64


class Link(NamedTuple):
    """What the row of an audit record keeps; the whole record is in the outbox, in the same transaction."""

    audit_id: str
    chain: str
    chain_seq: int
    kind: str
    decision_id: str
    action_id: str | None
    prev_hash: str
    record_hash: str


def record_hash(fields: Mapping[str, Any]) -> str:
    """hex64 of everything in a record but its own hash; `prev_hash` is in it, so a link fixes all before it."""
    return sha256_hex(trusted_bytes({name: value for name, value in fields.items() if name != "record_hash"}))


def link(run: str, chain: str, chain_seq: int, prev_hash: str, fields: Mapping[str, Any]) -> tuple[Link, str]:
    """The next link of a chain and its payload; `fields` are those of AuditRecord without its chain fields and id."""
    body = {
        **fields,
        "audit_id": audit_id(run, chain, chain_seq),
        "chain": chain,
        "chain_seq": chain_seq,
        "prev_hash": prev_hash,
    }
    body["record_hash"] = record_hash(body)
    return link_of(body), trusted_bytes(body).decode()


def link_of(payload: Mapping[str, Any]) -> Link:
    """The link that an AuditRecord payload is; KeyError when it is none."""
    return Link(*(payload[name] for name in Link._fields))


class ChainReader:
    """Recomputes one chain link by link. `fault` is the first break (what is wrong and where), None while sound."""

    def __init__(self, run: str, chain: str) -> None:
        self._run = run
        self._chain = chain
        self._links: dict[int, Link] = {}
        self.fault: str | None = None

    def take(self, payload: Mapping[str, Any]) -> None:
        """One record of the chain, in any order."""
        try:
            found = link_of(payload)
            sound = record_hash(payload) == found.record_hash
            own = found.audit_id == audit_id(self._run, self._chain, found.chain_seq) and found.chain == self._chain
        except (KeyError, TypeError, orjson.JSONEncodeError):
            self._break("a record is no link")
            return
        if not sound or not own:
            self._break(f"link {found.chain_seq} was changed")
        elif found.chain_seq in self._links:
            self._break(f"link {found.chain_seq} is there twice")
        self._links[found.chain_seq] = found

    def close(self) -> list[Link]:
        """The links in order, once all were taken; what does not follow is a fault."""
        links = [self._links[seq] for seq in sorted(self._links)]
        previous = GENESIS
        for expected, found in enumerate(links, 1):
            if found.chain_seq != expected:
                self._break(f"link {expected} is missing")
                break
            if found.prev_hash != previous:
                self._break(f"link {expected} does not follow the one before it")
            previous = found.record_hash
        return links

    def _break(self, what: str) -> None:
        self.fault = self.fault or f"{self._chain}: {what}"


def chain_break(run: str, chain: str, payloads: Iterable[Mapping[str, Any]]) -> str | None:
    """The first break of one chain, None for a sound one."""
    reader = ChainReader(run, chain)
    for payload in payloads:
        reader.take(payload)
    reader.close()
    return reader.fault
