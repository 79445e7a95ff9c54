"""The source revision: from git, from FP_REVISION where git cannot say, else what is missing and the ways out."""

import os
import subprocess
from pathlib import Path

import pytest

from fp_operator.build import find_revision

GIT = """#!/bin/sh
echo "$GIT_SAYS" >&2
exit 128
"""


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FP_REVISION", raising=False)


def with_git(folder: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that refuses with these words."""
    (folder / "git").write_text(GIT)
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_SAYS", says)


def test_a_checkout_says_what_it_is(tmp_path: Path, nameless: None) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert find_revision(tmp_path).text == head


def test_no_checkout(tmp_path: Path, nameless: None) -> None:
    found = find_revision(tmp_path)
    assert (found.text, found.why) == (None, f"{tmp_path} is no git checkout")
    assert found.fix == "work in a clone, or say by FP_REVISION=… what this source is"


def test_no_git(tmp_path: Path, nameless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_revision(tmp_path)
    assert (found.text, found.why) == (None, "git does not run here")
    assert found.fix.startswith("install git, or")


def test_a_checkout_of_somebody_else(tmp_path: Path, nameless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with_git(tmp_path, f"fatal: detected dubious ownership in repository at '{tmp_path}'", monkeypatch)
    found = find_revision(tmp_path)
    assert found.why == f"{tmp_path} belongs to another user, so git does not read it"
    assert found.fix.startswith(f"git config --global --add safe.directory {tmp_path}, or")


def test_anything_else_is_told_in_the_words_of_git(
    tmp_path: Path, nameless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_git(tmp_path, "fatal: bad object HEAD", monkeypatch)
    assert find_revision(tmp_path).why == "fatal: bad object HEAD"


def test_who_says_it_is_believed_where_git_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FP_REVISION", "v1.2")
    assert find_revision(tmp_path).text == "v1.2"
