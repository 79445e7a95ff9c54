"""The action layer's edges: the actuator over HTTP, its truth in PostgreSQL."""

from collections.abc import Sequence

import httpx
import stamina

from fp_contracts.downstream import Decision, Intent
from fp_df.actions import Effects, Executed, Progress
from fp_df.adapters import copy_audit, scope_of
from fp_df.plan import ACTIONS_STAGE
from fp_runtime import outbox, ownership, progress, quarantine
from fp_runtime.errors import Unavailable
from fp_runtime.outbox import Published, Queued
from fp_runtime.postgres import Connection, transaction

TIMEOUT_S = 5.0
ATTEMPTS, RETRY_S = 8, 20.0
_DENIALS = frozenset({409})
_ANSWERS = _DENIALS | {400, 404, 410, 422}
_OUTCOME = "COPY df.outcome (run, action_id, decision_id, part, kind, status, attempts, reason) FROM STDIN"


class HttpActuator:
    """actions.Actuator over HTTP.

    It speaks of the action by 2xx, 400, 404, 409, 410 and 422: outcomes. All else is Unavailable in the end: a refused
    credential, a full queue or a proxy's page say nothing of the action.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)

    def execute(self, decision: Decision, intent: Intent) -> Executed:
        """See actions.Actuator: bounded retries, then Unavailable (the process restarts and asks again)."""
        body = {"kind": intent.kind, "flow_id": decision.flow_id}
        headers = {"Idempotency-Key": intent.idempotency_key}
        number = 0
        try:
            for attempt in stamina.retry_context(on=httpx.HTTPError, attempts=ATTEMPTS, timeout=RETRY_S):
                with attempt:
                    number = attempt.num
                    response = self._client.post("/v1/actions", json=body, headers=headers)
                    if not response.is_success and response.status_code not in _ANSWERS:
                        response.raise_for_status()
        except httpx.HTTPError as error:
            raise Unavailable(f"actuator: {error}") from error
        if response.is_success:
            return Executed("EXECUTED", number, None)
        status = "DENIED" if response.status_code in _DENIALS else "FAILED"
        return Executed(status, number, _code(response))

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _code(response: httpx.Response) -> str:
    """The problem's stable code, or the status where it has none."""
    try:
        code = response.json()["code"]
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)
    return str(code)[:100]


class PgActions:
    """actions.Store for one member of a run."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._instance = instance
        self._epochs: dict[int, int] = {}

    def own(self, parts: Sequence[int]) -> None:
        """See actions.Store."""
        self._epochs = {
            part: ownership.raise_epoch(self._conn, scope_of(self._run, ACTIONS_STAGE, part), self._instance)
            for part in parts
        }

    def load(self, part: int) -> Progress | None:
        """See actions.Store."""
        found = progress.load(self._conn, self._run, ACTIONS_STAGE, part)
        return None if found is None else Progress.from_bytes(found.n, found.doc)

    def unpublished(self, part: int) -> list[Queued]:
        """See actions.Store."""
        return outbox.unpublished(self._conn, self._run, f"al:{part}")

    def commit(self, effects: Sequence[Effects]) -> None:
        """See actions.Store."""
        with transaction(self._conn) as cur:
            for part, epoch in self._epochs.items():
                ownership.guard(cur, scope_of(self._run, ACTIONS_STAGE, part), epoch)
            with cur.copy(_OUTCOME) as copy:
                for effect in effects:
                    for o in effect.outcomes:
                        copy.write_row(
                            (self._run, o.action_id, o.decision_id, effect.part, o.kind, o.status, o.attempts, o.reason)
                        )
            copy_audit(cur, self._run, [link for effect in effects for link in effect.links])
            outbox.add(cur, self._run, (queued for effect in effects for queued in effect.queued))
            for effect in effects:
                quarantine.add(cur, self._run, ACTIONS_STAGE, effect.quarantined)
                at = effect.progress
                progress.advance(cur, self._run, ACTIONS_STAGE, effect.part, effect.expected_n, at.n, at.to_bytes())

    def record_facts(self, published: Sequence[Published]) -> None:
        """See actions.Store."""
        with transaction(self._conn) as cur:
            outbox.record_facts(cur, self._run, published)
