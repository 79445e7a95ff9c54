"""The action layer's edges: the actuator over HTTP, its truth in PostgreSQL."""

from collections.abc import Sequence

import httpx
import msgspec
import orjson
import stamina

from fp_df.actmarks import Asked, Effects, Executed, Progress
from fp_df.adapters import audited
from fp_df.plan import ACTIONS_STAGE
from fp_runtime.errors import Unavailable
from fp_runtime.outbox import Published, Queued
from fp_runtime.pgarrays import int8s, texts
from fp_runtime.postgres import Connection
from fp_runtime.progress import Advance
from fp_runtime.together import Step
from fp_runtime.truthstage import TruthStage, Write

TIMEOUT_S = 5.0
ATTEMPTS, RETRY_S = 8, 20.0
_DENIALS = frozenset({409})
_ANSWERS = _DENIALS | {400, 404, 410, 422}
MAX_ACTIONS = 500
_JSON = {"content-type": "application/json"}
_OUTCOME = """
INSERT INTO df.outcome (run, action_id, decision_id, part, kind, status, attempts, reason)
SELECT %s, action_id, decision_id, part::int4, kind, status, attempts::int4, reason
FROM unnest(%s, %s, %s, %s, %s, %s, %s) AS t (action_id, decision_id, part, kind, status, attempts, reason)
RETURNING 1
"""


class Result(msgspec.Struct):
    """What the actuator says of one action: a status in HTTP's sense and, where it refused, a stable code."""

    status: int
    code: str | None = None


class Answer(msgspec.Struct):
    """The actuator's answer: results in the order of the actions."""

    results: list[Result]


_answer = msgspec.json.Decoder(Answer)


class HttpActuator:
    """actions.Actuator over HTTP, many intents in one request, each with its own idempotency key.

    Of an action it speaks by 2xx, 400, 404, 409, 410 and 422 in that action's result: outcomes. All else, for the
    request or for any of its actions, is Unavailable in the end: a refused credential, a full queue or a proxy's page
    say nothing of an action.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)

    def execute(self, asked: Sequence[Asked]) -> list[Executed]:
        """See actions.Actuator: bounded retries, then Unavailable (the process restarts and asks again)."""
        return [one for at in range(0, len(asked), MAX_ACTIONS) for one in self._some(asked[at : at + MAX_ACTIONS])]

    def _some(self, asked: Sequence[Asked]) -> list[Executed]:
        number = 0
        body = orjson.dumps({"actions": [_action(one) for one in asked]})
        try:
            for attempt in stamina.retry_context(on=httpx.HTTPError, attempts=ATTEMPTS, timeout=RETRY_S):
                with attempt:
                    number = attempt.num
                    results = _results(self._client.post("/v1/actions", content=body, headers=_JSON), len(asked))
        except httpx.HTTPError as error:
            raise Unavailable(f"actuator: {error}") from error
        return [_executed(result, number) for result in results]

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _action(asked: Asked) -> dict[str, str]:
    intent = asked.intent
    return {"idempotency_key": intent.idempotency_key, "kind": intent.kind, "flow_id": asked.decision.flow_id}


def _results(response: httpx.Response, count: int) -> list[Result]:
    """The result of each action; HTTPError when the answer leaves any of them open."""
    response.raise_for_status()
    try:
        results = _answer.decode(response.content).results
    except msgspec.MsgspecError as error:
        raise httpx.DecodingError(f"no answer of an actuator: {error}", request=response.request) from error
    silent = [result.status for result in results if not (200 <= result.status < 300 or result.status in _ANSWERS)]
    if silent or len(results) != count:
        what = f"status {silent[0]} of an action" if silent else f"{len(results)} results for {count} actions"
        raise httpx.DecodingError(what, request=response.request)
    return results


def _executed(result: Result, attempts: int) -> Executed:
    if 200 <= result.status < 300:
        return Executed("EXECUTED", attempts, None)
    status = "DENIED" if result.status in _DENIALS else "FAILED"
    return Executed(status, attempts, (result.code or str(result.status))[:100])


class PgActions:
    """actions.Store for one member of a run."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._run = run
        self._stage = TruthStage(conn, run, ACTIONS_STAGE, instance)

    def own(self, parts: Sequence[int]) -> None:
        """See actions.Store."""
        self._stage.own(parts)

    def load(self, part: int) -> Progress | None:
        """See actions.Store."""
        found = self._stage.load(part)
        return None if found is None else Progress.from_bytes(found.n, found.doc)

    def unpublished(self, part: int) -> list[Queued]:
        """See actions.Store."""
        return self._stage.unpublished(f"al:{part}")

    def commit(self, effects: Sequence[Effects], published: Sequence[Published]) -> None:
        """See actions.Store."""
        links = [link for effect in effects for link in effect.links]
        write = Write(
            [Advance(e.part, e.expected_n, e.progress.n, e.progress.to_bytes()) for e in effects],
            [*_ended(self._run, effects), *audited(self._run, links)],
            [queued for effect in effects for queued in effect.queued],
            [item for effect in effects for item in effect.quarantined],
        )
        self._stage.commit(write, published)

    def record_facts(self, published: Sequence[Published]) -> None:
        """See actions.Store."""
        self._stage.record_facts(published)


def _ended(run: str, effects: Sequence[Effects]) -> list[Step]:
    """The outcomes of a batch."""
    rows = [(effect.part, outcome) for effect in effects for outcome in effect.outcomes]
    if not rows:
        return []
    ends = [outcome for _, outcome in rows]
    columns = (
        texts([one.action_id for one in ends]), texts([one.decision_id for one in ends]),
        int8s([part for part, _ in rows]), texts([one.kind for one in ends]), texts([one.status for one in ends]),
        int8s([one.attempts for one in ends]), texts([one.reason for one in ends]),
    )  # fmt: skip
    return [Step(_OUTCOME, (run, *columns))]
