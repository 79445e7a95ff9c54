"""One run's control log as evidence: records with offsets and hashes, the fold, and every reference it names. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fp_contracts import control as c
from fp_contracts.canonical import digest_of, sha256_hex
from fp_contracts.fold import RunState, fold
from fp_contracts.records import RecordError, read_control

Documents = Mapping[tuple[str, str], Any]
"""(phase, name) -> document of the current attempt's gate, as read back by its reference."""


WINDOW_REPORT = ("window 2", "reconciliation")
"""Place of the report that re-checks window 2: it belongs to no gate, the control log names it."""


REHEARSAL = "rehearsal"
"""Place of a teardown rehearsal's documents, by proof: they belong to no gate either."""


class RawRecord(NamedTuple):
    """One control record as it lay on the topic."""

    offset: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One decoded record."""

    offset: int
    sha256: str
    event_id: str
    payload: c.ControlPayload


class Unreadable(NamedTuple):
    """A record of the run that breaks its contract: it says nothing, and a verdict over it does not hold."""

    offset: int
    sha256: str
    why: str


@dataclass(frozen=True, slots=True)
class Log:
    """The records of a run in order, readable or not, and what they fold to."""

    run: str
    records: tuple[Entry | Unreadable, ...] = field(default_factory=tuple)
    state: RunState = field(default_factory=lambda: RunState(""))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The records that could be read."""
        return tuple(record for record in self.records if isinstance(record, Entry))

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Those that could not."""
        return tuple(record for record in self.records if isinstance(record, Unreadable))

    def before(self, cut: int) -> "Log":
        """The log as it was when `cut` was the next offset."""
        return _folded(self.run, tuple(record for record in self.records if record.offset < cut))

    def digest(self) -> str:
        """hex64 over (offset, sha256) of every record."""
        return digest_of([[record.offset, record.sha256] for record in self.records])

    def first(self, payload: c.ControlPayload) -> Entry:
        """The first record that says `payload`; KeyError."""
        for entry in self.entries:
            if entry.payload == payload:
                return entry
        raise KeyError(payload.type)

    def refs(self) -> Iterator[tuple[str, c.EvidenceRef]]:
        """(phase that owns it, reference) for every reference on the log, in order; repeats are left out."""
        seen = set()
        for entry in self.entries:
            for phase, ref in _refs_of(entry.payload):
                if (phase, ref.key, ref.sha256, ref.size) not in seen:
                    seen.add((phase, ref.key, ref.sha256, ref.size))
                    yield phase, ref


def read_log(run: str, records: Iterable[RawRecord]) -> Log:
    """Decode and fold the records of a run; those of other runs are passed over."""
    return _folded(run, tuple(_decoded(run, record) for record in records if record.key == run.encode()))


def _decoded(run: str, record: RawRecord) -> Entry | Unreadable:
    sha256 = sha256_hex(record.value)
    try:
        envelope, payload = read_control(record.value)
    except RecordError as error:
        return Unreadable(record.offset, sha256, str(error))
    if envelope.platform_run_id != run:
        return Unreadable(record.offset, sha256, "key and envelope name different runs")
    return Entry(record.offset, sha256, envelope.event_id, payload)


def _folded(run: str, records: tuple[Entry | Unreadable, ...]) -> Log:
    log = Log(run, records)
    state = RunState(run)
    for entry in log.entries:
        state = fold(state, entry.payload)
    return Log(run, records, state)


def _refs_of(payload: c.ControlPayload) -> tuple[tuple[str, c.EvidenceRef], ...]:
    match payload:
        case c.GatePassed() | c.GateBlocked():
            return tuple((payload.phase, ref) for ref in payload.evidence)
        case c.RunPinned():
            return (("P1", payload.header_ref),)
        case c.WindowEnded():
            return (("P6", payload.ledger_ref),)
        case c.WindowReconciled():
            return (("P15", payload.report_ref),)
        case c.TeardownRehearsed():
            return tuple(("P16", ref) for ref in (*payload.evidence, *payload.outlived))
        case c.RunResumeRequested():
            return ((payload.phase, payload.receipt_ref),)
        case _:
            return ()


def gate_refs(state: RunState) -> dict[tuple[str, str], c.EvidenceRef]:
    """(phase, name) -> reference of each passed gate's evidence."""
    found = {}
    for phase, attempt in state.attempts.items():
        if isinstance(attempt.event, c.GatePassed):
            for ref in attempt.event.evidence:
                found[phase, ref.key.rpartition("/")[2].removesuffix(".json")] = ref
    return found
