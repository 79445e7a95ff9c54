"""The facts behind P9, gathered from progress rows, truth tables and topics: never from a member's memory."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fp_contracts import topics
from fp_contracts.derive import multiset_digest, vector_bytes
from fp_contracts.downstream import AuditRecord, Decision
from fp_contracts.fold import RunState
from fp_contracts.header import HeaderError, Kind, unpack
from fp_contracts.ids import run_tag
from fp_contracts.records import read_derived
from fp_df import audit, domain
from fp_df.actions import Progress
from fp_df.catalogue import Catalogue
from fp_df.gates import DecisionFacts
from fp_df.partition import Truth
from fp_df.plan import ACTIONS_STAGE, PARTITIONS, STAGE
from fp_df.policy import Policy
from fp_features import CORE_V1
from fp_features import unpack as unpack_vector
from fp_runtime import progress
from fp_runtime.bus import Consumer
from fp_runtime.postgres import Connection

_READ = (topics.TRAFFIC, topics.RTDL, topics.AUDIT)
_COUNTED = frozenset({Kind.AUTH_REQUEST, Kind.FEATURE_SNAPSHOT, Kind.DECISION, Kind.ACTION_OUTCOME, Kind.AUDIT_RECORD})


def caught_up(conn: Connection, state: RunState) -> bool:
    """Whether every partition is decided to the end of the last ended window and the action layer read as far."""
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
    seen: dict[Kind, set[tuple[str, int, str, int]]] = {kind: set() for kind in _COUNTED}
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
            if header.run_tag == tag and header.kind in seen:
                seen[header.kind].add((header.source, header.seq, record.topic, record.partition))
            if record.offset + 1 >= ends[record.topic, record.partition]:
                left.discard((record.topic, record.partition))
    return {kind: len(found) for kind, found in seen.items()}


@dataclass(slots=True)
class Replay:
    """R1 over all decisions: what was re-evaluated, and what came out otherwise."""

    replayed: int = 0
    unequal: int = 0
    fingerprints: list[str] = field(default_factory=list)


def replay(bodies: Iterator[bytes], catalogue: Mapping[str, Policy]) -> Replay:
    """Re-evaluate each recorded decision from its recorded vector, degrade reasons and policy revision."""
    result = Replay()
    for body in bodies:
        _, decision = read_derived(body)
        result.replayed += 1
        result.unequal += not _repeats(decision, catalogue)
        result.fingerprints.append(domain.fingerprint(decision))
    return result


def _repeats(decision: Decision, catalogue: Mapping[str, Policy]) -> bool:
    policy = catalogue.get(decision.policy_rev)
    if policy is None:
        return False
    vector = unpack_vector(vector_bytes(decision.feature_vector))
    degraded = tuple(code for code in decision.reason_codes if code in domain.JOIN_REASONS)
    action, reasons, posture = domain.judge(CORE_V1.schema_digest, degraded, vector, policy)
    return (decision.action, decision.posture) == (action.value, posture.value) and tuple(
        map(str, reasons)
    ) == decision.reason_codes


def chain_facts(links: Sequence[AuditRecord]) -> tuple[dict[str, tuple[int, str]], tuple[str, ...]]:
    """(chain -> links and head hash, faults) of audit records as their exact published bytes say."""
    chains: dict[str, list[AuditRecord]] = {}
    for link in links:
        chains.setdefault(link.chain, []).append(link)
    for records in chains.values():
        records.sort(key=lambda record: record.chain_seq)
    faults = tuple(fault for records in chains.values() if (fault := audit.chain_break(records)) is not None)
    return {name: (len(found), found[-1].record_hash) for name, found in sorted(chains.items())}, faults


def gather(conn: Connection, consumer: Consumer, state: RunState, catalogue: Catalogue) -> DecisionFacts:
    """All facts of P9 as of now."""
    run = state.platform_run_id
    decided = progress.load_all(conn, run, STAGE)
    acted = progress.load_all(conn, run, ACTIONS_STAGE)
    gaps = sum(Truth.from_bytes(at.n, at.doc).open_gaps for at in decided.values())
    gaps += sum(Progress.from_bytes(at.n, at.doc).open_gaps for at in acted.values())
    found = topic_counts(consumer, state)
    policies = {rev: policy for rev, (policy, _) in catalogue.items()}
    replayed = replay(_bodies(conn, run, "df:", topics.RTDL), policies)
    links = [read_derived(body)[1] for prefix in ("df:", "al:") for body in _bodies(conn, run, prefix, topics.AUDIT)]
    chains, faults = chain_facts(links)
    heads = _stored_heads(conn, run)
    faults += tuple(f"{name}: head differs from its row" for name, (_, head) in chains.items() if heads[name] != head)
    counts = _row_counts(conn, run)
    return DecisionFacts(
        caught_up=caught_up(conn, state),
        open_gaps=gaps,
        unpublished=counts["unpublished"],
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
        chain_faults=faults,
        chains=chains,
        replayed=replayed.replayed,
        unequal=replayed.unequal,
        fingerprint=multiset_digest(replayed.fingerprints),
        by_action=_histogram(conn, run, "df.decision", "action"),
        by_posture=_histogram(conn, run, "df.decision", "posture"),
        by_policy=_histogram(conn, run, "df.decision", "policy_rev"),
        by_status=_histogram(conn, run, "df.outcome", "status"),
        escalated=counts["escalated"],
    )


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


def _stored_heads(conn: Connection, run: str) -> dict[str, str]:
    rows = conn.execute(
        "SELECT DISTINCT ON (chain) chain, record_hash FROM df.audit WHERE run = %s ORDER BY chain, chain_seq DESC",
        (run,),
    ).fetchall()
    return {str(chain): bytes(head).hex() for chain, head in rows}


def _row_counts(conn: Connection, run: str) -> Mapping[str, int]:
    row = conn.execute(
        "SELECT (SELECT count(*) FROM df.decision WHERE run = %(run)s),"
        " (SELECT coalesce(sum(intents), 0) FROM df.decision WHERE run = %(run)s),"
        " (SELECT count(*) FROM df.decision WHERE run = %(run)s AND escalated),"
        " (SELECT count(*) FROM df.outcome WHERE run = %(run)s),"
        " (SELECT count(*) FROM df.audit WHERE run = %(run)s AND kind = 'DECIDED'),"
        " (SELECT count(*) FROM df.audit WHERE run = %(run)s AND kind = 'OUTCOME'),"
        " (SELECT count(*) FROM ops.quarantine WHERE run = %(run)s AND stage IN ('df', 'actions')),"
        " (SELECT count(*) FROM ops.outbox WHERE run = %(run)s AND (source LIKE 'df:%%' OR source LIKE 'al:%%'))"
        " - (SELECT coalesce(sum(n), 0) FROM (SELECT DISTINCT source, topic, part, first_seq, n FROM ops.outbox_fact"
        "    WHERE run = %(run)s AND (source LIKE 'df:%%' OR source LIKE 'al:%%')) f)",
        {"run": run},
    ).fetchone()
    assert row is not None
    names = (
        "decisions", "intents", "escalated", "outcomes", "decided", "outcome_audits", "quarantined", "unpublished",
    )  # fmt: skip
    return {name: max(0, int(value)) for name, value in zip(names, row, strict=True)}


def _histogram(conn: Connection, run: str, table: str, column: str) -> dict[str, int]:
    rows = conn.execute(f"SELECT {column}, count(*) FROM {table} WHERE run = %s GROUP BY 1", (run,)).fetchall()
    return dict(Counter({str(name): int(n) for name, n in rows}))
