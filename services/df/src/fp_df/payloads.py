"""Decisions and audit links as canonical JSON payloads, put together from fragments in key order. Pure.

A third of the cost of models, dictionaries and sorting; tests hold the bytes to `fp_contracts.records.body_of` and the
fingerprint to `fp_contracts.derive.content_fingerprint`.
"""

from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import orjson

from fp_contracts import topics
from fp_contracts.derive import vector_text
from fp_contracts.reasons import Action
from fp_df import ids
from fp_df.audit import Link
from fp_df.domain import INTENTS, Decided
from fp_df.shadow import Shadow
from fp_features import pack

_as = tuple.__new__  # a named tuple without its Python-level constructor, once per payment
_RTDL = f'"topic":{orjson.dumps(topics.RTDL).decode()}}}'


class Rendered(NamedTuple):
    """A decision as its payload, what R3 compares of it, and the fragments that its audit link repeats."""

    payload: str
    fingerprint: str
    source_event: str


def render(decided: Decided, part: int, offset: int, shadow: Shadow | None = None) -> Rendered:
    """A decision on the snapshot at `offset` of rtdl partition `part`; `shadow` is told and not compared (ADR 16)."""
    decision_id, snapshot, vector, action, reasons, posture, policy_rev, action_id, _, bundle_ref, score = decided
    event_id, origin, flow_id, account_id, payment, currency, _, _, _, digest = snapshot
    event = _text(event_id)
    head = (
        f'{{"account_id":{_name(account_id)},"action":"{action}","amount_minor":{payment.amount_minor},'
        f'"bundle_ref":{_name(bundle_ref)},"currency":"{currency}",'
    )
    middle = f'"event_us":{payment.ts_us},"feature_vector":"{vector_text(pack(vector))}","flow_id":{_text(flow_id)},'
    tail = (
        f'"merchant_id":{_name(payment.merchant_id)},"policy_rev":{_name(policy_rev)},"posture":"{posture}",'
        f'"reason_codes":{_codes(reasons)},"score":{_score(score)},'
    )
    compared = f'{head}{middle}{tail}"snapshot_hash":"{digest}","subject":{event}}}'
    source_event = (
        f'{{"event_id":{event},"origin":{{"offset":{origin.offset},"partition":{origin.partition},'
        f'"topic":{_name(origin.topic)}}}}}'
    )
    intent = "" if action_id is None else _intent(action_id, action)
    payload = (
        f'{head}"decision_id":"{decision_id}",{middle}"intents":[{intent}],{tail}'
        f'"shadow":[{"" if shadow is None else _shadow(shadow)}],'
        f'"snapshot_hash":"{digest}","snapshot_offset":{{"offset":{offset},"partition":{part},{_RTDL},'
        f'"source_event":{source_event},"supersedes":null}}'
    )
    return _as(Rendered, (payload, sha256(compared.encode()).hexdigest(), source_event))


def decided_link(
    run: str, chain: str, chain_seq: int, prev_hash: str, decided: Decided, rendered: Rendered
) -> tuple[Link, str]:
    """The DECIDED audit link of a decision and its payload; equal to `audit.link` of the same fields."""
    audit_id, decision_id = ids.audit_id(run, chain, chain_seq), decided.decision_id
    _, fingerprint, source_event = rendered
    head = (
        f'{{"action_id":null,"audit_id":"{audit_id}","bundle_ref":{_name(decided.bundle_ref)},'
        f'"chain":"{chain}","chain_seq":{chain_seq},"content_fingerprint":"{fingerprint}",'
        f'"decision_id":"{decision_id}","kind":"DECIDED","policy_rev":{_name(decided.policy_rev)},'
        f'"prev_hash":"{prev_hash}",'
    )
    tail = f'"snapshot_hash":"{decided.snapshot.snapshot_hash}","source_event":{source_event}}}'
    digest = sha256(f"{head}{tail}".encode()).hexdigest()
    link = (audit_id, chain, chain_seq, "DECIDED", decision_id, None, prev_hash, digest)
    return _as(Link, link), f'{head}"record_hash":"{digest}",{tail}'


def _intent(action_id: str, action: Action) -> str:
    return f'{{"action_id":"{action_id}","idempotency_key":"{action_id}","kind":"{INTENTS[action]}","origin":"DF"}}'


def _shadow(shadow: Shadow) -> str:
    return (
        f'{{"action":{_text(shadow.action)},"bundle_ref":{_text(shadow.bundle_ref)},'
        f'"reason":{_text(shadow.reason)},"score":{_score(shadow.score)}}}'
    )


def _score(score: float | None) -> str:
    """A score as the vector of one that it is: packed bits, so that no way of writing numbers is part of a hash."""
    return "null" if score is None else f'"{vector_text(pack((score,)))}"'


def _text(value: str | None) -> str:
    """A string or null as JSON."""
    return orjson.dumps(value).decode()


_name = lru_cache(maxsize=65_536)(_text)  # for what comes again: accounts, merchants, topics, revisions


@lru_cache(maxsize=4_096)
def _codes(codes: tuple[str, ...]) -> str:
    return orjson.dumps(codes).decode()
