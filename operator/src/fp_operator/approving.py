"""A person approves a run's candidate bundle: found in P14's evidence, said on the control log (learning.md §4)."""

from collections.abc import Callable

import orjson
from pydantic import ValidationError

from fp_contracts import control as c
from fp_contracts.bundle import BundleRef
from fp_contracts.fold import RunState
from fp_runtime import evidence
from fp_runtime.controllog import Event
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore


def candidate_of(state: RunState, store: EvidenceStore) -> BundleRef:
    """The bundle that P14 closed on, read back by the gate's reference; UserError when there is none."""
    what = f"the candidate of {state.platform_run_id}"
    attempt = state.attempts.get("P14")
    if attempt is None or not isinstance(attempt.event, c.GatePassed):
        raise UserError(what, f"P14 is {state.state_of('P14')}", "see `fp status`; a candidate comes with P14's PASS")
    ref = next((ref for ref in attempt.event.evidence if ref.key.endswith("/eval_report.json")), None)
    try:
        document = orjson.loads(evidence.read(store, ref)) if ref is not None else {}
        return BundleRef.model_validate(document["job"]["result"]["document"]["bundle"])
    except (EvidenceMissing, EvidenceBroken, KeyError, TypeError, ValidationError) as error:
        raise UserError(
            what, f"the evidence of P14 does not read back ({type(error).__name__})", "fp verify"
        ) from error


def approval(state: RunState, bundle: BundleRef, actor: str, reason: str) -> Event:
    """The event; UserError for the one who asked for the run: nobody approves what they asked for."""
    if state.pin_request is not None and actor == state.pin_request.actor:
        raise UserError(f"approval by {actor}", "the same actor asked for the run", "let another person approve: --as")
    if not actor.strip() or not reason.strip():
        raise UserError("approval", "actor or reason is empty", "give --as and --reason")
    event = c.BundleApprovalGiven(
        bundle_id=bundle.bundle_id, model_digest=bundle.model_digest, actor=actor, reason=reason
    )
    return event, (bundle.bundle_id, actor)


class StandingApproval:
    """A person's approval given with the run: said once P14 closed, before anybody looked at its report.

    For demos and tests; a run that matters is approved by `fp models approve` after a look.
    """

    REASON = "standing approval, given with the run"

    def __init__(self, actor: str, store: EvidenceStore, publish: Callable[[RunState, list[Event]], None]) -> None:
        self._actor = actor
        self._store = store
        self._publish = publish
        self._said = False

    def look(self, state: RunState) -> None:
        """Approve if it is time; UserError for the one who asked for the run."""
        if self._said or not state.passed("P14") or state.blocked():
            return
        self._said = True
        if not any(given.actor == self._actor for given in state.approvals):
            bundle = candidate_of(state, self._store)
            self._publish(state, [approval(state, bundle, self._actor, self.REASON)])
