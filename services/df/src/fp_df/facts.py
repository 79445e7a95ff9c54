"""The facts behind P9, gathered from progress rows, truth tables and topics: never from a member's memory."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

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
from fp_df.plan import ACTIONS_STAGE, PARTITIONS, STAGE, plan_of
from fp_df.replay import Replay, Scores, served_of
from fp_runtime import outbox, progress
from fp_runtime.bus import Consumer
from fp_runtime.postgres import Connection

MAX_FAULTS = 100
_READ = (topics.TRAFFIC, topics.RTDL, topics.AUDIT)
_COUNTED = frozenset({Kind.AUTH_REQUEST, Kind.FEATURE_SNAPSHOT, Kind.DECISION, Kind.ACTION_OUTCOME, Kind.AUDIT_RECORD})


def caught_up(conn: Connection, state: RunState) -> bool:
    """Whether every partition is decided to the end of the last ended window."""
    assert state.header is not None
    if not state.windows_ended:
        return False
    end_us = state.header.config.windows[max(state.windows_ended) - 1].end_us
    decided = progress.load_all(conn, state.platform_run_id, STAGE)
    if set(decided) != set(range(PARTITIONS)):
        return False
    return all(Truth.from_bytes(at.n, at.doc).horizon_us >= end_us for at in decided.values())


def topic_counts(consumer: Consumer, state: RunState) -> dict[Kind, int]:
    """Distinct (source, seq) per kind of this run on traffic, rtdl and audit, from the run's start."""
    assert state.header is not None
    tag = run_tag(state.platform_run_id)
    seen: dict[tuple[Kind, str, str, int], set[int]] = {}
    starts = {(topic, part): at for topic in _READ for part, at in state.header.starts(topic).items()}
    ends = consumer.ends(starts)
    left = {tp for tp, at in starts.items() if ends[tp] > at}
    consumer.assign({tp: starts[tp] for tp in left})
    while left:
        for record in consumer.poll(500, 1.0):
            try:
                header = unpack(record.header)
            except HeaderError:
                continue
            if header.run_tag == tag and header.kind in _COUNTED:
                place = header.kind, header.source, record.topic, record.partition
                seen.setdefault(place, set()).add(header.seq)
            if record.offset + 1 >= ends[record.topic, record.partition]:
                left.discard((record.topic, record.partition))
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
    """All facts of P9 as of now."""
    run = state.platform_run_id
    assert state.header is not None
    found = topic_counts(consumer, state)
    plan, decided = plan_of(state.header, catalogue), progress.load_all(conn, run, STAGE)
    truths = {part: Truth.from_bytes(at.n, at.doc) for part, at in decided.items()}
    replay = Replay(run, plan.switches, served_of(plan, truths), models)
    for body in _bodies(conn, run, "df:", topics.RTDL):
        replay.take(body)
    replay.close()
    audited = chain.from_iterable(_bodies(conn, run, prefix, topics.AUDIT) for prefix in ("df:", "al:"))
    chains, faults = chain_facts(run, audited, replay.fingerprints)
    heads = _stored_heads(conn, run)
    faults += [f"{name}: rows and records end differently" for name in sorted(heads.keys() | chains.keys())
               if heads.get(name) != chains.get(name)]  # fmt: skip
    counts = _row_counts(conn, run)
    return DecisionFacts(
        caught_up=caught_up(conn, state),
        open_gaps=_open_gaps(conn, run),
        unpublished=_unpublished(conn, run),
        quarantined=counts["quarantined"],
        topic_auth_requests=found[Kind.AUTH_REQUEST],
        topic_snapshots=found[Kind.FEATURE_SNAPSHOT],
        topic_decisions=found[Kind.DECISION],
        topic_outcomes=found[Kind.ACTION_OUTCOME],
        topic_audits=found[Kind.AUDIT_RECORD],
        row_decisions=counts["decisions"],
        row_intents=counts["intents"],
        row_outcomes=counts["outcomes"],
        row_decided=counts["decided"],
        row_outcome_audits=counts["outcome_audits"],
        chain_faults=tuple(faults),
        chains=chains,
        replayed=replay.replayed,
        unequal=replay.unequal,
        unmatched=len(replay.actions ^ _acted(conn, run)),
        fingerprint=multiset_digest(list(replay.fingerprints.values())),
        by_action=_histogram(conn, run, "df.decision", "action"),
        by_posture=_histogram(conn, run, "df.decision", "posture"),
        by_policy=_histogram(conn, run, "df.decision", "policy_rev"),
        by_status=_histogram(conn, run, "df.outcome", "status"),
        escalated=counts["escalated"],
    )


def _open_gaps(conn: Connection, run: str) -> int:
    decided, acted = progress.load_all(conn, run, STAGE), progress.load_all(conn, run, ACTIONS_STAGE)
    gaps = sum(Truth.from_bytes(at.n, at.doc).open_gaps for at in decided.values())
    return gaps + sum(len(Progress.from_bytes(at.n, at.doc).gaps) for at in acted.values())


def _unpublished(conn: Connection, run: str) -> int:
    """Records without a publish fact, up to some per source. By ranges: facts of two owners may overlap."""
    sources = [f"{stage}:{part}" for stage in ("df", "al") for part in range(PARTITIONS)]
    return sum(len(outbox.unpublished(conn, run, source, MAX_FAULTS)) for source in sources)


def _acted(conn: Connection, run: str) -> set[str]:
    rows = conn.execute("SELECT action_id FROM df.outcome WHERE run = %s", (run,)).fetchall()
    return {str(action_id) for (action_id,) in rows}


def _bodies(conn: Connection, run: str, prefix: str, topic: str) -> Iterator[bytes]:
    """Exact bytes of the records that sources of a prefix wrote to a topic, streamed."""
    with conn.transaction(), conn.cursor(name="bodies") as cur:
        cur.itersize = 2_000
        cur.execute(
            "SELECT body FROM ops.outbox WHERE run = %s AND source LIKE %s AND topic = %s ORDER BY source, part, seq",
            (run, f"{prefix}%", topic),
        )
        for (body,) in cur:
            yield bytes(body)


def _stored_heads(conn: Connection, run: str) -> dict[str, tuple[int, str]]:
    """Chain -> number of rows and hash of the last."""
    rows = conn.execute(
        "SELECT chain, count(*), (array_agg(record_hash ORDER BY chain_seq DESC))[1] FROM df.audit WHERE run = %s"
        " GROUP BY chain",
        (run,),
    ).fetchall()
    return {str(name): (int(n), bytes(head).hex()) for name, n, head in rows}


def _row_counts(conn: Connection, run: str) -> Mapping[str, int]:
    row = conn.execute(
        "SELECT (SELECT count(*) FROM df.decision WHERE run = %(run)s),"
        " (SELECT coalesce(sum(intents), 0) FROM df.decision WHERE run = %(run)s),"
        " (SELECT count(*) FROM df.decision WHERE run = %(run)s AND escalated),"
        " (SELECT count(*) FROM df.outcome WHERE run = %(run)s),"
        " (SELECT count(*) FROM df.audit WHERE run = %(run)s AND kind = 'DECIDED'),"
        " (SELECT count(*) FROM df.audit WHERE run = %(run)s AND kind = 'OUTCOME'),"
        " (SELECT count(*) FROM ops.quarantine WHERE run = %(run)s AND stage IN ('df', 'actions'))",
        {"run": run},
    ).fetchone()
    assert row is not None
    names = ("decisions", "intents", "escalated", "outcomes", "decided", "outcome_audits", "quarantined")
    return {name: int(value) for name, value in zip(names, row, strict=True)}


def _histogram(conn: Connection, run: str, table: str, column: str) -> dict[str, int]:
    rows = conn.execute(f"SELECT {column}, count(*) FROM {table} WHERE run = %s GROUP BY 1", (run,)).fetchall()
    return {str(name): int(n) for name, n in rows}
