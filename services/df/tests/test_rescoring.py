"""Train/serve parity as df answers for it: its own vectors, its own way to scores, and what it says when it cannot."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import BundleRescored
from fp_contracts.derive import vector_bytes, vector_text
from fp_contracts.fold import RunState
from fp_contracts.reasons import Action
from fp_contracts.registry import BundlePublished
from fp_df import rescoring, sample
from fp_df.domain import Scored
from fp_df.member import Shared
from fp_df.rescoring import rescore
from fp_features import pack, unpack
from fp_runtime.evidence import FileStore

from .learning import T1, Learning, make


@pytest.fixture
def decided(kit: Any, tmp_path: Path) -> Learning:
    learning = make(kit, tmp_path)
    learning.run()
    return learning


def bodies(learning: Learning) -> list[bytes]:
    return [body for _, _, body in learning.world.results()["DECISION"]]


def offered(learning: Learning, event_ids: Sequence[str], **changed: Any) -> BundlePublished:
    rows = learning.store.put("training/rows.json", canonical_bytes({"event_ids": list(event_ids)}))
    found = learning.promotion(learning.bundle(), T1, eval_rows=rows, **changed)[0]
    assert isinstance(found, BundlePublished)
    return found


def expected(learning: Learning, event_ids: Sequence[str]) -> str:
    vectors = {one["source_event"]["event_id"]: unpack(vector_bytes(one["feature_vector"]))
               for one in (orjson.loads(body)["payload"] for body in bodies(learning))}  # fmt: skip
    scored = learning.models().score(learning.bundle(), [vectors[one] for one in event_ids])
    return hashlib.sha256(pack([one.score for one in scored if one.score is not None])).hexdigest()


IDS = [f"auth-{number}" for number in range(55, 3, -2)]


def answer(learning: Learning, event_ids: Sequence[str] = IDS, models: Any = None) -> BundleRescored:
    return rescore(offered(learning, event_ids), learning.store, bodies(learning), models or learning.models())


def test_the_digest_is_that_of_the_scores_in_the_order_of_the_rows(
    decided: Learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(decided)
    assert (found.rows, found.missing, found.reason) == (len(IDS), 0, "")
    assert found.scores_sha256 == expected(decided, IDS) != expected(decided, sorted(IDS))
    monkeypatch.setattr(rescoring, "_BATCH", 7)
    assert answer(decided) == found


def test_a_vector_that_was_served_otherwise_gives_another_digest(decided: Learning) -> None:
    (body,) = [body for body in bodies(decided) if b'"auth-21"' in body]
    payload = orjson.loads(body)
    amount, *others = unpack(vector_bytes(payload["payload"]["feature_vector"]))
    payload["payload"]["feature_vector"] = vector_text(pack([amount + 1.0, *others]))
    changed = [orjson.dumps(payload) if one == body else one for one in bodies(decided)]
    found = rescore(offered(decided, IDS), decided.store, changed, decided.models())
    assert found.scores_sha256 not in (None, expected(decided, IDS))


def test_rows_that_were_never_decided_are_missing(decided: Learning) -> None:
    found = answer(decided, [*IDS, "auth-never"])
    assert (found.rows, found.missing, found.scores_sha256) == (len(IDS) + 1, 1, None)
    assert "never decided" in found.reason


def test_a_bundle_that_does_not_open_has_no_scores(decided: Learning) -> None:
    asked = offered(decided, IDS)
    decided.file(asked.bundle, "model.json").unlink()
    found = rescore(asked, decided.store, bodies(decided), decided.models())
    assert (found.scores_sha256, found.rows) == (None, len(IDS))
    assert "no model.json" in found.reason


def test_rows_that_do_not_read_back_are_no_evaluation(decided: Learning) -> None:
    asked = offered(decided, IDS)
    path = decided.root / "training/rows.json"
    path.chmod(0o644)
    path.write_bytes(b"{}")
    found = rescore(asked, decided.store, bodies(decided), decided.models())
    assert (found.scores_sha256, found.rows) == (None, 0)
    assert "do not read back" in found.reason


def test_a_row_without_a_score_is_no_score(decided: Learning) -> None:
    scorer = SimpleNamespace(
        fault=lambda _: None,
        score=lambda _, rows: [Scored(None if at == 1 else 0.5, Action.ALLOW) for at in range(len(rows))],
    )
    found = answer(decided, models=scorer)
    assert (found.scores_sha256, found.reason) == (None, "1 rows have no score")


def test_one_member_answers_once_for_each_published_bundle(decided: Learning) -> None:
    asked = offered(decided, IDS)
    decided.say(asked, asked.model_copy(update={"eval_rows": None, "bundle": decided.bundle(policy_rev="spine-v0")}))
    calls: list[str] = []

    def rescored(_: str, one: BundlePublished) -> BundleRescored:
        calls.append(one.bundle.bundle_id)
        return rescore(one, FileStore(decided.root), bodies(decided), decided.models())

    whole, other = decided.run(), decided.decider((1, 2))
    shared = Shared(whole, decided.world.plan, rescore=rescored)
    ((event, _),) = [one for one in shared.react(RunState(sample.RUN)) if isinstance(one[0], BundleRescored)]
    assert isinstance(event, BundleRescored)
    assert event.scores_sha256 == expected(decided, IDS)
    assert calls == [asked.bundle.bundle_id]
    state = RunState(sample.RUN, rescored=(event,))
    assert not [one for one in shared.react(state) if isinstance(one[0], BundleRescored)]
    assert not list(Shared(other, decided.world.plan, rescore=rescored).react(RunState(sample.RUN)))
    assert len(calls) == 1


def test_a_bundle_of_another_run_is_not_this_runs(decided: Learning) -> None:
    asked = offered(decided, IDS)
    decided.say(asked, scope=asked.scope.model_copy(update={"environment": "local.another"}))
    assert decided.run().offered() == []
