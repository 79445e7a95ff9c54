"""What the system refuses is one line: what, why and how to mend it; only a broken machine is "unavailable"."""

import errno
import os
from pathlib import Path

import pytest

from fp_operator.stack import Away
from fp_operator.stack.refusals import full_disk, refused
from fp_operator.stack.state import StateFolder


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.ENOSPC, "cannot write /s/lock: its disk is full. Fix: free 1 GB there, then try again"),
        (errno.EROFS, "cannot write /s/lock: its disk is read-only. Fix: mount it for writing, or name another one"),
        (errno.ENOENT, "cannot use /s/lock: No such file or directory. Fix: name another one (the state folder: FP_"),
        (errno.ENOTDIR, "cannot use /s/lock: a file is where a folder is needed. Fix: name another one"),
        (errno.EEXIST, "cannot use /s/lock: a file is where a folder is needed. Fix: name another one"),
    ],
)
def test_each_refusal_is_told_with_its_place(code: int, line: str) -> None:
    found = refused(OSError(code, os.strerror(code), "/s/lock"))
    assert str(found).startswith(line)
    assert isinstance(found, Away) == (code in (errno.ENOSPC, errno.EROFS))


def test_a_folder_of_somebody_else_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 12_345)
    found = refused(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "not" / "there")))
    assert "it belongs to " in found.why
    assert f"and this runs as user {tmp_path.stat().st_uid + 12_345}" in found.why


def test_a_file_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fault = StateFolder(tmp_path / "file").fault()
    assert fault is not None
    assert fault.why == "a file is where a folder is needed"
    assert StateFolder(tmp_path).fault() is None


def test_a_full_disk_is_known_by_the_words_of_a_server() -> None:
    assert full_disk("FATAL:  could not write lock file: No space left on device")
    assert not full_disk("connection refused")
