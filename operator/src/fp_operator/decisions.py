"""What was decided in window 2 of a full run, and what is known of those payments at its end: read, never judged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.derive import vector_bytes
from fp_contracts.downstream import SOURCE_RANK
from fp_contracts.fold import RunState
from fp_contracts.header import unpack as unpack_header
from fp_contracts.reasons import Action
from fp_contracts.runconfig import RunConfig, RunHeader, Window
from fp_contracts.windows import SECOND
from fp_df import domain, replay
from fp_df.catalogue import Catalogue
from fp_df.plan import plan_of
from fp_df.shadow import Shadow, recorded_shadow
from fp_features import unpack
from fp_features.labels import FRAUD, Known, resolve
from fp_runtime import outbox
from fp_runtime.errors import UserError
from fp_runtime.postgres import Connection

DISPOSITION = "fraud_disposition"
_LEGIT = "LEGIT_CONFIRMED"


class Truth(StrEnum):
    """What is known of a payment as of the end of the run, by the rule that datasets follow."""

    FRAUD = "fraud"
    LEGIT = "legit"
    IMMATURE = "immature"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One decision of window 2. `guardrails`: what they alone ask for on the same inputs; `asked`: the model alone."""

    event_id: str
    account: str
    event_us: int
    amount_minor: int
    currency: str
    action: Action
    guardrails: Action
    bundle_ref: str | None
    score: float | None
    asked: Action = Action.ALLOW
    shadow: Shadow | None = None


def second_window(state: RunState) -> tuple[RunHeader, Window]:
    """The header and window 2 of a full run that was sent to its end; UserError when there is none."""
    what = f"window 2 of {state.platform_run_id}"
    if state.header is None or state.header.config.scope != "full":
        raise UserError(what, "the run has scope spine: no model decides", "start one with `fp run --scope full`")
    if SECOND not in state.windows_ended:
        raise UserError(what, f"it has not ended; P15 is {state.state_of('P15')}", "see `fp status`, `fp why P15`")
    return state.header, state.header.config.windows[SECOND - 1]


def decided_rows(conn: Connection, header: RunHeader, window: Window, catalogue: Catalogue) -> list[DecisionRow]:
    """Every decision of a window with what the guardrails alone would have done; UserError for an unknown policy."""
    plan = plan_of(header, catalogue)
    found = []
    for order_us, recorded in recorded_decisions(conn, header.platform_run_id, window):
        policy = domain.policy_at(plan.switches, order_us)
        found.append(
            DecisionRow(
                recorded["source_event"]["event_id"], recorded["account_id"] or recorded["flow_id"],
                recorded["event_us"], recorded["amount_minor"], recorded["currency"], Action(recorded["action"]),
                replay.without_model(recorded, policy), recorded["bundle_ref"], number(recorded["score"]),
                asked_by_model(recorded["reason_codes"]), shadow_in(recorded),
            )
        )  # fmt: skip
    return found


def recorded_decisions(conn: Connection, run: str, window: Window) -> Iterator[tuple[int, dict[str, Any]]]:
    """(order_us, payload) of each decision whose event time lies in a window, streamed from what df committed."""
    for _, _, out in outbox.records(conn, run, "df:", topics.RTDL):
        order_us = unpack_header(out.header).order_us
        if window.start_us <= order_us < window.end_us:
            yield order_us, orjson.loads(out.value)["payload"]


def known(conn: Connection, run: str, before_us: int) -> dict[str, Known]:
    """Per payment the word that stands in the label store among those observed before a time."""
    rows = conn.execute(
        "SELECT event_id, label_value, source, effective_us, observed_us FROM cm.assertion"
        " WHERE run = %s AND label_type = %s AND observed_us < %s",
        (run, DISPOSITION, before_us),
    ).fetchall()
    standing: dict[str, Known] = {}
    for event_id, value, source, effective_us, observed_us in rows:
        said = Known(SOURCE_RANK[source], effective_us, observed_us, value)
        standing[event_id] = resolve(standing.get(event_id), said)
    return standing


def truth_of(event_us: int, word: Known | None, as_of_us: int, config: RunConfig) -> Truth:
    """What is known of one payment. Where only frauds are adjudicated, silence after the delay means legitimate."""
    if event_us + config.adjudication_delay_us >= as_of_us:
        return Truth.IMMATURE
    if word is None:
        return Truth.LEGIT if config.adjudication == "fraud" else Truth.UNCERTAIN
    return {FRAUD: Truth.FRAUD, _LEGIT: Truth.LEGIT}.get(word.value, Truth.UNCERTAIN)


def truths(conn: Connection, header: RunHeader, window: Window, rows: list[DecisionRow]) -> Mapping[str, Truth]:
    """event_id -> what was known of it when the window ended."""
    words = known(conn, header.platform_run_id, window.end_us)
    return {
        row.event_id: truth_of(row.event_us, words.get(row.event_id), window.end_us, header.config) for row in rows
    }  # fmt: skip


def asked_by_model(reason_codes: Sequence[str]) -> Action:
    """The action that the thresholds of the deciding bundle ask for, as the reasons of the decision tell it."""
    asked = (action for action, codes in domain.SCORE_REASONS.items() if codes and codes[0] in reason_codes)
    return next(asked, Action.ALLOW)


def shadow_in(recorded: Mapping[str, Any]) -> Shadow | None:
    """What a decision says of the challenger."""
    return recorded_shadow(recorded["shadow"][0]) if recorded["shadow"] else None


def number(score: str | None) -> float | None:
    """A recorded score as the number it is."""
    return None if score is None else unpack(vector_bytes(score))[0]
