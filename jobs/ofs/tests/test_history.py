"""The history of a dataset name: append-only, one mover at a time, and a rollback that really happened."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import HistoryEntry
from fp_ofs.errors import Blocked
from fp_ofs.history import History, execute_recipe
from fp_runtime.evidence import EvidenceConflict, FileStore

OLD, NEW = "a" * 64, "b" * 64


def ref(fingerprint: str) -> EvidenceRef:
    return EvidenceRef(key=f"datasets/{fingerprint}/manifest.json", sha256=fingerprint, size=1)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


@pytest.fixture
def history(store: FileStore) -> History:
    return History(store, "core")


def run(
    history: History, fingerprint: str, verify: Callable[[EvidenceRef], None] = lambda _: None
) -> dict[str, object]:
    return execute_recipe(history, fingerprint, ref(fingerprint), verify)


def moves(history: History) -> list[tuple[int, str, str | None]]:
    return [(entry.n, entry.move, entry.dataset_fingerprint) for entry in history.entries()]


def test_the_first_dataset_goes_back_to_none_and_comes_again(history: History) -> None:
    done = run(history, OLD)
    assert done["ok"] is True
    assert done["previous"] == "none"
    assert moves(history) == [(1, "activate", OLD), (2, "roll_back", None), (3, "re_activate", OLD)]


def test_the_next_one_goes_back_to_the_one_before_which_is_read(history: History) -> None:
    run(history, OLD)
    read: list[EvidenceRef] = []
    done = run(history, NEW, read.append)
    assert moves(history)[3:] == [(4, "activate", NEW), (5, "roll_back", OLD), (6, "re_activate", NEW)]
    assert done["previous"] == OLD
    assert read == [ref(OLD)]
    assert run(history, "c" * 64)["previous"] == NEW
    assert moves(history)[7] == (8, "roll_back", NEW)


def test_a_dataset_that_does_not_read_back_is_no_place_to_go_back_to(history: History) -> None:
    run(history, OLD)

    def broken(_: EvidenceRef) -> None:
        raise Blocked("DFULL-RUN-B13.1", "gone")

    with pytest.raises(Blocked):
        run(history, NEW, broken)
    assert moves(history)[-1] == (4, "activate", NEW)


@pytest.mark.parametrize("kills_after", [1, 2, 3])
def test_an_execution_that_was_killed_goes_on_and_says_the_same(tmp_path: Path, kills_after: int) -> None:
    whole = History(FileStore(tmp_path / "whole"), "core")
    wanted = run(whole, OLD)
    store = FileStore(tmp_path / "killed")
    for entry in whole.entries()[:kills_after]:
        store.put(f"datasets/history/core/{entry.n:08d}.json", FileStore(tmp_path / "whole").get(
            f"datasets/history/core/{entry.n:08d}.json"))  # fmt: skip
    assert run(History(store, "core"), OLD) == wanted
    assert run(History(store, "core"), OLD) == wanted


class Racing(FileStore):
    """A store in which somebody else takes entry n just before this one puts it."""

    def __init__(self, root: Path, races: int) -> None:
        super().__init__(root)
        self.races = races

    def put(self, key: str, body: bytes) -> EvidenceRef:
        if self.races and "/history/" in key:
            self.races -= 1
            entry = HistoryEntry.model_validate_json(body)
            theirs = entry.model_copy(update={"cause": "c" * 64, "dataset_fingerprint": "c" * 64})
            super().put(key, theirs.model_dump_json().encode())
        return super().put(key, body)


def test_of_two_movers_one_loses_and_moves_after_the_winner(tmp_path: Path) -> None:
    history = History(Racing(tmp_path, 2), "core")
    entry = history.move("activate", NEW, ref(NEW), NEW)
    assert (entry.n, entry.previous_n) == (3, 2)
    assert [found.dataset_fingerprint for found in history.entries()] == ["c" * 64, "c" * 64, NEW]


def test_a_mover_that_always_loses_gives_up_with_a_blocker(tmp_path: Path) -> None:
    with pytest.raises(Blocked) as caught:
        History(Racing(tmp_path, 99), "core").move("activate", NEW, ref(NEW), NEW)
    assert caught.value.code == "DFULL-RUN-B13.1"


def test_entries_are_never_written_over(history: History, store: FileStore) -> None:
    history.move("activate", OLD, ref(OLD), OLD)
    with pytest.raises(EvidenceConflict):
        store.put("datasets/history/core/00000001.json", b"{}")


def test_a_history_with_a_missing_entry_blocks(history: History, store: FileStore) -> None:
    history.move("activate", OLD, ref(OLD), OLD)
    body = store.get("datasets/history/core/00000001.json")
    store.put("datasets/history/core/00000003.json", body)
    with pytest.raises(Blocked, match="lacks entry 2"):
        history.entries()


def test_an_unreadable_entry_blocks(history: History, store: FileStore) -> None:
    store.put("datasets/history/core/00000001.json", b"{}")
    with pytest.raises(Blocked, match="not readable"):
        history.entries()


def test_names_do_not_share_a_history(store: FileStore) -> None:
    History(store, "core").move("activate", OLD, ref(OLD), OLD)
    assert History(store, "core-2").entries() == []
