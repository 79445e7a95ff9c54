"""Claims, facts and lane states in PostgreSQL (schema `ig`)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from fp_contracts.header import NONE_TS
from fp_ig import journal, rowcopy
from fp_ig.claims import KIND_TOPIC, NO_SEQS, Known, Lane, Numbered, Row
from fp_ig.records import Attempt, Fact, Stamp
from fp_ig.statements import CLAIM, IDENTITY, LINES, RECORD
from fp_runtime.errors import Fenced, Unavailable
from fp_runtime.ownership import guard, raise_epoch
from fp_runtime.pgarrays import byteas, int8s, texts
from fp_runtime.postgres import Connection, Cursor, transaction

_RUN = ("INSERT INTO ig.run (run) VALUES (%s) ON CONFLICT DO NOTHING", "SELECT run_no FROM ig.run WHERE run = %s")
_PRINCIPAL = (
    "INSERT INTO ig.principal (name) VALUES (%s) ON CONFLICT DO NOTHING",
    "SELECT no FROM ig.principal WHERE name = %s",
)


def _number(cur: Cursor, statements: tuple[str, str], name: str) -> int:
    """The number that stands for a name; given at its first use."""
    insert, select = statements
    found = cur.execute(select, (name,)).fetchone()
    if found is None:
        cur.execute(insert, (name,))
        found = cur.execute(select, (name,)).fetchone()
    assert found is not None
    return int(found[0])


class PgStore:
    """service.Store on PostgreSQL. Reconnects after an outage; the epoch stays the one raised at the start."""

    def __init__(
        self, connect: Callable[[], Connection], run: str, stamp: Stamp, lanes: Sequence[int], owner: str
    ) -> None:
        """Become the writer of these lanes; earlier owners are fenced. Raises Unavailable."""
        self._connect = connect
        self._stamp = stamp
        self._scope = f"{run}|ig|{stamp.writer}"
        self._principals: dict[str, int] = {}
        self._conn = self._connect()
        with self._reading() as cur:
            self._run_no = _number(cur, _RUN, run)
        self._epoch = raise_epoch(self._conn, self._scope, owner)
        with self._writing() as cur:
            cur.executemany(
                "INSERT INTO ig.lane (run_no, lane, writer, last_lane_seq, floor_us, last_seqs)"
                " VALUES (%s, %s, %s, 0, %s, %s) ON CONFLICT DO NOTHING",
                [(self._run_no, lane, stamp.writer, NONE_TS, list(NO_SEQS)) for lane in lanes],
            )

    def close(self) -> None:
        """Let go of the connection."""
        self._conn.close()

    @contextmanager
    def _reading(self) -> Iterator[Cursor]:
        if self._conn.closed:
            self._conn = self._connect()
        with transaction(self._conn) as cur:
            yield cur

    @contextmanager
    def _alone(self) -> Iterator[Cursor]:
        """A cursor for one statement that is its own transaction: one round trip instead of three."""
        if self._conn.closed:
            self._conn = self._connect()
        try:
            with self._conn.cursor() as cur:
                yield cur
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise Unavailable(f"PostgreSQL: {str(error).strip()}") from error

    @contextmanager
    def _writing(self) -> Iterator[Cursor]:
        """A transaction that only the current owner may commit."""
        with self._reading() as cur:
            guard(cur, self._scope, self._epoch)
            yield cur

    def lanes(self) -> list[Lane]:
        """See service.Store; the row locks wait for a claim in doubt."""
        with self._writing() as cur:
            cur.execute(
                "SELECT lane, last_lane_seq, floor_us, last_seqs FROM ig.lane WHERE run_no = %s AND writer = %s"
                " ORDER BY lane FOR UPDATE",
                (self._run_no, self._stamp.writer),
            )
            return [Lane(lane, last, floor_us, tuple(seqs)) for lane, last, floor_us, seqs in cur]

    def claim(self, parts: Sequence[Numbered]) -> bool:
        """See service.Store. Unavailable when a lane is not where this process left it."""
        try:
            with self._reading() as cur:
                owned, moved = cur.execute(CLAIM, self._claim_values(parts)).fetchone() or (0, 0)
                if not owned:
                    raise Fenced(f"{self._scope}: epoch {self._epoch} is no longer the owner's")
                if moved != len(parts):
                    numbers = [part.after.number for part in parts]
                    raise Unavailable(f"a lane of {numbers} moved on: an earlier claim came through after all")
                self._insert_lines(cur, parts)
                self._insert_aside(cur, parts)
        except psycopg.errors.UniqueViolation as violation:
            if violation.diag.constraint_name != IDENTITY:
                raise
            return False
        return True

    def _claim_values(self, parts: Sequence[Numbered]) -> tuple[Any, ...]:
        """Parameters of CLAIM, in its order."""
        run_no = self._run_no
        before, after = [part.before for part in parts], [part.after for part in parts]
        kept = [part for part in parts if part.admitted]
        return (
            self._scope, self._epoch,
            int8s([one.number for one in after]), int8s([one.last_lane_seq for one in before]),
            int8s([one.floor_us for one in before]), int8s([one.last_lane_seq for one in after]),
            int8s([one.floor_us for one in after]), *map(int8s, zip(*(one.last_seqs for one in after), strict=True)),
            run_no, run_no,
            int8s([part.after.number for part in kept]), int8s([part.before.last_lane_seq + 1 for part in kept]),
            int8s([part.after.last_lane_seq for part in kept]), int8s([len(part.raws) for part in kept]),
            byteas([journal.packed(part.raws) for part in kept]),
        )  # fmt: skip

    def _insert_lines(self, cur: Cursor, parts: Sequence[Numbered]) -> None:
        if any(part.identities for part in parts):
            with cur.copy(LINES) as copy:
                copy.write(rowcopy.rows(self._run_no, parts))

    def _insert_aside(self, cur: Cursor, parts: Sequence[Numbered]) -> None:
        for row, sha256, raw in [aside for part in parts for aside in part.aside]:
            cur.execute(
                "INSERT INTO ig.quarantined (run_no, lane, lane_seq, reason, sha256, body)"
                " VALUES (%s, %s, %s, %s, %b, %b)",
                (self._run_no, row.lane, row.lane_seq, row.reason, sha256, raw),
            )

    def known(self, identities: Sequence[bytes]) -> dict[bytes, Known]:
        """See service.Store."""
        with self._reading() as cur:
            cur.execute(
                "SELECT identity, payload_hash, principal FROM ig.line"
                " WHERE run_no = %s AND class = 'A' AND identity = ANY(%s)",
                (self._run_no, byteas(identities)),
            )
            return {identity: Known(digest, principal) for identity, digest, principal in cur}

    def rows(self, lane: int, first_seq: int, last_seq: int) -> list[Row]:
        """See service.Store."""
        with self._reading() as cur:
            cur.execute(
                f"SELECT {journal.ROW} FROM ig.line WHERE run_no = %s AND lane = %s AND lane_seq BETWEEN %s AND %s"
                " ORDER BY lane_seq",
                (self._run_no, lane, first_seq, last_seq),
            )
            return [journal.row_of(values) for values in cur]

    def principal(self, name: str) -> int:
        """See service.Store."""
        if name not in self._principals:
            with self._reading() as cur:
                self._principals[name] = _number(cur, _PRINCIPAL, name)
        return self._principals[name]

    def record(self, facts: Sequence[Fact]) -> None:
        """See service.Store."""
        lane, topic, first_seq, first_offset, n, how = zip(*facts, strict=True)
        with self._alone() as cur:
            cur.execute(
                RECORD,
                (self._scope, self._epoch, self._run_no, int8s(lane), int8s(topic), int8s(first_seq),
                 int8s(first_offset), int8s(n), texts(how)),
            )  # fmt: skip
            if not cur.rowcount:
                raise Fenced(f"{self._scope}: epoch {self._epoch} is no longer the owner's")

    def note_unknown(self, attempts: Sequence[Attempt]) -> None:
        """See service.Store."""
        with self._writing() as cur:
            cur.executemany(
                "INSERT INTO ig.unknown (run_no, lane, topic, seq) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(self._run_no, one.lane, one.topic, one.seq) for one in attempts],
            )

    def high_water(self, lane: int, topic: int, before_seq: int) -> int | None:
        """See service.Store: only facts published in order bound a later record from below."""
        with self._reading() as cur:
            found = cur.execute(
                "SELECT max(first_offset + n) FROM ig.fact"
                " WHERE run_no = %s AND lane = %s AND topic = %s AND first_seq < %s AND how = 'P'",
                (self._run_no, lane, topic, before_seq),
            ).fetchone()
        return None if found is None or found[0] is None else int(found[0])

    def open_claims(self, lane: Lane) -> list[Attempt]:
        """See service.Store; looks at the claims only where the facts leave a gap."""
        with self._reading() as cur:
            missing = journal.missing_seqs(cur, self._run_no, lane)
            if not missing:
                return []
            first = journal.first_open_line(cur, self._run_no, lane.number, missing)
            lines = journal.claimed_lines(self._conn, self._run_no, lane.number, first=first)
            return [
                journal.attempt_of(self._stamp, row, raw)
                for row, raw in lines if row.seq in missing.get(KIND_TOPIC[row.kind], ())
            ]  # fmt: skip
