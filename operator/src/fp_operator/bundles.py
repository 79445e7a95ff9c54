"""A run's evidence as a bundle that verifies without any service, and the verification itself."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_operator import signing
from fp_operator.pinning import Pinned
from fp_runtime.bus import Consumer
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceKeyError, EvidenceMissing, EvidenceStore
from fp_runtime.readback import read_back
from fp_verify.bundle import BundleError, export, load, verify_bundle
from fp_verify.log import RawRecord


def run_root(run: str) -> str:
    """Prefix of a run's evidence."""
    return f"evidence/runs/{run}/"


def kept(folder: Path, run: str) -> Path:
    """Where the bundle goes that is made when a run comes to its verdict."""
    return folder / "bundles" / f"{run}.tar.gz"


def free_name(folder: Path, run: str) -> Path:
    """Where a bundle of the run goes when nobody says: a file that is not there yet."""
    names = (kept(folder, run if n == 1 else f"{run}.{n}") for n in count(1))
    return next(name for name in names if not name.exists())


def control_records(consumer: Consumer, pinned: Pinned) -> list[RawRecord]:
    """Every control record of the run's partition from its pin to the end as of now. Unavailable as `read_back`."""
    tp = (topics.CONTROL, pinned.partition)
    return [RawRecord(r.offset, r.key or b"", r.value) for r in read_back(consumer, {tp: pinned.offset})]


def write(store: EvidenceStore, consumer: Consumer, pinned: Pinned, out: Path) -> int:
    """Export the run's evidence and control log; number of objects. UserError when the target exists already.

    What the log names and the store does not have is left out: `fp verify` says so.
    """
    if out.exists():
        raise UserError(f"bundle {out}", "exists already", "remove it, or name another one with --out")
    keys = [stored.key for stored in store.list(run_root(pinned.run))]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return export(pinned.run, partial(_read, store), keys, control_records(consumer, pinned), out)
    except OSError as error:
        raise UserError(f"bundle {out}", str(error), "choose another place with --out") from error


def _read(store: EvidenceStore, key: str) -> bytes:
    try:
        return store.get(key)
    except (EvidenceMissing, EvidenceKeyError) as error:
        raise KeyError(key) from error


def check(bundle: Path) -> dict[str, Any]:
    """{"result","objects","mismatches":[{key,why,blocker}],"verdict","spine_verdict"}; UserError for no bundle."""
    if not bundle.exists():
        raise UserError(f"bundle {bundle}", "there is no such file or folder", "make one: `fp evidence export`")
    try:
        return asdict(verify_bundle(load(bundle), holds=signing.holds))
    except BundleError as error:
        raise UserError(f"bundle {bundle}", str(error), "give what `fp evidence export` wrote") from error


def producers(state: RunState) -> Mapping[str, tuple[str, int, str]]:
    """key -> (phase, attempt, sha256) of every object that a gate of the run names."""
    return {
        ref.key: (event.phase, event.attempt, ref.sha256) for event in state.history for ref in event.evidence
    }  # fmt: skip
