"""What must hold after every run: equations, dense sequences, equal copies, and the expected content."""

from collections import Counter, defaultdict

from fp_contracts import topics
from fp_contracts.header import Header, Kind

from .expect import Expected
from .kernel import Tp
from .run import Run


def check(run: Run, expected: Expected) -> None:
    """All of it; AssertionError says which."""
    check_sequences(run)
    check_content(run, expected)
    if run.sender is not None:
        check_ingress(run, expected)
    check_effects(run)
    check_positions(run)


def check_positions(run: Run) -> None:
    """What a consumer in log order says it has seen is what it has read: nothing forgotten, nothing doubled."""
    for (tp, source), position in run.acts.positions.items():
        read = run.kernel.logs[tp][: position.offset]
        kinds = {Kind.DECISION, Kind.ACTION_OUTCOME, Kind.CASE_TRIGGER}
        seen = {rec.header.seq for rec in read if rec.header.source == source and rec.header.kind in kinds}
        assert len(seen) == position.last - len(position.gaps), f"{tp} {source}: sequences forgotten"


def check_sequences(run: Run) -> None:
    """Per (source, topic, partition): dense from 1, copies equal to the byte."""
    copies: dict[tuple[Tp, str], dict[int, set[tuple[Header, bytes]]]] = defaultdict(lambda: defaultdict(set))
    for tp, log in run.kernel.logs.items():
        for rec in log:
            if rec.header.kind is not Kind.WATERMARK:
                copies[tp, rec.header.source][rec.header.seq].add((rec.header, rec.value))
    for line, found in copies.items():
        assert set(found) == set(range(1, len(found) + 1)), f"{line} has a gap"
        assert all(len(versions) == 1 for versions in found.values()), f"{line} has unequal copies"


def check_content(run: Run, expected: Expected) -> None:
    """Snapshots and decisions are those of the world, each exactly once (R3)."""
    for kind, wanted in ((Kind.FEATURE_SNAPSHOT, expected.snapshots), (Kind.DECISION, expected.decisions)):
        got = [payload["replays"] for payload in run.payloads(topics.RTDL, kind)]
        assert len(got) == len(wanted), f"{len(got)} {kind.name} for {len(wanted)} requests"
        for replays in got:
            assert replays == wanted[replays["event"]], f"{kind.name} differs"


def check_ingress(run: Run, expected: Expected) -> None:
    """sent = admitted + duplicate + quarantined, with the right classes; records = claims."""
    assert run.sender is not None
    assert run.sender.classes == expected.classes, "classes received"
    assert run.writers.classes == expected.classes, "class rows"
    assert len(run.writers.claims) == expected.admitted == Counter(expected.classes.values())["ADMITTED"]
    published = sum(len(run.distinct(topic)) for topic in (*topics.INGRESS, topics.LABELS))
    assert published == len(run.writers.claims), "records = claims"


def check_effects(run: Run) -> None:
    """auth requests = snapshots = decisions = DECIDED; intents = outcomes = OUTCOME; outcomes of cases attached."""
    requests = [rec for _, rec in run.distinct(topics.TRAFFIC, Kind.AUTH_REQUEST)]
    decisions = run.payloads(topics.RTDL, Kind.DECISION)
    audit = run.payloads(topics.AUDIT, Kind.AUDIT_RECORD)
    assert len(requests) == len(run.distinct(topics.RTDL, Kind.FEATURE_SNAPSHOT)) == len(decisions)
    decided = [record["id"] for record in audit if record["kind"] == "DECIDED"]
    assert sorted(decided) == sorted(decision["id"] for decision in decisions)
    intents = sorted(action for decision in decisions for action in decision["intents"])
    outcomes = sorted(outcome["action"] for outcome in run.payloads(topics.RTDL, Kind.ACTION_OUTCOME))
    assert intents == outcomes == sorted(record["id"] for record in audit if record["kind"] == "OUTCOME")
    escalated = {decision["id"]: set(decision["intents"]) for decision in decisions if decision["replays"]["escalated"]}
    attached = [actions for case, actions in run.acts.attached.items() if case in run.acts.triggers]
    assert sorted(map(sorted, attached)) == sorted(map(sorted, escalated.values()))
    assert not set(run.acts.loose) & set(run.acts.triggers)


def bytes_of(run: Run) -> dict[str, bytes]:
    """Bodies of snapshots and decisions by what they are (R2: ids and bytes, origins included)."""
    kinds = {Kind.FEATURE_SNAPSHOT, Kind.DECISION}
    return {
        f"{rec.header.kind.name} {tp[1]} {rec.header.source} {rec.header.seq}": rec.value
        for tp, rec in run.distinct(topics.RTDL)
        if rec.header.kind in kinds
    }
