"""The undisturbed run that a demo compares with: remembered by what was pinned, believed only as its proof reads now.

Two runs agree or not only when they pin the same: the digest of a run's configuration covers world, windows, policies,
feature schema and code. A run that was drilled is never a reference.
"""

from dataclasses import dataclass
from pathlib import Path

import orjson

from fp_contracts.fold import RunState
from fp_contracts.runconfig import RunConfig, config_digest
from fp_operator import bundles, results
from fp_operator.following import over
from fp_operator.runs import Reader
from fp_runtime.errors import UserError
from fp_runtime.evidence import open_store

FILE = "references.json"


@dataclass(frozen=True, slots=True)
class Reference:
    """An undisturbed run: its state as folded now, its bundle as verified now, the fingerprints it came to."""

    state: RunState
    bundle: Path
    fingerprints: dict[str, str]


def remember(folder: Path, config: RunConfig, run: str, bundle: Path) -> None:
    """Keep where the reference of a configuration lies, whole or not at all."""
    entries = known(folder) | {config_digest(config): {"run": run, "bundle": str(bundle)}}
    part = (folder / FILE).with_suffix(".part")
    part.write_bytes(orjson.dumps(entries))
    part.replace(folder / FILE)


def recall(reader: Reader, config: RunConfig) -> Reference | None:
    """The reference of a configuration; None when there is none, or anything of its proof does not hold any more."""
    folder = reader.environment.state_dir
    entry = known(folder).get(config_digest(config))
    if entry is None:
        return None
    try:
        state, bundle = reader.state(entry["run"]), Path(entry["bundle"])
        if bundles.check(bundle)["result"] != "PASS" or not undisturbed(state, config):
            return None
        found = results.fingerprints(open_store(reader.environment.addresses.evidence_url), state)
    except UserError:
        return None
    return Reference(state, bundle, found) if found else None


def undisturbed(state: RunState, config: RunConfig) -> bool:
    """Whether a run pinned this configuration, came to a verdict, and nothing was killed in it on purpose."""
    pinned = state.header is not None and state.header.run_config_digest == config_digest(config)
    return pinned and over(state) == "verdict" and not state.drills


def known(folder: Path) -> dict[str, dict[str, str]]:
    """Digest of a configuration -> {"run","bundle"}; empty when nothing is remembered, or not whole."""
    try:
        found: dict[str, dict[str, str]] = orjson.loads((folder / FILE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return found
