"""Both companion authorities must be there, byte for byte, with all five handle classes."""

import shutil
from pathlib import Path

import pytest

from fp_contracts.canonical import sha256_hex
from fp_operator import authority, project
from fp_runtime.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(project.root() / "docs" / "authority", tmp_path / "authority"))


def test_the_committed_authorities_are_as_pinned(folder: Path) -> None:
    known = authority.load(folder)
    assert {handle.handle_class for handle in known.handles} == set(authority.CLASSES)


@pytest.mark.parametrize("name", ["design-authority.md", "handles.toml", "pins.toml"])
def test_a_missing_document_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        authority.load(folder)


@pytest.mark.parametrize("name", ["design-authority.md", "handles.toml"])
def test_a_drifted_document_is_named(folder: Path, name: str) -> None:
    with (folder / name).open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=f"{name}: drifted"):
        authority.load(folder)


def test_a_missing_handle_class_is_named(folder: Path) -> None:
    path = folder / authority.HANDLES
    before = path.read_bytes()
    path.write_bytes(before.replace(b'class = "lock"', b'class = "topic"'))
    pins = folder / authority.PINS
    pins.write_text(pins.read_text().replace(sha256_hex(before), sha256_hex(path.read_bytes())))
    with pytest.raises(UserError, match="without a handle: lock"):
        authority.load(folder)
