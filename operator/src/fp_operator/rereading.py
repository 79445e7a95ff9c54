"""Evidence after a teardown: every object read and hashed again, against what was recorded of it.

`python -m fp_operator.rereading STORE PREFIX` prints what it finds below a prefix: a reader that wrote none of it.
"""

import os
import sys
from collections.abc import Mapping

import orjson

from fp_contracts.canonical import sha256_hex
from fp_contracts.fold import RunState
from fp_operator import bundles
from fp_runtime.evidence import EvidenceKeyError, EvidenceMissing, EvidenceStore, open_store


def recorded(state: RunState) -> Mapping[str, str]:
    """key -> sha256 of every object that the control log of a run names."""
    named = {key: sha256 for key, (_, _, sha256) in bundles.producers(state).items()}
    refs = [ref for told in state.rehearsals for ref in (*told.evidence, *told.outlived)]
    refs += [ended.ledger_ref for ended in state.windows_ended.values()]
    refs += [said.report_ref for said in state.reconciled.values()]
    refs += [asked.receipt_ref for asked in state.resumes]
    refs += [] if state.header_ref is None else [state.header_ref]
    refs += [] if state.verdict is None else [state.verdict.verdict_ref]
    return named | {ref.key: ref.sha256 for ref in refs}


def reread(store: EvidenceStore, prefix: str, named: Mapping[str, str]) -> Mapping[str, str | None]:
    """Every named object hashed again, every other one below the prefix read: key -> fault or None."""
    keys = {item.key for item in store.list(prefix)} | set(named)
    return {key: _fault(store, key, named.get(key)) for key in sorted(keys)}


def _fault(store: EvidenceStore, key: str, sha256: str | None) -> str | None:
    try:
        found = sha256_hex(store.get(key))
    except (EvidenceMissing, EvidenceKeyError, OSError) as error:
        return f"not readable: {type(error).__name__}"
    return None if sha256 in (None, found) else f"sha256 {found[:12]}…, recorded {str(sha256)[:12]}…"


def main(url: str, prefix: str) -> None:
    """{"pid", "objects": [{"key","sha256","size"}]} of what is below the prefix, on standard output."""
    store = open_store(url)
    bodies = {item.key: store.get(item.key) for item in store.list(prefix)}
    objects = [{"key": key, "sha256": sha256_hex(body), "size": len(body)} for key, body in sorted(bodies.items())]
    sys.stdout.buffer.write(orjson.dumps({"pid": os.getpid(), "objects": objects}))


if __name__ == "__main__":
    main(*sys.argv[1:])
