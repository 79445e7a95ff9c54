"""The reference of a demo: remembered by what was pinned, and only ever an undisturbed run with a verdict."""

from dataclasses import replace
from pathlib import Path

from fp_contracts import control as c
from fp_contracts.fold import RunState
from fp_contracts.runconfig import config_digest
from fp_operator import reference

from .pinned import CONFIG, HEADER, RUN
from .test_following import CLOSED, verdict

ENDED = RunState(RUN, header=HEADER, verdict=verdict("BLOCKED"), closed=CLOSED)
OTHER = CONFIG.model_copy(update={"image_manifest_digest": "9" * 64})


def test_only_a_run_that_pinned_the_same_came_to_a_verdict_and_was_not_drilled_is_a_reference() -> None:
    assert reference.undisturbed(ENDED, CONFIG)
    assert not reference.undisturbed(ENDED, OTHER)
    assert not reference.undisturbed(replace(ENDED, closed=None), CONFIG)
    assert not reference.undisturbed(replace(ENDED, header=None), CONFIG)
    drill = c.DrillRequested(drill_id="1" * 32, instance="rtdl-1", failpoint="x:kill:1", actor="a")
    assert not reference.undisturbed(replace(ENDED, drills={drill.drill_id: drill}), CONFIG)


def test_each_configuration_has_its_own_and_the_last_one_stands(tmp_path: Path) -> None:
    for config, run in ((CONFIG, "first"), (OTHER, "other"), (CONFIG, "second")):
        reference.remember(tmp_path, config, run, tmp_path / f"{run}.tar.gz")
    known = reference.known(tmp_path)
    assert {digest: entry["run"] for digest, entry in known.items()} == {
        config_digest(CONFIG): "second", config_digest(OTHER): "other"
    }  # fmt: skip


def test_a_torn_memory_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / reference.FILE).write_bytes(b'{"half')
    assert reference.known(tmp_path) == {}
    assert reference.known(tmp_path / "nowhere") == {}
