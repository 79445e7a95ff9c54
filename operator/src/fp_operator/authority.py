"""The two companion authorities (spec §7): execution is blocked until both are present and as pinned."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fp_contracts.canonical import digest_of, sha256_hex
from fp_runtime.errors import UserError

PINS = "pins.toml"
HANDLES = "handles.toml"
CLASSES = ("iam_role", "secret_path", "topic", "s3_path_pattern", "lock")


@dataclass(frozen=True, slots=True)
class Authority:
    """Both documents as read: digest over their hashes, and the typed handle registry."""

    digest: str
    handles_digest: str
    handles: tuple["Handle", ...]


@dataclass(frozen=True, slots=True)
class Handle:
    """One required handle: its class, its name in the spec's words, and what realises it in a profile."""

    name: str
    handle_class: str
    local: str
    dev_full: str
    purpose: str


def load(folder: Path) -> Authority:
    """Read and check `docs/authority`; UserError names the document that is missing or drifted and the way back."""
    pins = _read(folder / PINS)
    hashes: dict[str, str] = {}
    for entry in tomllib.loads(pins.decode())["document"]:
        path = folder / str(entry["file"])
        found = sha256_hex(_read(path))
        if found != entry["sha256"]:
            raise UserError(
                f"authority {path.name}", f"drifted: sha256 {found[:12]}…, pinned {str(entry['sha256'])[:12]}…",
                "restore the file, or repin it in pins.toml by a reviewed change",
            )  # fmt: skip
        hashes[str(entry["spec_path"])] = found
    registry = tomllib.loads(_read(folder / HANDLES).decode())
    handles = tuple(_handle(entry) for entry in registry["handle"])
    missing = [name for name in CLASSES if name not in {handle.handle_class for handle in handles}]
    if missing:
        raise UserError("handle registry", f"handle classes without a handle: {', '.join(missing)}", "add them")
    return Authority(digest_of(hashes), digest_of(registry), handles)


def _handle(entry: dict[str, Any]) -> Handle:
    try:
        return Handle(entry["name"], entry["class"], entry["local"], entry["dev_full"], entry["purpose"])
    except KeyError as error:
        raise UserError(
            f"handle {entry.get('name', '?')}", f"has no {error.args[0]}", "complete it in handles.toml"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"authority {path.name}", "missing", f"restore {path.name} under docs/authority") from error
