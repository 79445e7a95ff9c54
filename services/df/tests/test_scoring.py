"""Scores: the same bits in every batch, the stricter of guardrails and model, unknown never approved, replayed."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts import derive, topics
from fp_contracts import registry as r
from fp_contracts.canonical import canonical_bytes
from fp_contracts.downstream import AuditRecord, Decision
from fp_contracts.reasons import Action, Posture
from fp_df import domain, ids, models, payloads, sample
from fp_df.domain import GUARDRAILS, Advice, Scored
from fp_df.models import Models
from fp_df.policy import Policy, Rule, Term
from fp_df.replay import Replay, served_of, without_model
from fp_df.serving import Served, advice
from fp_features import CORE_V1, unpack
from fp_features import pack as pack_vector
from fp_models import Bundle, NotFinite
from fp_runtime.errors import Unavailable

from .learning import STRICT, T1, WIDTH, Learning, boosted, make

FAMILIES = {"logistic": None, "xgboost": boosted}
REF = "bundle:" + "d" * 64
VECTOR = (0.0,) * WIDTH


def bundle_of(learning: Learning, family: str) -> Any:
    return learning.bundle(boosted() if family == "xgboost" else None, family)


def vectors(count: int) -> list[tuple[float, ...]]:
    rows = np.random.default_rng(9).lognormal(2.0, 2.0, (count, WIDTH))
    return [tuple(row) for row in rows.tolist()]


def bits(scored: list[Scored]) -> list[tuple[bytes, Action]]:
    return [(pack_vector((one.score,)), one.action) for one in scored if one.score is not None]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_1_of_10_and_of_500_give_the_same_bits(kit: Any, tmp_path: Path, family: str) -> None:
    learning = make(kit, tmp_path)
    bundle, rows = bundle_of(learning, family), vectors(500)
    scorer = learning.models()
    whole = bits(scorer.score(bundle, rows))
    assert len(whole) == 500
    for size in (1, 10):
        parts = [bits(scorer.score(bundle, rows[at : at + size])) for at in range(0, 500, size)]
        assert [one for part in parts for one in part] == whole
    assert len({score for score, _ in whole}) > 20


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_feature_that_is_no_number_leaves_that_payment_without_a_score_and_no_other(
    kit: Any, tmp_path: Path, family: str, bad: float
) -> None:
    learning = make(kit, tmp_path)
    bundle, rows, scorer = bundle_of(learning, family), vectors(20), learning.models()
    clean = scorer.score(bundle, rows)
    spoiled = [(bad, *row[1:]) if at in (0, 7, 19) else row for at, row in enumerate(rows)]
    found = scorer.score(bundle, spoiled)
    assert [at for at, one in enumerate(found) if one.score is None] == [0, 7, 19]
    assert [one for at, one in enumerate(found) if at not in (0, 7, 19)] == [
        one for at, one in enumerate(clean) if at not in (0, 7, 19)
    ]
    assert scorer.score(bundle, [spoiled[0]]) == [Scored(None, Action.ALLOW)]


class Broken:
    """A model whose score is NaN where the amount is 1."""

    features = WIDTH

    def raw_scores(self, matrix: Any) -> Any:
        return np.where(matrix[:, 0] == 1.0, np.nan, 0.25)


def test_a_score_that_is_no_number_is_no_score(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path)
    bundle, scorer = learning.bundle(), learning.models()
    opened = scorer._open(bundle)
    assert isinstance(opened, Bundle)
    scorer._opened[bundle.bundle_id] = Bundle(opened.manifest, Broken())
    rows = [(1.0, *VECTOR[1:]), VECTOR, (math.nan, *VECTOR[1:])]
    assert [one.score for one in scorer.score(bundle, rows)] == [None, 0.25, None]
    with pytest.raises(NotFinite):
        Bundle(opened.manifest, Broken()).score(np.array(rows[:1]))


def test_a_store_that_does_not_answer_says_nothing_of_the_bundle(kit: Any, tmp_path: Path) -> None:
    def down(_: str) -> bytes:
        raise Unavailable("store")

    bundle = make(kit, tmp_path).bundle()
    store: Any = SimpleNamespace(get=down)
    with pytest.raises(Unavailable):
        Models(lambda: store).fault(bundle)


def test_guardrails_cost_no_import_of_models(tmp_path: Path) -> None:
    told = "import sys, fp_df.__main__; print(sorted({'numpy', 'xgboost', 'fp_models'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", told], text=True).strip() == "[]"


STRENGTH = [Action.ALLOW, Action.STEP_UP, Action.REVIEW, Action.BLOCK]


def judge(kit: Any, advised: Advice, guard: str | None = None, degraded: tuple[str, ...] = ()) -> Any:
    rule = Rule(name="g", when=(Term(fact="amount", op=">=", value_milli=0),), action=guard or "BLOCK", reason="G")  # type: ignore[arg-type]
    policy = Policy(
        policy_rev="p", rules=(rule,) if guard else (), errored_action="REVIEW", escalation=kit.policy.escalation,
        review_capacity_per_day=1,
    )  # fmt: skip
    return domain.judge(CORE_V1.schema_digest, degraded, VECTOR, policy, advised)


@pytest.mark.parametrize("guard", [None, "STEP_UP", "REVIEW", "BLOCK"])
@pytest.mark.parametrize("asked", STRENGTH)
def test_of_guardrails_and_model_the_stricter_wins_and_both_are_told(
    kit: Any, guard: str | None, asked: Action
) -> None:
    action, reasons, posture = judge(kit, Advice(REF, Scored(0.5, asked), None), guard)
    assert action is max(asked, Action(guard or "ALLOW"), key=STRENGTH.index)
    assert posture is Posture.NORMAL
    assert reasons == (("G",) if guard else ()) + ((f"SCORE_{asked}",) if asked is not Action.ALLOW else ())


def test_postures_of_the_model_side(kit: Any) -> None:
    errored = Advice(REF, Scored(None, Action.ALLOW), None)
    assert judge(kit, errored) == (Action.REVIEW, ("MODEL_ERRORED",), Posture.FAIL_CLOSED)
    assert judge(kit, errored, "BLOCK")[0] is Action.BLOCK
    assert judge(kit, errored, None, ("JOIN_TIMEOUT",)) == (
        Action.REVIEW, ("JOIN_TIMEOUT", "MODEL_ERRORED"), Posture.FAIL_CLOSED,
    )  # fmt: skip
    scored = Scored(0.1, Action.ALLOW)
    assert judge(kit, Advice(REF, scored, "MODEL_FALLBACK")) == (Action.ALLOW, ("MODEL_FALLBACK",), Posture.NORMAL)
    assert judge(kit, Advice(REF, scored, None), None, ("JOIN_TIMEOUT",)) == (
        Action.STEP_UP, ("JOIN_TIMEOUT",), Posture.DEGRADED_CONTEXT,
    )  # fmt: skip
    unusable = advice(Served(1, "guardrails", None, (("b", "gone"),)), None)
    assert judge(kit, unusable) == (Action.STEP_UP, ("MODEL_UNUSABLE",), Posture.GUARDRAILS_ONLY)
    assert advice(Served(2, "guardrails", None), None) is GUARDRAILS  # rolled back on purpose


def test_a_payment_that_a_bundle_should_score_is_never_decided_unscored(kit: Any, tmp_path: Path) -> None:
    bundle = make(kit, tmp_path).bundle()
    with pytest.raises(ValueError, match="not scored"):
        advice(Served(1, "global", bundle), None)


@given(event=st.text(min_size=1, max_size=9), bundle=st.none() | st.sampled_from([REF, "bundle:x"]))
def test_a_bundle_is_part_of_a_decision_s_identity(event: str, bundle: str | None) -> None:
    origin = (topics.TRAFFIC, 3, 77)
    assert ids.decision_id("run", event, origin, bundle) == derive.decision_id("run", event, bundle, origin)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.1 + 0.2, 5e-324, math.nextafter(1.0, 0.0)])
def test_a_scored_decision_has_the_bytes_of_the_contract(kit: Any, score: float) -> None:
    from .test_decide import decided_of

    plain = decided_of(sample.snapshot_of(1, sample.START_US, "acc", 80_000), kit.policy)
    decided = domain.make_decision(
        sample.RUN, plain.snapshot, plain.vector, kit.policy, Advice(REF, Scored(score, Action.BLOCK), None)
    )
    rendered = payloads.render(decided, 0, 1)
    values = orjson.loads(rendered.payload)
    assert canonical_bytes(values).decode() == rendered.payload
    model = Decision.model_validate_json(rendered.payload)
    assert model.score is not None
    assert unpack(derive.vector_bytes(model.score)) == (score,)
    assert (model.bundle_ref, model.action, model.reason_codes[-1]) == (REF, "BLOCK", "SCORE_BLOCK")
    assert rendered.fingerprint == derive.content_fingerprint(derive.DECISION_FIELDS, values, "auth-1")
    _, text = payloads.decided_link(sample.RUN, "DECIDED:0", 1, "0" * 64, decided, rendered)
    assert AuditRecord.model_validate_json(text).bundle_ref == REF


@pytest.fixture(params=FAMILIES)
def decided(kit: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Learning:
    """A world of which the second half is decided by a bundle."""
    learning = make(kit, tmp_path)
    learning.promote(bundle_of(learning, request.param), T1)
    learning.run()
    return learning


def test_thresholds_of_the_bundle_ask_for_actions(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path)
    learning.promote(learning.bundle(), T1)
    learning.run()
    asked = set()
    for order_us, payload in learning.decisions():
        if order_us < T1:
            continue
        (score,) = unpack(derive.vector_bytes(payload["score"]))
        steps = {"BLOCK": STRICT.block_ppm, "REVIEW": STRICT.review_ppm, "STEP_UP": STRICT.step_up_ppm}
        wanted = next((name for name, at in steps.items() if at is not None and score * 1e6 >= at), None)
        codes = [code for code in payload["reason_codes"] if code.startswith("SCORE_")]
        assert codes == ([f"SCORE_{wanted}"] if wanted else [])
        assert STRENGTH.index(Action(payload["action"])) >= STRENGTH.index(Action(wanted or "ALLOW"))
        assert [intent["kind"] for intent in payload["intents"]] == (
            [domain.INTENTS[Action(payload["action"])]] if payload["action"] != "ALLOW" else []
        )
        asked.add(wanted)
    assert asked == {None, "STEP_UP", "REVIEW", "BLOCK"}


def replay_of(learning: Learning) -> Replay:
    tables, plan = learning.world.tables, learning.world.plan
    truths = {part: learning.truth(part) for part in range(6)}
    assert tables.progress
    return Replay(sample.RUN, plan.switches, served_of(plan, truths), learning.models())


def bodies(learning: Learning) -> list[bytes]:
    return [body for _, _, body in learning.world.results()["DECISION"]]


def test_replay_scores_again_bit_for_bit_and_sees_each_change(kit: Any, decided: Learning) -> None:
    replay = replay_of(decided)
    for body in bodies(decided):
        replay.take(body)
    replay.close()
    assert (replay.replayed, replay.unequal, len(replay.fingerprints)) == (kit.count, 0, kit.count)
    recorded = orjson.loads(next(body for body in bodies(decided) if b'"posture":"NORMAL"' in body))
    (score,) = unpack(derive.vector_bytes(recorded["payload"]["score"]))
    changes = {
        "score": derive.vector_text(pack_vector((math.nextafter(score, 2.0),))), "bundle_ref": REF,
        "posture": "GUARDRAILS_ONLY", "reason_codes": ["MODEL_MISSING"], "decision_id": "0" * 32,
        "feature_vector": derive.vector_text(bytes(8 * WIDTH)), "action": "OTHER", "shadow": ["s"],
    }  # fmt: skip
    for name, value in changes.items():
        changed = replay_of(decided)
        changed.take(orjson.dumps({**recorded, "payload": {**recorded["payload"], name: value}}))
        changed.close()
        assert changed.unequal == 1, name


def test_replay_of_a_short_vector_is_a_difference_and_no_crash(decided: Learning) -> None:
    recorded = orjson.loads(next(body for body in bodies(decided) if b'"posture":"NORMAL"' in body))
    replay = replay_of(decided)
    replay.take(orjson.dumps({**recorded, "payload": {**recorded["payload"], "feature_vector": "AAAAAAAAAAA="}}))
    replay.close()
    assert replay.unequal == 1


def test_another_bundle_than_the_one_in_force_is_seen_by_replay(kit: Any, tmp_path: Path) -> None:
    learning = make(kit, tmp_path)
    learning.promote(learning.bundle(), T1)
    learning.run()
    other = learning.bundle(boosted(), "xgboost")
    truths = {part: learning.truth(part) for part in range(6)}
    for truth in truths.values():
        assert isinstance(truth.serving, dict)
        truth.serving[1] = Served(1, "global", other)
    replay = Replay(sample.RUN, learning.world.plan.switches, served_of(learning.world.plan, truths), learning.models())
    for body in bodies(learning):
        replay.take(body)
    replay.close()
    assert replay.unequal == 60


def test_a_nan_in_a_snapshot_fails_that_payment_closed_and_replays(kit: Any, tmp_path: Path) -> None:
    feed = sample.Feed()
    nan = derive.vector_text(pack_vector([math.nan] + [0.0] * (len(CORE_V1.snapshot_names) - 1)))
    lines = [feed.snapshot(0, T1, "acc-1"), feed.snapshot(1, T1, "acc-1", feature_vector=nan),
             feed.snapshot(2, T1, "acc-1"),
             feed.snapshot(3, T1, "acc-1", feature_schema_digest="f" * 64, feature_vector="AAAAAAAA8D8="),
             *feed.marks(kit.end_us)]  # fmt: skip
    learning = make(kit, tmp_path, lines=lines)
    bundle = learning.bundle()
    learning.promote(bundle, T1)
    learning.run()
    found = {payload["source_event"]["event_id"]: payload for _, payload in learning.decisions()}
    assert [found[f"auth-{at}"]["posture"] for at in range(4)] == ["NORMAL", "FAIL_CLOSED", "NORMAL", "FAIL_CLOSED"]
    assert found["auth-1"]["score"] is None
    assert found["auth-1"]["bundle_ref"] == r.bundle_text(bundle)
    assert found["auth-1"]["action"] in ("REVIEW", "BLOCK")
    assert "MODEL_ERRORED" in found["auth-1"]["reason_codes"]
    assert found["auth-3"]["bundle_ref"] is None
    replay = replay_of(learning)
    for body in bodies(learning):
        replay.take(body)
    replay.close()
    assert (replay.replayed, replay.unequal) == (4, 0)


def test_all_partitions_of_a_turn_are_scored_in_one_call(kit: Any, tmp_path: Path, monkeypatch: Any) -> None:
    sizes: list[int] = []
    inner = models._scores

    def counted(opened: Any, rows: Any) -> Any:
        sizes.append(len(rows))
        return inner(opened, rows)

    monkeypatch.setattr(models, "_scores", counted)
    learning = make(kit, tmp_path)
    learning.promote(learning.bundle(), T1)
    learning.run()
    assert sizes == [60]


def test_without_the_model_each_payment_is_decided_as_a_run_that_has_none_decides_it(
    kit: Any, decided: Learning, expected: Any
) -> None:
    alone = {one["source_event"]["event_id"]: one["action"]
             for one in (orjson.loads(body)["payload"] for _, _, body in expected["DECISION"])}  # fmt: skip
    recorded = [payload for _, payload in decided.decisions()]
    found = {one["source_event"]["event_id"]: without_model(one, kit.policy) for one in recorded}
    assert found == alone
    assert any(found[one["source_event"]["event_id"]] != one["action"] for one in recorded)
