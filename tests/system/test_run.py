"""Whole runs through the `fp` command alone, on the embedded stack: green, disturbed, killed, forged, torn down."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import ORDER, SPINE
from fp_contracts.proofs import PROOFS
from fp_operator.stack import Supervisor, down
from fp_operator.stack.state import StateFolder
from fp_operator.stack.tether import MARK
from fp_runtime.deadline import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

FP = str(Path(sys.executable).with_name("fp"))
KILLED = ("wsp-0", "ig-0", "rtdl-0", "archive-0", "df-0", "actions-0", "cm_ls-0", "sr-0", "verdict-0")


class Cell:
    """One environment; `fp` runs the command against it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {key for key in os.environ if not key.startswith("FP_") or key == "FP_REVISION"}
        self.env = {key: os.environ[key] for key in kept}
        self.env["FP_STATE_DIR"] = str(folder)

    def fp(self, *words: str, code: int | None = 0) -> str:
        """Standard output of `fp …`; the exit code must be `code` (None = any)."""
        done = subprocess.run([FP, *words], env=self.env, capture_output=True, text=True, timeout=600)
        assert code is None or done.returncode == code, f"fp {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *words: str, code: int | None = 0) -> Any:
        return json.loads(self.fp(*words, "-o", "json", code=code))


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    """An environment that is up; stopped and gone at the end."""
    with tempfile.TemporaryDirectory(prefix="fp-run-") as name:
        Path(name).chmod(0o755)
        found = Cell(Path(name))
        try:
            found.fp("up")
            yield found
        finally:
            down(Path(name))


@pytest.fixture(scope="module")
def reference(cell: Cell) -> dict[str, str]:
    """Fingerprints of an undisturbed run."""
    ended = cell.json("run", "--world", "tiny", "--no-drill", code=3)
    proven(ended)
    return fingerprints(cell, ended["platform_run_id"])


@pytest.fixture(scope="module")
def drilled(cell: Cell, reference: dict[str, str]) -> dict[str, Any]:
    """A run in which one rtdl member was really killed."""
    ended: dict[str, Any] = cell.json("run", "--world", "tiny")
    return ended


def proven(ended: dict[str, Any]) -> None:
    """Every spine phase passed, every equation holds."""
    states = {row["phase"]: row["state"] for row in ended["phases"]}
    assert {phase for phase in SPINE if states[phase] != "PASS"} == set()
    assert ended["equations"]
    assert [equation for equation in ended["equations"] if not equation["ok"]] == []


def fingerprints(cell: Cell, run: str) -> dict[str, str]:
    results: dict[str, Any] = json.loads(cell.fp("evidence", "show", "non_regression", run))["results"]
    return {name: value for name, value in results.items() if name.endswith("_fingerprint")}


def test_a_run_with_a_killed_member_is_green_and_equal(
    cell: Cell, reference: dict[str, str], drilled: dict[str, Any]
) -> None:
    proven(drilled)
    assert drilled["spine_verdict"] == "GREEN"
    assert len(reference) >= 4
    assert fingerprints(cell, drilled["platform_run_id"]) == reference
    assert json.loads((cell.folder / "latest.json").read_text())["bundle"] == drilled["bundle"]


def test_its_bundle_verifies_and_one_flipped_byte_does_not(cell: Cell, drilled: dict[str, Any], tmp_path: Path) -> None:
    found = cell.json("verify", drilled["bundle"])
    assert (found["result"], found["spine_verdict"], found["mismatches"]) == ("PASS", "GREEN", [])
    assert cell.json("watch", drilled["platform_run_id"])["bundle"] == drilled["bundle"]  # no second one
    with tarfile.open(drilled["bundle"]) as tar:  # file by file: extractall asks for a filter that 3.11.3 does not know
        for member in tar.getmembers():
            if (file := tar.extractfile(member)) is not None:
                (tmp_path / member.name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / member.name).write_bytes(file.read())
    (victim,) = tmp_path.rglob("core_snapshot.json")
    body = bytearray(victim.read_bytes())
    body[len(body) // 2] ^= 1
    victim.write_bytes(body)
    found = cell.json("verify", str(tmp_path), code=1)
    assert found["result"] == "FAIL"
    assert victim.relative_to(tmp_path).as_posix() in {mismatch["key"] for mismatch in found["mismatches"]}


def test_a_payment_can_be_followed_and_every_read_verb_answers(cell: Cell, drilled: dict[str, Any]) -> None:
    run = drilled["platform_run_id"]
    records = cell.json("tail", "traffic", "-n", "40")["records"]
    event = next(record["body"]["event_id"] for record in records if record["kind"] == "AUTH_REQUEST")
    steps = cell.json("trace", event, "--run", run)["steps"]
    assert [step["step"] for step in steps[:4]] == ["admission", "snapshot", "decision", "audit"]
    assert steps[1]["snapshot_hash"] == steps[2]["snapshot_hash"]
    assert steps[0]["offset"] is not None
    assert cell.json("why", "P12", run)["waits_for"] == []
    held_up = cell.json("why")
    assert held_up["phase"] == "P16"
    assert "fp run --scope full" in held_up["next"]
    assert cell.json("cost", run)["sums_agree"]
    assert {row["lag"] for row in cell.json("lag", run)["stages"]} == {0}
    assert all(row["sha256"] for row in cell.json("evidence", "ls", run)["objects"])
    assert cell.json("doctor")["ok"]


def test_mistakes_are_told_in_one_line(cell: Cell, drilled: dict[str, Any]) -> None:
    used = ("run", "--world", "tiny", "--platform_run_id", drilled["platform_run_id"])
    for words in (
        ("why", "P99"),
        ("trace", "nothing"),
        ("run", "--platform_run_id", "x"),
        ("verify", "/nowhere"),
        used,
    ):
        done = subprocess.run([FP, *words], env=cell.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert "Fix: " in line
    cell.fp("resume", "--from", "P8", "--reason", "not blocked", code=2)


def test_a_full_run_of_a_world_too_small_to_learn_from_blocks_by_name_and_can_be_resumed(
    cell: Cell, reference: dict[str, str]
) -> None:
    ended = cell.json("run", "--world", "tiny", "--scope", "full", "--approve-as", "reviewer", code=3)
    states = {row["phase"]: row["state"] for row in ended["phases"]}
    assert [states[phase] for phase in ("P11", "P12", "P13", "P14", "P15", "P16")] == ["PASS"] * 3 + [
        "BLOCKED", "OPEN", "OPEN"
    ]  # fmt: skip
    assert blockers_of(ended, "P14") == {"DFULL-RUN-B14"}
    run = ended["platform_run_id"]
    built = evidence_of(cell, run, "learning/ofs", "fingerprint")
    killed, manifest = built["job"]["ended"]["killed"], evidence_of(cell, run, "learning/ofs", "manifest")["document"]
    assert (killed["outcome"], killed["reason"]) == ("KILLED", "signal 9")
    assert [(ref["key"], ref["sha256"]) for ref in killed["left"]] == [
        (file["key"], file["sha256"]) for file in manifest["files"]
    ]
    shown = evidence_of(cell, run, "learning/ofs", "telemetry")
    assert shown["missing"] == []
    assert {point["attributes"]["job"] for point in shown["points"]} == {shown["subject"]}
    cell.fp("resume", run, "--from", "P14", "--reason", "see that the run is still open")
    again = cell.json("watch", run, "--timeout", "400", code=3)
    (row,) = [row for row in again["phases"] if row["phase"] == "P14"]
    assert (row["state"], row["attempt"]) == ("BLOCKED", 2)
    assert blockers_of(again, "P14") == {"DFULL-RUN-B14"}
    rehearsed = cell.json("rehearse", run, "--reason", "a run that waits can still be rehearsed")
    assert rehearsed["cells"] == dict.fromkeys(PROOFS, "")
    waived = cell.json("waive", "non_regression", run, "--reason", "a stranger to its baseline", "--hours", "1")
    assert (waived["platform_run_id"], waived["waives"]) == (run, "non_regression")
    cell.fp("waive", "everything", run, code=2)
    cell.fp("stop", run, "--reason", "the world is too small to learn from")
    cell.fp("rehearse", run, code=2)
    cell.fp("waive", "non_regression", run, "--reason", "too late", code=2)


def evidence_of(cell: Cell, run: str, folder: str, name: str) -> Any:
    """A document of a phase's only attempt."""
    (path,) = (cell.folder / "evidence" / "evidence" / "runs" / run / folder).glob(f"*/{name}.json")
    return json.loads(path.read_bytes())


def blockers_of(ended: dict[str, Any], phase: str) -> set[str]:
    """Blocker codes of a phase."""
    (row,) = [row for row in ended["phases"] if row["phase"] == phase]
    return {blocker["code"] for blocker in row["blockers"]}


def test_a_service_of_each_kind_killed_in_mid_run_changes_nothing(cell: Cell, reference: dict[str, str]) -> None:
    cell.fp("run", "--world", "tiny", "--no-drill", "--pace", "150", "--detach")
    run = json.loads((cell.folder / "latest.json").read_text())["platform_run_id"]
    until(lambda: state_of(cell, run, "P5") == "PASS" or None, 240, "the stream begins", interval_s=0.5)
    second = subprocess.run([FP, "demo"], env=cell.env, capture_output=True, text=True, timeout=120)
    assert second.returncode == 2
    assert f"run {run}: is open" in second.stderr.replace("\n", " ")
    supervisor = Supervisor(cell.folder)
    cases = f"http://127.0.0.1:{StateFolder(cell.folder).ports()['service:cm_ls']}/v1/cases"
    for scope, status in (("case_read", 200), ("traffic_fraud", 403)):
        token = cell.fp("token", scope, "--run", run).strip()
        assert httpx.get(cases, headers={"Authorization": f"Bearer {token}"}).status_code == status
    for name in KILLED:
        pid = supervisor.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: supervisor.pid(name) not in (None, pid) or None, 60, f"{name} is back")  # noqa: B023
    ended = cell.json("watch", run, "--timeout", "400", code=3)
    proven(ended)
    assert fingerprints(cell, run) == reference


def state_of(cell: Cell, run: str, phase: str) -> str:
    rows = cell.json("status", run, code=None)["phases"]
    return next(str(row["state"]) for row in rows if row["phase"] == phase)


def test_down_closes_p17_and_the_evidence_stays_readable(cell: Cell, drilled: dict[str, Any], tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: str(cell.folder)}) as stray:
        blocked = cell.json("down", "--reason", "something of ours still runs", code=3)
        stray.kill()
    assert blocked["p17"] == "BLOCKED"
    cell.fp("up")
    ended = cell.json("down", "--reason", "end of the test")
    assert (ended["p17"], ended["left"]) == ("PASS", [])
    assert ended["phases"] == {"closed": len(SPINE) + 1, "of": len(ORDER)}
    assert state_of(cell, ended["run"], "P17") == "PASS"
    last = f"{phase_execution_id(ended['run'], 'P17', 2)}/addendum"
    assert "verdict_sha256" in cell.fp("evidence", "show", last, ended["run"])
    assert cell.json("verify", drilled["bundle"])["result"] == "PASS"
    closed = tmp_path / "closed"
    cell.fp("evidence", "export", ended["run"], "--out", str(closed))
    assert cell.json("verify", str(closed))["result"] == "PASS"
    (addendum,) = closed.rglob(f"{last}.json")
    document = json.loads(addendum.read_text())
    addendum.write_text(json.dumps(document | {"signature": "0" * 128}, sort_keys=True, separators=(",", ":")))
    assert "DFULL-RUN-B17.1" in {fault["blocker"] for fault in cell.json("verify", str(closed), code=1)["mismatches"]}
