"""Jobs, registry and marks in PostgreSQL; see migrations/0001_learning.sql."""

from collections.abc import Mapping, Sequence

import orjson
import psycopg
from pydantic import TypeAdapter

from fp_contracts.control import EvidenceRef
from fp_contracts.learning import MfEnded, MfRequested, OfsEnded, OfsRequested
from fp_contracts.registry import BundlePromotedActive, BundleRolledBack, RegistryPayload
from fp_ofs_trigger.domain import BASIS_TOPICS, ArchivedObject
from fp_ofs_trigger.jobs import Asked, EndSeen
from fp_ofs_trigger.registry_desk import Place, Stored
from fp_runtime.postgres import Connection

_REQUESTED: TypeAdapter[OfsRequested | MfRequested] = TypeAdapter(OfsRequested | MfRequested)
_ENDED: TypeAdapter[OfsEnded | MfEnded] = TypeAdapter(OfsEnded | MfEnded)


class PgJobs:
    """jobs.JobTable."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def asked(self, run: str, phase: str, attempt: int) -> Asked | None:
        """See JobTable."""
        row = self._conn.execute(
            "SELECT request, event FROM learning.job WHERE run = %s AND phase = %s AND attempt = %s",
            (run, phase, attempt),
        ).fetchone()
        return None if row is None else Asked(bytes(row[0]), _REQUESTED.validate_json(row[1]))

    def ask(self, run: str, phase: str, attempt: int, asked: Asked) -> Asked:
        """See JobTable."""
        event = asked.event
        self._conn.execute(
            "INSERT INTO learning.job (run, phase, attempt, request_id, request, event) VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            (run, phase, attempt, event.request_id, asked.request, event.model_dump_json().encode()),
        )
        standing = self.asked(run, phase, attempt)
        assert standing is not None
        return standing

    def end(self, run: str, request_id: str) -> EndSeen | None:
        """See JobTable."""
        row = self._conn.execute(
            "SELECT event, topic, part, kafka_offset FROM learning.job_end WHERE run = %s AND request_id = %s",
            (run, request_id),
        ).fetchone()
        return None if row is None else EndSeen(_ENDED.validate_json(row[0]), row[1], row[2], row[3])

    def note_end(self, run: str, seen: EndSeen) -> None:
        """See JobTable."""
        self._conn.execute(
            "INSERT INTO learning.job_end (run, request_id, event, topic, part, kafka_offset)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (run, seen.event.request_id, seen.event.model_dump_json().encode(), seen.topic, seen.partition,
             seen.offset),
        )  # fmt: skip


class PgRegistry:
    """registry_desk.RegistryTable."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def rows(self, slot: str) -> Sequence[Stored]:
        """See RegistryTable."""
        found = self._conn.execute(
            "SELECT n, event_id, body FROM learning.registry_event WHERE slot = %s ORDER BY n", (slot,)
        )
        return [Stored(n, event_id, bytes(body)) for n, event_id, body in found.fetchall()]

    def insert(self, row: Stored, event: RegistryPayload) -> bool:
        """See RegistryTable."""
        scope = event.scope
        revision = event.revision if isinstance(event, BundlePromotedActive | BundleRolledBack) else None
        try:
            self._conn.execute(
                "INSERT INTO learning.registry_event (slot, n, event_id, environment, mode, tenant, revision, body)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (scope.bundle_slot, row.n, row.event_id, scope.environment, scope.mode, scope.tenant, revision,
                 row.body),
            )  # fmt: skip
        except psycopg.errors.UniqueViolation:
            return False
        return True

    def places(self, slot: str) -> Mapping[str, Place]:
        """See RegistryTable."""
        found = self._conn.execute(
            "SELECT f.event_id, f.part, f.kafka_offset FROM learning.registry_fact f"
            " JOIN learning.registry_event e USING (event_id) WHERE e.slot = %s",
            (slot,),
        )
        return {event_id: Place(part, offset) for event_id, part, offset in found.fetchall()}

    def note_place(self, event_id: str, place: Place) -> None:
        """See RegistryTable."""
        self._conn.execute(
            "INSERT INTO learning.registry_fact (event_id, part, kafka_offset) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            (event_id, *place),
        )


class PgMarks:
    """Moments of a run, kept as first seen."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def first(self, run: str, name: str, now_us: int) -> int:
        """When this was first seen (µs): now, unless it was marked before."""
        self._conn.execute(
            "INSERT INTO learning.mark (run, name, at_us) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (run, name, now_us),
        )
        row = self._conn.execute("SELECT at_us FROM learning.mark WHERE run = %s AND name = %s", (run, name)).fetchone()
        assert row is not None
        return int(row[0])


def archived_objects(conn: Connection, run: str) -> list[ArchivedObject]:
    """The archive's objects of the topics that learning reads, by topic, partition and offset."""
    rows = conn.execute(
        "SELECT topic, part, first_offset, next_offset, key, sha256, size, records FROM rtdl.archive_object"
        " WHERE run = %s AND topic = ANY(%s) ORDER BY topic, part, first_offset",
        (run, list(BASIS_TOPICS)),
    )
    return [
        ArchivedObject(topic, part, first, upto, EvidenceRef(key=key, sha256=sha, size=size), records)
        for topic, part, first, upto, key, sha, size, records in rows.fetchall()
    ]


def reconciled_records(document: bytes) -> dict[str, int]:
    """Archived records per topic as P11 reconciled them."""
    archive = orjson.loads(document).get("archive", {})
    return {topic: int(found["archived"]) for topic, found in archive.items()}
