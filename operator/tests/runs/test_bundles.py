"""`fp evidence export` and `fp verify` over a store that lost or changed something; both commands say the same."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from fp_contracts import topics
from fp_contracts.canonical import sha256_hex
from fp_contracts.control import RunResumeRequested, TeardownRehearsed
from fp_contracts.phases import PHASES
from fp_operator import bundles
from fp_operator.pinning import Pinned
from fp_operator.rereading import recorded, reread
from fp_runtime.bus import Out
from fp_runtime.controllog import partition_of_run
from fp_runtime.errors import UserError
from fp_runtime.evidence import FileStore
from fp_runtime.memory import MemoryBus
from fp_verify.log import read_log
from fp_verify.sample import RUN, GreenRun, close_p16, make_config, until_p15

PART = partition_of_run(RUN)


@pytest.fixture(scope="module")
def run() -> GreenRun:
    """A full run that was torn down, with a resume on the way."""
    run = until_p15(GreenRun(0, 1, PART, make_config("full")))
    receipt = run.put(f"evidence/runs/{RUN}/resume/receipt.json", {"phase": "P16"})
    run.say(RunResumeRequested(phase="P16", attempt=1, reset_class="service_runtime", reason="x", actor="y",
                               receipt_ref=receipt))  # fmt: skip
    close_p16(run)
    run.close("P17")
    return run


def exported(run: GreenRun, objects: dict[str, bytes], folder: Path) -> Path:
    store, bus = FileStore(folder / "store"), MemoryBus()
    for key, body in objects.items():
        store.put(key, body)
    bus.create([topics.CONTROL])
    bus.producer().publish([Out(topics.CONTROL, PART, r.key, r.value, b"") for r in run.records])
    bundles.write(store, bus.consumer("g"), Pinned(RUN, PART, 0), folder / "b.tar.gz")
    return folder / "b.tar.gz"


def told(bundle: Path) -> dict[str, Any]:
    """What both commands say, which must be one thing."""
    command = [sys.executable, "-m", "fp_verify", bundle, "-o", "json"]
    alone = subprocess.run(command, capture_output=True, check=False)
    found = bundles.check(bundle)
    assert orjson.loads(alone.stdout) == orjson.loads(orjson.dumps(found))
    assert alone.returncode == (0 if found["result"] == "PASS" else 1)
    return found


def test_what_a_store_still_has_is_exported_and_verifies(run: GreenRun, tmp_path: Path) -> None:
    assert told(exported(run, run.objects, tmp_path))["result"] == "PASS"


CHANGES: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "deleted": (lambda body: None, "DFULL-RUN-B17.1"), "forged": (lambda body: b'{"forged":true}', "DFULL-RUN-B17"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", PHASES["P17"].evidence)
def test_the_teardowns_evidence_is_as_recorded_or_named(
    run: GreenRun, name: str, change: str, tmp_path: Path
) -> None:  # fmt: skip
    key = next(key for key in run.objects if "/teardown/" in key and key.endswith(f"/{name}.json"))
    make, blocker = CHANGES[change]
    body = make(run.objects[key])
    objects = {k: v for k, v in run.objects.items() if k != key} | ({} if body is None else {key: body})
    found = told(exported(run, objects, tmp_path))
    assert (found["result"], [(m["key"], m["blocker"]) for m in found["mismatches"]]) == ("FAIL", [(key, blocker)])


def test_a_damaged_bundle_is_one_line_with_its_fix(run: GreenRun, tmp_path: Path) -> None:
    bundle = exported(run, run.objects, tmp_path)
    body = bundle.read_bytes()
    bundle.write_bytes(body[:3000] + b"\xff" * 100 + body[3100:])
    with pytest.raises(UserError, match="not a bundle"):
        bundles.check(bundle)


def test_a_teardown_hashes_every_reference_of_the_log(run: GreenRun, tmp_path: Path) -> None:
    log, store = read_log(RUN, run.records), FileStore(tmp_path)
    assert any(isinstance(entry.payload, TeardownRehearsed) for entry in log.entries)
    named = {ref.key: ref.sha256 for _, ref in log.refs()}
    assert recorded(log.state) == named
    for key, body in run.objects.items():
        store.put(key, body + b" ")
    found = reread(store, f"evidence/runs/{RUN}/", recorded(log.state))
    assert {key for key, fault in found.items() if fault is not None} == named.keys()
    assert sha256_hex(b"") not in named.values()
