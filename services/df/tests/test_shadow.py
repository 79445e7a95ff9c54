"""A challenger is scored beside the decisions and never acts: whatever it does, they come out the same."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from fp_contracts import derive
from fp_contracts import registry as r
from fp_contracts.canonical import canonical_bytes
from fp_contracts.downstream import Decision
from fp_df import sample, service
from fp_df.marks import Truth
from fp_df.replay import Replay, served_of
from fp_df.serving import Served
from fp_df.shadow import Beside, Challenger
from fp_features import pack as pack_vector
from fp_features import unpack
from fp_models import Bundle
from fp_runtime.errors import Unavailable

from .learning import T1, TIMES, Learning, boosted, logistic, make

UNUSABLE, ERRORED = "CHALLENGER_UNUSABLE", "CHALLENGER_ERRORED"


def challenged(kit: Any, root: Path, **more: Any) -> tuple[Learning, Any]:
    """A world whose second half a champion decides, with a challenger that will be scored beside it."""
    learning = make(kit, root, **more)
    challenger = learning.bundle(boosted(), "xgboost")
    learning.challenge(challenger, T1)
    learning.promote(learning.bundle(), T1)
    return learning, challenger


@pytest.fixture(scope="module")
def alone(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the champion decides when nothing is scored beside it."""
    learning = make(kit, tmp_path_factory.mktemp("alone"))
    learning.promote(learning.bundle(), T1)
    learning.run()
    return learning.world.results()


def outcome(results: Any) -> Any:
    """Everything that came out but what decisions say of the challenger."""
    plain = [
        (part, orjson.dumps({**orjson.loads(body), "payload": {**orjson.loads(body)["payload"], "shadow": []}}))
        for part, _, body in results["DECISION"]
    ]
    return plain, results["AUDIT_RECORD"], results["CASE_TRIGGER"], results["ACTION_OUTCOME"]


def shadows(learning: Learning) -> list[Any]:
    return [payload["shadow"] for order_us, payload in learning.decisions() if order_us >= T1]


def test_the_challengers_score_is_told_and_decides_nothing(kit: Any, tmp_path: Path, alone: Any) -> None:
    learning, challenger = challenged(kit, tmp_path)
    decider = learning.run()
    assert outcome(learning.world.results()) == outcome(alone)
    late = [(payload, payload["shadow"]) for order_us, payload in learning.decisions() if order_us >= T1]
    vectors = [unpack(derive.vector_bytes(payload["feature_vector"])) for payload, _ in late]
    wanted = learning.models().score(challenger, vectors)
    for (payload, told), scored in zip(late, wanted, strict=True):
        assert scored.score is not None
        assert told == [{"bundle_ref": r.bundle_text(challenger), "action": scored.action.value, "reason": None,
                         "score": derive.vector_text(pack_vector((scored.score,)))}]  # fmt: skip
        assert Decision.model_validate_json(canonical_bytes(payload)).shadow[0].bundle_ref == told[0]["bundle_ref"]
    assert [payload["shadow"] for order_us, payload in learning.decisions() if order_us < T1] == [[]] * 60
    assert any(told[0]["action"] != "ALLOW" for _, told in late)
    assert (decider.metrics()["challenger_scored"], decider.metrics()["challenger_unscored"]) == (60, 0)


def test_records_with_a_shadow_are_canonical(kit: Any, tmp_path: Path) -> None:
    learning, _ = challenged(kit, tmp_path)
    learning.run()
    for _, _, body in learning.world.results()["DECISION"]:
        assert canonical_bytes(orjson.loads(body)) == body


def gone(learning: Learning, challenger: Any) -> None:
    learning.file(challenger, "model.ubj").unlink()


def spoilt(learning: Learning, challenger: Any) -> None:
    path = learning.file(challenger, "model.ubj")
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [gone, spoilt])
def test_a_challenger_that_cannot_be_opened_says_so_and_disturbs_nothing(
    kit: Any, tmp_path: Path, alone: Any, harm: Callable[[Learning, Any], None]
) -> None:
    learning, challenger = challenged(kit, tmp_path)
    harm(learning, challenger)
    decider = learning.run()
    assert outcome(learning.world.results()) == outcome(alone)
    unusable = {"bundle_ref": r.bundle_text(challenger), "action": None, "score": None, "reason": UNUSABLE}
    assert shadows(learning) == [[unusable]] * 60
    assert decider.metrics()["challenger_unscored"] == 60
    assert replayed(learning).unequal == 0


def test_a_challenger_for_other_features_is_not_opened(kit: Any, tmp_path: Path, alone: Any) -> None:
    learning = make(kit, tmp_path)
    learning.challenge(learning.bundle(boosted(), "xgboost"), T1, capabilities=("family:oracle",))
    learning.promote(learning.bundle(), T1)
    learning.run()
    assert outcome(learning.world.results()) == outcome(alone)
    assert {told[0]["reason"] for told in shadows(learning)} == {UNUSABLE}
    assert "capabilities" in learning.truth(0).serving[1].challenger.fault  # type: ignore[union-attr]


class Odd:
    """A model that fails on every payment, or has no score for most."""

    def __init__(self, features: int, error: Exception | None) -> None:
        self.features, self._error = features, error

    def raw_scores(self, matrix: Any) -> Any:
        if self._error is not None:
            raise self._error
        return np.where(matrix[:, 0] > 2_000.0, math.nan, 0.25)


@pytest.mark.parametrize("error", [None, ValueError("no"), MemoryError(), Unavailable("store")])
def test_a_challenger_that_fails_while_scoring_disturbs_nothing(
    kit: Any, tmp_path: Path, alone: Any, error: Exception | None
) -> None:
    learning, challenger = challenged(kit, tmp_path)
    bundles = learning.bundles()
    models = bundles._models
    opened = models._open(challenger)
    assert isinstance(opened, Bundle)
    models._opened[challenger.bundle_id] = Bundle(opened.manifest, Odd(opened.model.features, error))
    decider = learning.world.decider(models=bundles)
    learning.world.settle(decider)
    assert outcome(learning.world.results()) == outcome(alone)
    reasons = {told[0]["reason"] for told in shadows(learning)}
    assert reasons == ({UNUSABLE} if error is not None else {ERRORED, None})


def test_a_store_that_is_down_when_the_challenger_comes_does_not_hold_the_champion_up(
    kit: Any, tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning, challenger = challenged(kit, tmp_path)
    bundles = learning.bundles()
    fault = bundles._models.fault

    def down(bundle: Any) -> str | None:
        if bundle == challenger:
            raise Unavailable("store")
        return fault(bundle)

    monkeypatch.setattr(bundles._board, "_load", down)
    bundles._board._served.clear()
    bundles._board._begin(bundles._board._registry)
    bundles._board._served[T1] = bundles._board._resolved(bundles._board._registry, T1)
    learning.world.settle(learning.world.decider(models=bundles))
    assert outcome(learning.world.results()) == outcome(alone)
    assert {told[0]["reason"] for told in shadows(learning)} == {UNUSABLE}


def test_one_that_failed_is_not_asked_again() -> None:
    asked: list[int] = []

    def score(_: Any, rows: Any) -> Any:
        asked.append(len(rows))
        raise Unavailable("store")

    beside, named = Beside(score), Challenger(sample_bundle())
    assert [beside.shadows(named, [(1.0,)])[0].reason for _ in range(3)] == [UNUSABLE] * 3
    assert asked == [1]


def test_a_wrong_number_of_scores_is_a_failure() -> None:
    beside = Beside(lambda *_: [])
    assert beside.shadows(Challenger(sample_bundle()), [(1.0,)])[0].reason == UNUSABLE


def sample_bundle() -> Any:
    from .test_bundles import REF

    return REF


def test_it_comes_and_goes_with_the_switches_and_stays_while_guardrails_decide(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path, times=TIMES.ascending())
    challenger, champion = learning.bundle(boosted(), "xgboost"), learning.bundle()
    learning.challenge(challenger, TIMES.promote_us)
    learning.promote(champion, TIMES.promote_us)
    learning.rollback(TIMES.rollback_us)
    learning.withdraw(challenger, TIMES.rollback_us + 1)  # takes effect at the next switch, where replay finds it too
    learning.promote(champion, TIMES.repromote_us)
    learning.run()
    told = {name: {len(payload["shadow"]) for order_us, payload in learning.decisions() if start <= order_us < end}
            for name, start, end in (("before", 0, T1), ("promoted", T1, TIMES.rollback_us),
                                     ("rolled back", TIMES.rollback_us, TIMES.repromote_us),
                                     ("again", TIMES.repromote_us, 2**62))}  # fmt: skip
    assert told == {"before": {0}, "promoted": {1}, "rolled back": {1}, "again": {0}}
    assert replayed(learning).unequal == 0


def test_one_named_after_the_switch_was_settled_waits_for_the_next(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path, times=(T1, TIMES.rollback_us))
    learning.promote(learning.bundle(), T1)
    learning.challenge(learning.bundle(boosted(), "xgboost"), T1)
    learning.rollback(TIMES.rollback_us)
    learning.run()
    told = [(order_us, len(payload["shadow"])) for order_us, payload in learning.decisions()]
    assert {n for order_us, n in told if order_us < TIMES.rollback_us} == {0}
    assert {n for order_us, n in told if order_us >= TIMES.rollback_us} == {1}


def test_the_champion_is_never_its_own_challenger(kit: Any, tmp_path: Path, alone: Any) -> None:
    learning = make(kit, tmp_path)
    champion = learning.bundle()
    learning.challenge(champion, T1)
    learning.promote(champion, T1)
    learning.run()
    assert learning.world.results()["DECISION"] == alone["DECISION"]


@pytest.mark.parametrize(("batch", "members"), [(1, 1), (7, 3), (500, 2)])
def test_batches_and_members_give_the_same_bytes(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, members: int
) -> None:
    whole, _ = challenged(kit, tmp_path / "whole")
    whole.run()
    monkeypatch.setattr(service, "BATCH", batch)
    parted, _ = challenged(kit, tmp_path / "parted")
    for number in range(members):
        parted.world.settle(parted.decider(tuple(range(number, 6, members))))
    assert parted.world.results()["DECISION"] == whole.world.results()["DECISION"]


def test_what_is_scored_beside_is_kept_over_a_restart_and_replay_takes_a_loss_as_recorded(
    kit: Any, tmp_path: Path, alone: Any
) -> None:
    lines = kit.lines()
    learning, challenger = challenged(kit, tmp_path, lines=lines[:-60])
    learning.run()
    before = len([told for told in shadows(learning) if told[0]["reason"] is None])
    body = learning.file(challenger, "model.ubj").read_bytes()
    gone(learning, challenger)
    learning.world.write(lines[-60:])
    learning.run()
    assert outcome(learning.world.results()) == outcome(alone)
    reasons = [told[0]["reason"] for told in shadows(learning)]
    assert (reasons.count(None), reasons.count(UNUSABLE)) == (before, 60 - before)
    assert 0 < before < 60
    without = replayed(learning)
    assert (without.unequal, without.unchecked) == (0, before)
    learning.store.put(challenger.manifest.key.replace("bundle.json", "model.ubj"), body)
    mended = replayed(learning)
    assert (mended.unequal, mended.unchecked) == (0, 0)


def replayed(learning: Learning, *changed: bytes) -> Replay:
    truths = {part: learning.truth(part) for part in range(6)}
    plan = learning.world.plan
    replay = Replay(sample.RUN, plan.switches, served_of(plan, truths), learning.models())
    for body in changed or [body for _, _, body in learning.world.results()["DECISION"]]:
        replay.take(body)
    replay.close()
    return replay


def test_replay_sees_each_change_of_what_a_challenger_said(kit: Any, tmp_path: Path) -> None:
    learning, _ = challenged(kit, tmp_path)
    learning.run()
    assert replayed(learning).unequal == 0
    recorded = orjson.loads(next(body for _, _, body in learning.world.results()["DECISION"] if b"CHALL" not in body
                                 and orjson.loads(body)["payload"]["shadow"]))  # fmt: skip
    (entry,) = recorded["payload"]["shadow"]
    (score,) = unpack(derive.vector_bytes(entry["score"]))
    other = derive.vector_text(pack_vector((math.nextafter(score, 2.0),)))
    for shadow in ([], ["s"], [{**entry, "score": other}], [{**entry, "action": "STEP_UP"}], [entry, entry],
                   [{**entry, "bundle_ref": "bundle:x"}], [{**entry, "reason": ERRORED}], [{}]):  # fmt: skip
        changed = {**recorded, "payload": {**recorded["payload"], "shadow": shadow}}
        assert replayed(learning, orjson.dumps(changed)).unequal == 1, shadow


def test_without_a_challenger_nobody_is_asked(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Beside, "shadows", None)
    learning = make(kit, tmp_path)
    learning.promote(learning.bundle(logistic()), T1)
    learning.run()
    assert shadows(learning) == [[]] * 60


def test_progress_with_a_challenger_reads_back() -> None:
    bundle = sample_bundle()
    serving = {0: Served(1, "global", bundle), 1: Served(2, "guardrails", None, (), Challenger(bundle, "gone"))}
    truth = Truth(n=3, serving=serving)
    assert Truth.from_bytes(3, truth.to_bytes()) == truth
    assert len(Served(1, "global", bundle).document()) == 4  # as it was written before there were challengers
