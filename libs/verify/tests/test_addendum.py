"""The closing addendum of a teardown: over this verdict and this teardown, or the run does not verify."""

from collections.abc import Callable
from typing import Any

import pytest

from fp_contracts.canonical import canonical_bytes, digest_of, sha256_hex
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import PHASES
from fp_verify import sample
from fp_verify.addendum import Holds
from fp_verify.check import verify
from fp_verify.log import read_log
from fp_verify.sample import RUN, GreenRun, green_run

SPEC, EXECUTION = PHASES["P17"], phase_execution_id(RUN, "P17", 1)
KEY = SPEC.evidence_key(RUN, EXECUTION, "addendum")


def torn_down() -> tuple[GreenRun, dict[str, Any]]:
    """A torn-down run and its addendum, which is not put yet."""
    run = green_run()
    run.close("P17")
    state = read_log(RUN, run.records).state
    assert state.verdict is not None
    return run, {
        "platform_run_id": RUN, "verdict_sha256": state.verdict.verdict_ref.sha256, "at_us": 1,
        "teardown": {n: sha256_hex(run.objects[SPEC.evidence_key(RUN, EXECUTION, n)]) for n in SPEC.evidence},
        "residue_after_servers": [],
    }  # fmt: skip


def found(run: GreenRun, holds: Holds | None = None) -> list[tuple[str, str]]:
    result = verify(run.objects.__getitem__, read_log(RUN, run.records), holds=holds)
    assert result.result == ("FAIL" if result.mismatches else "PASS")
    assert {m.key for m in result.mismatches} <= {KEY}
    return [(m.why, m.blocker) for m in result.mismatches]


def test_an_addendum_over_the_verdict_verifies_and_so_does_a_run_without_one() -> None:
    run, document = torn_down()
    assert found(run) == []
    run.put(KEY, document | {"digest": digest_of(document)})
    assert found(run) == []


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "is about another run": ({"platform_run_id": "x"}, "DFULL-RUN-B17.1"),
    "is about another verdict": ({"verdict_sha256": "0" * 64}, "DFULL-RUN-B17.1"),
    "is about another teardown": ({"teardown": {}}, "DFULL-RUN-B17.1"),
    "ran on after the servers: ['7 python']": ({"residue_after_servers": ["7 python"]}, "DFULL-RUN-B17"),
}


@pytest.mark.parametrize("why", CASES)
def test_an_addendum_about_something_else_does_not(why: str) -> None:
    run, document = torn_down()
    change, blocker = CASES[why]
    document |= change
    run.put(KEY, document | {"digest": digest_of(document)})
    assert found(run) == [(why, blocker)]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda body: body[:-1], "empty": lambda body: b"", "a list": lambda body: b"[]",
    "no digest": lambda body: b"{}", "spaced": lambda body: body + b" ",
    "later": lambda body: body.replace(b'"at_us":1', b'"at_us":2'),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_no_byte_of_it_can_change(name: str) -> None:
    run, document = torn_down()
    run.objects[KEY] = CHANGES[name](canonical_bytes(document | {"digest": digest_of(document)}))
    assert [blocker for _, blocker in found(run)] == ["DFULL-RUN-B17.1"]


UNSIGNED = [("is not signed by the key that P0 recorded", "DFULL-RUN-B17.1")]


def holds(key: str, body: bytes, signature: str) -> bool:
    """Stands for a real signature: the pure verification is handed the check."""
    return signature == sha256_hex(key.encode() + body)


@pytest.mark.parametrize(
    ("signer", "faults"), [("the key", []), ("another key", UNSIGNED), ("nobody", UNSIGNED), ("an old P0", [])]
)
def test_the_signature_is_by_the_key_that_p0_recorded(
    signer: str, faults: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = {"ops": {} if signer == "an old P0" else {"signing_key": "the key"}}
    close = sample.GreenRun.close

    def closing(run: GreenRun, phase: str, documents: Any = None) -> None:
        close(run, phase, {"stack_snapshots": snapshots} if phase == "P0" else documents)

    monkeypatch.setattr(sample.GreenRun, "close", closing)
    run, document = torn_down()
    signature = sha256_hex(signer.encode() + canonical_bytes(document))
    seals = {"digest": digest_of(document)} | ({} if signer in ("nobody", "an old P0") else {"signature": signature})
    run.put(KEY, document | seals)
    assert found(run, holds) == faults
    assert found(run) == []
