"""The committed JSON Schemas are current: a change of a contract shows as a diff."""

import subprocess
import sys
from pathlib import Path


def dump(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fp_contracts.schema", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_committed_schemas_are_current() -> None:
    done = dump("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_drift_is_named_and_written_away(tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path)]
    assert dump("--write", *folder).returncode == 0
    (tmp_path / "traffic.json").write_text("{}")
    (tmp_path / "foreign.json").write_text("{}")
    done = dump("--check", *folder)
    assert done.returncode == 1
    assert "foreign.json, traffic.json" in done.stdout
    assert dump("--write", *folder).returncode == 0
    assert dump("--check", *folder).returncode == 0
