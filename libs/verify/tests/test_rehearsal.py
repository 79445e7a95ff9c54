"""The lane teardown: each cell opens when its artifact does not show it, and no byte of a rehearsal may change."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fp_contracts.proofs import LANES, PROOFS
from fp_contracts.scratch import Scratch
from fp_verify import sample
from fp_verify.check import verify
from fp_verify.log import read_log
from fp_verify.sample import RUN, close_p16, make_config, until_p11, until_p15
from fp_verify.sample import rehearse as rehearse_whole
from fp_verify.sample_rehearsal import SCRATCH_RUN, rehearsal_documents

LANE = "teardown"
Document = dict[str, Any]


def final_of(run: sample.GreenRun) -> dict[str, Any]:
    final: dict[str, Any] = orjson.loads(run.objects[close_p16(run)])
    assert verify(run.objects.__getitem__, read_log(RUN, run.records)).mismatches == ()
    return final


def open_proofs(final: dict[str, Any]) -> set[str]:
    return {proof for proof in PROOFS if final["proofs"][LANE][proof] == "OPEN"}


def test_a_rehearsal_proves_the_six_cells_each_by_an_artifact_of_its_own() -> None:
    run = until_p15()
    assert open_proofs(final_of(run)) == set()
    bodies = [run.objects[f"evidence/runs/{RUN}/proofs/{LANE}/{proof}.json"] for proof in PROOFS]
    assert len(set(bodies)) == len(PROOFS)


def test_without_a_rehearsal_the_six_cells_are_open_and_say_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "rehearse", lambda run: None)
    final = final_of(until_p15())
    assert open_proofs(final) == set(PROOFS)
    assert all("fp rehearse" in line for line in final["open"] if line.startswith(LANE))
    assert {lane for lane in LANES if f"{lane}/" in "".join(final["open"])} >= {LANE}


def test_a_rehearsal_before_p11_does_not_count() -> None:
    run = sample.GreenRun(config=make_config("full"))
    rehearse_whole(run)
    assert open_proofs(final_of(until_p11(run=run))) == set(PROOFS)


def test_the_last_rehearsal_counts_and_a_failed_one_says_why() -> None:
    run = until_p15()
    told = read_log(RUN, run.records).state.rehearsals[-1]
    again = told.model_copy(update={"fault": "no database could be made", "evidence": (), "outlived": ()})
    run.say(again, "again")
    final = final_of(run)
    assert open_proofs(final) == set(PROOFS)
    assert any("no database could be made" in line for line in final["open"])


def drop(document: Document, name: str) -> None:
    document[name] = document[name][1:]


CASES: dict[str, tuple[str, Callable[[Document], Any]]] = {
    "nothing was made": ("deploy", lambda d: d.update(created=[], read_back=[])),
    "one kind was not made": ("deploy", lambda d: (drop(d, "created"), drop(d, "read_back"))),
    "one was not read back": ("deploy", lambda d: drop(d, "read_back")),
    "a name is the platform's": ("deploy", lambda d: d["created"][1].update(name="fp.bus.control.v1")),
    "a planted residual was not found": ("monitor", lambda d: drop(d, "found")),
    "one kind was not planted": ("monitor", lambda d: (drop(d, "planted"), drop(d, "found"))),
    "more was found than planted": ("monitor", lambda d: d["found"].append({"kind": "topic", "name": "other"})),
    "it was there before": ("monitor", lambda d: d.update(before=d["planted"])),
    "it was not removed": ("monitor", lambda d: d.update(after=d["planted"][:1])),
    "no scan was made after": ("monitor", lambda d: d.update(after=None)),
    "it ended by itself": ("failure_drill", lambda d: d.update(signal=0)),
    "it was asked to end": ("failure_drill", lambda d: d.update(signal=15)),
    "nothing was left": ("failure_drill", lambda d: d.update(left=[])),
    "nothing was done": ("failure_drill", lambda d: d.update(left=d["before"])),
    "the second one failed": ("recovery", lambda d: d.update(exit_code=1)),
    "the second one is the first": ("recovery", lambda d: d.update(pid=11)),
    "the second one began elsewhere": ("recovery", lambda d: drop(d, "before")),
    "the second one left something": ("recovery", lambda d: d.update(left=[{"kind": "key", "name": "k"}])),
    "the second one was not timed": ("recovery", lambda d: d.update(began_us=None)),
    "the second one began before": ("recovery", lambda d: d.update(began_us=1)),
    "an object reads otherwise": ("rollback", lambda d: d["objects"][0].update(sha256="0" * 64)),
    "an object was not read": ("rollback", lambda d: d.update(objects=[])),
    "the writer read itself": ("rollback", lambda d: d.update(reader_pid=d["pid"])),
    "it was read before": ("rollback", lambda d: d.update(began_us=1)),
    "the meter saw nothing before": ("cost_control", lambda d: d["running"].update(cost_microusd=0)),
    "it costs on": ("cost_control", lambda d: d["idle"].update(cost_microusd=1)),
    "something lives on": ("cost_control", lambda d: d["idle"].update(processes=["python"])),
    "nobody looked for long enough": ("cost_control", lambda d: d["idle"].update(window_us=999_999)),
    "it was metered before": ("cost_control", lambda d: d.update(began_us=1)),
    "the month is not known": ("cost_control", lambda d: d.update(month_spend_microusd=None)),
    "the month is over its limit": ("cost_control", lambda d: d.update(month_spend_microusd=270_000_000)),
    **{f"{proof} is of another run": (proof, lambda d: d.update(run="another")) for proof in PROOFS},
    **{f"{proof} is of another rehearsal": (proof, lambda d: d.update(scratch_run="another")) for proof in PROOFS},
}  # fmt: skip
ALSO = {  # what rests on the broken document too
    "nothing was left": {"recovery"}, "nothing was done": {"recovery"}, "the second one was not timed": set[str](),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_cell_opens_when_its_artifact_does_not_show_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proof, breaks = CASES[name]

    def broken(run: str, outlived: Any) -> dict[str, Document]:
        documents: dict[str, Document] = orjson.loads(orjson.dumps(rehearsal_documents(run, outlived)))
        breaks(documents[proof])
        return documents

    monkeypatch.setattr(sample, "rehearsal_documents", broken)
    assert open_proofs(final_of(until_p15())) == {proof} | ALSO.get(name, set())


CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "delete": lambda body: None, "truncate": lambda body: body[:-1], "other": lambda body: b"{}",
    "flip": lambda body: body[: len(body) // 2] + bytes((body[len(body) // 2] ^ 1,)) + body[len(body) // 2 + 1 :],
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_no_object_of_a_rehearsal_can_be_changed(name: str) -> None:
    run = until_p15()
    close_p16(run)
    keys = [key for key in run.objects if "/rehearsal/" in key or SCRATCH_RUN in key or f"/proofs/{LANE}/" in key]
    assert len(keys) == 2 * len(PROOFS) + 1
    for key in keys:
        body = CHANGES[name](run.objects[key])
        rest = {k: v for k, v in run.objects.items() if k != key} | ({} if body is None else {key: body})
        result = verify(rest.__getitem__, read_log(RUN, run.records))
        assert result.result == "FAIL", key
        assert "DFULL-RUN-B16" in {m.blocker for m in result.mismatches}, key


@pytest.mark.parametrize("run", ["platform_20260101T000000Z", "platform_20260101T000000Z-rx", "x-r0123456789ab", ""])
def test_a_namespace_cannot_be_made_of_another_name(run: str) -> None:
    with pytest.raises(ValueError, match="not a scratch run"):
        Scratch(run)


def test_every_name_of_a_namespace_is_its_own() -> None:
    scratch = Scratch(SCRATCH_RUN)
    assert not scratch.owns("topic", "fp.bus.control.v1")
    assert not scratch.owns("database", "fp")
    assert not scratch.owns("key", f"fp:{RUN}:accounts:1")
    assert not scratch.owns("evidence", f"evidence/runs/{RUN}/x.json")
