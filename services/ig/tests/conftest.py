"""A run, lines of it, and a store in memory that behaves as the one on PostgreSQL."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from fp_contracts.header import NONE_TS
from fp_contracts.ids import h32
from fp_contracts.partition import partition_of
from fp_contracts.reasons import LineClass
from fp_contracts.records import Pins
from fp_ig.claims import Known, Lane, Numbered, Row
from fp_ig.domain import Admission
from fp_ig.records import Attempt, Fact, Stamp, attempt
from fp_runtime.errors import Unavailable

RUN = "platform_20260101T000000Z"
Line = Callable[..., bytes]


def payload_of(event_type: str, merchant: str, n: int) -> dict[str, Any]:
    """A valid payload of each ingress type."""
    flow = {"flow_id": f"f-{n}", "merchant_id": merchant, "amount_minor": 1_000 + n, "currency": "EUR"}
    match event_type:
        case "arrival_event":
            return {
                "merchant_id": merchant, "arrival_seq": n + 1, "channel": "ECOM", "tz": "UTC", "is_virtual": True,
            }  # fmt: skip
        case "arrival_entities":
            return {
                "merchant_id": merchant, "arrival_seq": n + 1, "party_id": "p", "account_id": f"a-{n}",
                "instrument_id": "i",
            }  # fmt: skip
        case "flow_anchor":
            return flow | {"arrival_seq": n + 1, "account_id": f"a-{n}", "instrument_id": "i"}
        case _:
            return flow | {"event_seq": 1, "kind": "AUTH_REQUEST"}


@pytest.fixture
def pins() -> Pins:
    return Pins(RUN, "a" * 32, hashlib.sha256(b"world").hexdigest(), hashlib.sha256(b"config").hexdigest())


@pytest.fixture
def merchant() -> Callable[[int], str]:
    """A merchant of each lane."""
    by_lane = {partition_of(name, 6): name for name in (f"m-{n}" for n in range(200))}
    return lambda lane: by_lane[lane]


@pytest.fixture
def document(pins: Pins, merchant: Callable[[int], str]) -> Callable[..., dict[str, Any]]:
    """document(n, event_type, lane=0, ts_us=…): a valid envelope as a dict."""

    def make(n: int, event_type: str = "traffic", lane: int = 0, second: int = 0) -> dict[str, Any]:
        return {
            "event_id": h32("event", event_type, str(n)),
            "event_type": event_type,
            "schema_version": "v1",
            "ts_utc": f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000000Z",
            "platform_run_id": pins.platform_run_id,
            "scenario_run_id": pins.scenario_run_id,
            "manifest_fingerprint": pins.manifest_fingerprint,
            "run_config_digest": pins.run_config_digest,
            "producer": "test",
            "traceparent": None,
            "payload": payload_of(event_type, merchant(lane), n),
        }

    return make


@pytest.fixture
def line(document: Callable[..., dict[str, Any]]) -> Line:
    """The same as bytes; `change` edits the document first."""

    def make(*args: Any, change: Callable[[dict[str, Any]], Any] | None = None, **options: Any) -> bytes:
        doc = document(*args, **options)
        if change is not None:
            change(doc)
        return orjson.dumps(doc)

    return make


@pytest.fixture
def admission(pins: Pins) -> Admission:
    return Admission(pins, 6)


def rows_of(numbered: Numbered) -> list[Row]:
    """A row for every line of a part, in lane order."""
    lane, rows = numbered.after, list(numbered.others)
    for columns in numbered.admitted:
        last = len(columns.lines) - 1
        rows += [
            Row(
                lane.number, columns.lane_seqs[i], LineClass.ADMITTED, None, numbered.principal, line.kind,
                columns.first_seq + i, columns.orders_us[i], lane.floor_us if i == last else NONE_TS, line.identity,
                line.payload_hash,
            )
            for i, line in enumerate(columns.lines)
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row.lane_seq)


class MemoryStore:
    """service.Store in memory. `down` makes every call raise; `lose_commit` commits the next claim and then raises."""

    def __init__(self, stamp: Stamp, lanes: Sequence[int] = range(6)) -> None:
        self._stamp = stamp
        self.lane_states = {number: Lane(number) for number in lanes}
        self.lines: dict[tuple[int, int], tuple[Row, Attempt | None]] = {}
        self.identities: dict[bytes, Known] = {}
        self.facts: list[Fact] = []
        self.unknown: list[tuple[int, int, int]] = []
        self.aside: list[tuple[Row, bytes, bytes | None]] = []
        self.claims_tried = 0
        self.down = False
        self.lose_commit = False
        self.down_for_facts = False

    def _ask(self) -> None:
        if self.down:
            raise Unavailable("store is down")

    def lanes(self) -> list[Lane]:
        self._ask()
        return list(self.lane_states.values())

    def _offsets(self) -> dict[tuple[int, int, int], int]:
        return {
            (fact.lane, fact.topic, fact.first_seq + i): fact.first_offset + i
            for fact in self.facts for i in range(fact.n)
        }  # fmt: skip

    def open_claims(self, lane: Lane) -> list[Attempt]:
        self._ask()
        known = self._offsets()
        mine = [made for (number, _), (_, made) in sorted(self.lines.items()) if number == lane.number and made]
        return [made for made in mine if (made.lane, made.topic, made.seq) not in known]

    def claim(self, parts: Sequence[Numbered]) -> bool:
        self._ask()
        self.claims_tried += 1
        admitted = [row for part in parts for row in rows_of(part) if row.line_class is LineClass.ADMITTED]
        if any(row.identity in self.identities for row in admitted):
            return False
        for part in parts:
            assert self.lane_states[part.after.number] == part.before
            self.lane_states[part.after.number] = part.after
            lines = {at: line for one in part.admitted for at, line in zip(one.lane_seqs, one.lines, strict=True)}
            for row in rows_of(part):
                line = lines.get(row.lane_seq)
                made = line and attempt(self._stamp, row, line.key, line.raw, line.traceparent)
                self.lines[row.lane, row.lane_seq] = (row, made)
            self.aside += part.aside
        self.identities.update({row.identity: Known(row.payload_hash, row.principal) for row in admitted})
        if self.lose_commit:
            self.lose_commit = False
            raise Unavailable("the reply of COMMIT was lost")
        return True

    def known(self, identities: Sequence[bytes]) -> dict[bytes, Known]:
        self._ask()
        return {identity: self.identities[identity] for identity in identities if identity in self.identities}

    def rows(self, lane: int, first_seq: int, last_seq: int) -> list[Row]:
        self._ask()
        return [self.lines[lane, seq][0] for seq in range(first_seq, last_seq + 1) if (lane, seq) in self.lines]

    def principal(self, name: str) -> int:
        self._ask()
        return {"wsp": 1, "other": 2}[name]

    def record(self, facts: Sequence[Fact]) -> None:
        self._ask()
        if self.down_for_facts:
            self.down_for_facts = False
            raise Unavailable("store went down after the claim")
        self.facts += facts

    def note_unknown(self, attempts: Sequence[Attempt]) -> None:
        self._ask()
        self.unknown += [(one.lane, one.topic, one.seq) for one in attempts]

    def high_water(self, lane: int, topic: int, before_seq: int) -> int | None:
        self._ask()
        ends = [fact.first_offset + fact.n for fact in self.facts
                if (fact.lane, fact.topic, fact.how) == (lane, topic, "P") and fact.first_seq < before_seq]  # fmt: skip
        return max(ends, default=None)


@pytest.fixture
def memory_store() -> Callable[[Stamp], MemoryStore]:
    return MemoryStore
