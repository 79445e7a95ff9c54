"""Approving a candidate: exactly the bundle of P14's evidence, by somebody other than who asked for the run."""

from pathlib import Path

import pytest

from fp_contracts import control as c
from fp_contracts.canonical import canonical_bytes
from fp_contracts.fold import Attempt, RunState
from fp_operator.approving import approval, candidate_of
from fp_runtime.errors import UserError
from fp_runtime.evidence import FileStore

RUN = "platform_20260101T000000Z"
BUNDLE = {
    "bundle_id": "a" * 32, "model_digest": "b" * 64, "manifest": {"key": "bundles/x", "sha256": "c" * 64, "size": 1}
}  # fmt: skip


def state_with(store: FileStore, document: object, actor: str = "ana") -> RunState:
    ref = store.put("learning/mf/x/eval_report.json", canonical_bytes(document))
    passed = c.GatePassed.model_construct(phase="P14", evidence=(ref,))  # type: ignore[call-arg]  # only what is read
    request = c.RunPinRequested.model_construct(actor=actor)  # type: ignore[call-arg]  # only what is read
    return RunState(RUN, attempts={"P14": Attempt(1, "PASS", passed)}, pin_request=request)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def test_another_actor_approves_the_bundle_of_p14(store: FileStore) -> None:
    state = state_with(store, {"job": {"result": {"document": {"bundle": BUNDLE}}}})
    event, _ = approval(state, candidate_of(state, store), "ben", "report read")
    assert isinstance(event, c.BundleApprovalGiven)
    assert (event.bundle_id, event.model_digest, event.actor) == ("a" * 32, "b" * 64, "ben")


@pytest.mark.parametrize(("actor", "reason", "why"), [("ana", "x", "asked for the run"), (" ", "x", "empty"),
                                                      ("ben", "", "empty")])  # fmt: skip
def test_who_may_not_approve_is_told(store: FileStore, actor: str, reason: str, why: str) -> None:
    state = state_with(store, {"job": {"result": {"document": {"bundle": BUNDLE}}}})
    with pytest.raises(UserError, match=why):
        approval(state, candidate_of(state, store), actor, reason)


def test_without_a_passed_p14_there_is_no_candidate(store: FileStore) -> None:
    with pytest.raises(UserError, match="P14 is OPEN"):
        candidate_of(RunState(RUN), store)


@pytest.mark.parametrize("document", [{}, {"job": None}, {"job": {"result": {"document": {"bundle": {"key": 1}}}}}])
def test_evidence_that_names_no_bundle_is_said(store: FileStore, document: object) -> None:
    with pytest.raises(UserError, match="does not read back"):
        candidate_of(state_with(store, document), store)


def test_evidence_that_was_changed_is_said(store: FileStore, tmp_path: Path) -> None:
    state = state_with(store, {"job": {"result": {"document": {"bundle": BUNDLE}}}})
    path = tmp_path / "learning/mf/x/eval_report.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="EvidenceBroken"):
        candidate_of(state, store)
