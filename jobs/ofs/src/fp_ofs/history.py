"""The append-only history of a dataset name: which dataset is active, moved by compare-and-set, never rewritten.

Entry n lies under a key of its own and is put write-once, so that of two movers who both saw n − 1 one loses.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import ROOT, HistoryEntry
from fp_ofs.errors import MANIFEST, Blocked
from fp_runtime.evidence import EvidenceConflict, EvidenceStore, put_json

Move = Literal["activate", "roll_back", "re_activate"]
_ATTEMPTS = 5
_RECIPE = (
    "1. read the history of the dataset name to its last entry n; what it names is active",
    "2. find the entry that the one to be undone names as previous_n: it names the dataset to go back to, or none",
    "3. read that dataset's manifest by its ref, then every file the manifest names, by hash and size",
    "4. put entry n + 1 with move roll_back; a conflict means that somebody moved first: start again",
    "5. read the history again: the last entry must name the dataset gone back to",
)


class History:
    """Moves of one dataset name in a write-once store."""

    def __init__(self, store: EvidenceStore, name: str) -> None:
        self._store = store
        self._name = name
        self._prefix = f"{ROOT}/history/{name}/"

    def entries(self) -> list[HistoryEntry]:
        """Every move, oldest first; Blocked B13.1 when one is missing or unreadable."""
        found = []
        for n, stored in enumerate(self._store.list(self._prefix), start=1):
            if stored.key != self._key(n):
                raise Blocked(MANIFEST, f"the history of dataset {self._name} lacks entry {n}")
            found.append(self._read(stored.key))
        return found

    def _read(self, key: str) -> HistoryEntry:
        try:
            return HistoryEntry.model_validate_json(self._store.get(key))
        except ValueError as error:
            raise Blocked(MANIFEST, f"history entry {key} is not readable: {str(error)[:120]}") from error

    def move(self, move: Move, fingerprint: str | None, manifest: EvidenceRef | None, cause: str) -> HistoryEntry:
        """Append a move after the last one; who loses the race looks again and moves after the winner."""
        for _ in range(_ATTEMPTS):
            last = len(self.entries())
            entry = HistoryEntry(
                n=last + 1, dataset_name=self._name, move=move, dataset_fingerprint=fingerprint, manifest=manifest,
                previous_n=last, cause=cause,
            )  # fmt: skip
            try:
                put_json(self._store, self._key(entry.n), entry.model_dump(mode="json"))
            except EvidenceConflict:
                continue
            return entry
        raise Blocked(MANIFEST, f"the history of dataset {self._name} moved {_ATTEMPTS} times under this build")

    def _key(self, n: int) -> str:
        return f"{self._prefix}{n:08d}.json"


def execute_recipe(
    history: History, fingerprint: str, manifest: EvidenceRef, verify: Callable[[EvidenceRef], None]
) -> dict[str, Any]:
    """Activate a dataset, go back to the one before, activate it again: the document that says what really happened.

    `verify` reads a manifest and all it names; a dataset that does not read back is no place to go back to. A killed
    execution goes on where its own moves end, so the document is the same.
    """
    mine = [entry for entry in history.entries() if entry.cause == fingerprint]
    for move in ("activate", "roll_back", "re_activate")[len(mine) :]:
        if move == "roll_back":
            before = _before(history.entries(), mine[0])
            if before.manifest is not None:
                verify(before.manifest)
            mine.append(history.move("roll_back", before.dataset_fingerprint, before.manifest, fingerprint))
        else:
            forward: Move = "activate" if move == "activate" else "re_activate"
            mine.append(history.move(forward, fingerprint, manifest, fingerprint))
    entries = history.entries()
    return {
        "recipe": list(_RECIPE),
        "executed": [
            {"n": entry.n, "move": entry.move, "active_after": _named(entries[entry.n - 1])} for entry in mine
        ],
        "previous": _named(_before(entries, mine[0])),
        "ok": _holds(entries, mine, fingerprint),
    }


def _before(entries: Sequence[HistoryEntry], entry: HistoryEntry) -> HistoryEntry:
    """The entry that was active before `entry`; one that names no dataset when it was the first."""
    if entry.previous_n:
        return entries[entry.previous_n - 1]
    return entry.model_copy(update={"dataset_fingerprint": None, "manifest": None})


def _named(entry: HistoryEntry) -> str:
    return entry.dataset_fingerprint or "none"


def _holds(entries: Sequence[HistoryEntry], mine: Sequence[HistoryEntry], fingerprint: str) -> bool:
    """Whether the moves read back as they were made: this dataset, the one before, this dataset."""
    wanted = (fingerprint, _before(entries, mine[0]).dataset_fingerprint, fingerprint)
    return tuple(entries[entry.n - 1].dataset_fingerprint for entry in mine) == wanted
