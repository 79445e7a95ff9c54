"""The facts behind P9, gathered from progress rows, truth tables and topics: never from a member's memory.

They are those of window 1, also when a later window already flows: by event time on the bus, by position in the tables.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.derive import multiset_digest
from fp_contracts.fold import RunState
from fp_contracts.header import HeaderError, Kind, unpack
from fp_contracts.ids import run_tag
from fp_df.actmarks import Progress
from fp_df.audit import GENESIS, ChainReader
from fp_df.catalogue import Catalogue
from fp_df.gates import DecisionFacts
from fp_df.marks import Truth
from fp_df.plan import ACTIONS_STAGE, STAGE, RunPlan, plan_of
from fp_df.replay import Replay, Scores, served_of
from fp_runtime import outbox, progress
from fp_runtime.bus import Consumer
from fp_runtime.postgres import Connection
from fp_runtime.readback import read_back

MAX_FAULTS = 100
_READ = (topics.TRAFFIC, topics.RTDL, topics.AUDIT)
_WITHIN = (
    "WITH bound AS (SELECT * FROM unnest(%(parts)s::int4[], %(ns)s::int8[]) AS b (part, n)),"
    " later AS MATERIALIZED (SELECT decision_id FROM df.decision d JOIN bound b ON b.part = d.part"
    " WHERE d.run = %(run)s AND d.n > b.n),"
    " decision AS (SELECT * FROM df.decision WHERE run = %(run)s AND decision_id NOT IN (TABLE later)),"
    " outcome AS (SELECT * FROM df.outcome WHERE run = %(run)s AND decision_id NOT IN (TABLE later)),"
    " audit AS (SELECT * FROM df.audit WHERE run = %(run)s AND decision_id NOT IN (TABLE later)) "
)
"""All rows but those of decisions behind a position per partition, and of what followed from them."""
_COUNTED = frozenset({Kind.AUTH_REQUEST, Kind.FEATURE_SNAPSHOT, Kind.DECISION, Kind.ACTION_OUTCOME, Kind.AUDIT_RECORD})


def caught_up(conn: Connection, state: RunState) -> bool:
    """Whether window 1 ended and every partition is decided to its end."""
    assert state.header is not None
    if 1 not in state.windows_ended:
        return False
    end_us = state.header.config.windows[0].end_us
    truths = _truths(conn, state.platform_run_id)
    if set(truths) != set(range(state.header.partitions(topics.RTDL))):
        return False
    return all(truth.horizon_us >= end_us for truth in truths.values())


def _truths(conn: Connection, run: str) -> dict[int, Truth]:
    """The progress of each partition."""
    return {part: Truth.from_bytes(at.n, at.doc) for part, at in progress.load_all(conn, run, STAGE).items()}


def topic_counts(consumer: Consumer, state: RunState) -> dict[Kind, int]:
    """Distinct (source, seq) per kind of this run's window 1 on traffic, rtdl and audit. Unavailable as `read_back`."""
    assert state.header is not None
    tag, end_us = run_tag(state.platform_run_id), state.header.config.windows[0].end_us
    seen: dict[tuple[Kind, str, str, int], set[int]] = {}
    starts = {(topic, part): at for topic in _READ for part, at in state.header.starts(topic).items()}
    for record in read_back(consumer, starts):
        try:
            header = unpack(record.header)
        except HeaderError:
            continue
        if header.run_tag == tag and header.kind in _COUNTED and header.order_us < end_us:
            place = header.kind, header.source, record.topic, record.partition
            seen.setdefault(place, set()).add(header.seq)
    counts = dict.fromkeys(_COUNTED, 0)
    for (kind, *_), seqs in seen.items():
        counts[kind] += len(seqs)
    return counts


def chain_facts(
    run: str, bodies: Iterable[bytes], fingerprints: Mapping[str, str]
) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """(chain -> links and head hash, faults) of audit records as their exact published bytes say.

    Each DECIDED link must speak of a decision with the content that the decision has.
    """
    chains: dict[str, ChainReader] = {}
    faults: list[str] = []
    for body in bodies:
        payload = orjson.loads(body)["payload"]
        name = str(payload["chain"])
        if name not in chains:
            chains[name] = ChainReader(run, name)
        chains[name].take(payload)
        if payload["kind"] == "DECIDED" and fingerprints.get(payload["decision_id"]) != payload["content_fingerprint"]:
            faults.append(f"{name}: link {payload['chain_seq']} is of another decision")
    heads = {}
    for name, reader in sorted(chains.items()):
        links = reader.close()
        heads[name] = len(links), links[-1].record_hash if links else GENESIS
        if reader.fault is not None:
            faults.append(reader.fault)
    return heads, faults[:MAX_FAULTS]


def gather(
    conn: Connection, consumer: Consumer, state: RunState, catalogue: Catalogue, models: Scores
) -> DecisionFacts:  # fmt: skip
    """All facts of P9 as of now: the tables at one moment, then the topics, which hold all that was published then."""
    assert state.header is not None
    plan, end_us = plan_of(state.header, catalogue), state.header.config.windows[0].end_us
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        stored = _stored(conn, plan, end_us, models)
        stored["caught_up"] = caught_up(conn, state)
    found = topic_counts(consumer, state)
    return DecisionFacts(
        **stored,
        topic_auth_requests=found[Kind.AUTH_REQUEST],
        topic_snapshots=found[Kind.FEATURE_SNAPSHOT],
        topic_decisions=found[Kind.DECISION],
        topic_outcomes=found[Kind.ACTION_OUTCOME],
        topic_audits=found[Kind.AUDIT_RECORD],
    )


def _stored(conn: Connection, plan: RunPlan, end_us: int, models: Scores) -> dict[str, Any]:
    """The facts that tables tell, by their names."""
    run, truths = plan.run, _truths(conn, plan.run)
    within, replay = _within(plan, truths), Replay(run, plan.switches, served_of(plan, truths), models)
    for body in bodies(conn, run, "df:", topics.RTDL, end_us):
        replay.take(body)
    replay.close()
    chains, faults = _chains(conn, end_us, within, replay.fingerprints)
    return {
        **_row_counts(conn, within),
        "open_gaps": _open_gaps(conn, run),
        "unpublished": _unpublished(conn, plan),
        "chain_faults": tuple(faults),
        "chains": chains,
        "replayed": replay.replayed,
        "unequal": replay.unequal,
        "unmatched": len(replay.actions ^ _acted(conn, within)),
        "fingerprint": multiset_digest(list(replay.fingerprints.values())),
        "by_action": _histogram(conn, within, "decision", "action"),
        "by_posture": _histogram(conn, within, "decision", "posture"),
        "by_policy": _histogram(conn, within, "decision", "policy_rev"),
        "by_status": _histogram(conn, within, "outcome", "status"),
    }


def _chains(
    conn: Connection, end_us: int, within: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """As `chain_facts`, of the records in the outbox; the rows must end as they do."""
    run = within["run"]
    audited = chain.from_iterable(bodies(conn, run, prefix, topics.AUDIT, end_us) for prefix in ("df:", "al:"))
    chains, faults = chain_facts(run, audited, fingerprints)
    heads = _stored_heads(conn, within)
    faults += [f"{name}: rows and records end differently" for name in sorted(heads.keys() | chains.keys())
               if heads.get(name) != chains.get(name)]  # fmt: skip
    return chains, faults


def _within(plan: RunPlan, truths: Mapping[int, Truth]) -> dict[str, Any]:
    """Parameters of _WITHIN: the position at which each partition passed into window 2, if one follows."""
    place = len(plan.switches)  # of the first bundle switch, which lies where window 2 begins
    ns = {part: truth.switched[place] for part, truth in truths.items() if place in truth.switched}
    return {"run": plan.run, "parts": list(ns), "ns": list(ns.values())}


def _open_gaps(conn: Connection, run: str) -> int:
    acted = progress.load_all(conn, run, ACTIONS_STAGE)
    gaps = sum(truth.open_gaps for truth in _truths(conn, run).values())
    return gaps + sum(len(Progress.from_bytes(at.n, at.doc).gaps) for at in acted.values())


def _unpublished(conn: Connection, plan: RunPlan) -> int:
    """Records without a publish fact, up to some per source. By ranges: facts of two owners may overlap."""
    sources = [f"{stage}:{part}" for stage in ("df", "al") for part in range(plan.partitions[topics.RTDL])]
    return sum(len(outbox.unpublished(conn, plan.run, source, MAX_FAULTS)) for source in sources)


def _acted(conn: Connection, within: Mapping[str, Any]) -> set[str]:
    rows = conn.execute(f"{_WITHIN} SELECT action_id FROM outcome", within).fetchall()
    return {str(action_id) for (action_id,) in rows}


def bodies(conn: Connection, run: str, prefix: str, topic: str, before_us: int) -> Iterator[bytes]:
    """Exact bytes of the records before an event time that sources of a prefix wrote to a topic, streamed."""
    for _, _, out in outbox.records(conn, run, prefix, topic):
        if unpack(out.header).order_us < before_us:
            yield out.value


def _stored_heads(conn: Connection, within: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Chain -> number of rows and hash of the last."""
    rows = conn.execute(
        f"{_WITHIN} SELECT chain, count(*), (array_agg(record_hash ORDER BY chain_seq DESC))[1] FROM audit"
        " GROUP BY chain",
        within,
    ).fetchall()
    return {str(name): (int(n), bytes(head).hex()) for name, n, head in rows}


def _row_counts(conn: Connection, within: Mapping[str, Any]) -> Mapping[str, int]:
    row = conn.execute(
        f"{_WITHIN} SELECT (SELECT count(*) FROM decision),"
        " (SELECT coalesce(sum(intents), 0) FROM decision),"
        " (SELECT count(*) FROM decision WHERE escalated),"
        " (SELECT count(*) FROM outcome),"
        " (SELECT count(*) FROM audit WHERE kind = 'DECIDED'),"
        " (SELECT count(*) FROM audit WHERE kind = 'OUTCOME'),"
        " (SELECT count(*) FROM ops.quarantine WHERE run = %(run)s AND stage IN ('df', 'actions'))",
        within,
    ).fetchone()
    assert row is not None
    names = ("row_decisions", "row_intents", "escalated", "row_outcomes", "row_decided", "row_outcome_audits",
             "quarantined")  # fmt: skip
    return {name: int(value) for name, value in zip(names, row, strict=True)}


def _histogram(conn: Connection, within: Mapping[str, Any], table: str, column: str) -> dict[str, int]:
    rows = conn.execute(f"{_WITHIN} SELECT {column}, count(*) FROM {table} GROUP BY 1", within).fetchall()
    return {str(name): int(n) for name, n in rows}
