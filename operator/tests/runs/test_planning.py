"""What a run pins: windows, switches, envelopes, the drill; and the small files beside the state."""

import re
from pathlib import Path

import pytest

from fp_contracts.ids import is_run_id
from fp_contracts.phases import ORDER
from fp_contracts.runconfig import Realism, Window
from fp_operator import launch, metering, pinning, project, runplan
from fp_operator.metering import Reading
from fp_runtime.errors import UserError
from fp_wsp.world import WorldManifest


def test_the_policy_goes_back_and_forth_in_mid_stream() -> None:
    first, second = runplan.switches(Window(start_us=0, end_us=1_000), "new", "old")
    assert (first.policy_rev, first.effective_us) == ("old", 400)
    assert (second.policy_rev, second.effective_us) == ("new", 500)


def test_a_full_run_learns_from_three_quarters_and_is_judged_on_the_last() -> None:
    whole = Window(start_us=0, end_us=1_000)
    assert runplan.windows_of(whole, "spine") == (whole,)
    first, second = runplan.windows_of(whole, "full")
    assert (first.start_us, first.end_us, second.start_us, second.end_us) == (0, 750, 750, 1_000)
    assert all(switch.effective_us < first.end_us for switch in runplan.switches(whole, "new", "old"))


def test_every_phase_has_an_envelope_that_grows_with_the_world() -> None:
    small, large = runplan.envelopes(500), runplan.envelopes(1_000_000)
    assert tuple(limit.phase for limit in small) == ORDER
    assert all(a.max_spend_microusd < b.max_spend_microusd for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize(("profile", "lanes"), [("local", 2), ("kind", 6), ("dev_full", 6)])
def test_a_run_has_the_lanes_of_its_environment_s_profile(profile: str, lanes: int) -> None:
    manifest = WorldManifest(
        name="w", description="", licence="", world_id="a" * 32, source_sha256="b" * 64, mapping_digest="c" * 64,
        rows=9, frauds=1, merchants=1, accounts=1, first_us=0, last_us=9, currencies=("EUR",), label_policy="",
        tokenised={}, dropped_duplicates=0, stream=(), truth=(),
    )  # fmt: skip
    digests = runplan.Digests("d" * 64, "d" * 64, "d" * 64, "d" * 64)
    assert runplan.make_config(manifest, digests, {"spine-v1": "e" * 64}, profile=profile).lanes == lanes


@pytest.mark.parametrize(("rows", "turns"), [(1, 1), (500, 1), (25_000, 25)])
def test_the_drill_comes_at_a_turn_that_the_stream_reaches(rows: int, turns: int) -> None:
    assert launch.drill_spec(rows) == f"rtdl-1:rtdl.before_publish:kill:{turns}"


@pytest.mark.parametrize(
    ("scope", "drill", "killed"),
    [("full", True, ["rtdl-1", "fp_ofs", "fp_mf"]), ("spine", True, ["rtdl-1"]), ("full", False, [])],
)
def test_a_drilled_full_run_kills_a_member_and_both_jobs(scope: str, drill: bool, killed: list[str]) -> None:
    drills = launch.drills_of(launch.Order(scope=scope, drill=drill), 25_000)
    assert [spec.partition(":")[0] for spec in drills] == killed
    assert all(len(spec.split(":")) == 4 for spec in drills)


def test_fresh_ids_are_well_formed() -> None:
    assert is_run_id(pinning.new_run_id())
    assert is_run_id(pinning.new_run_id("tiny"))
    assert len(pinning.new_scenario_id()) == 32


def test_the_last_run_is_remembered(tmp_path: Path) -> None:
    assert project.latest(tmp_path) is None
    project.remember_latest(tmp_path, "platform_x", "/bundle")
    assert project.latest(tmp_path) == ("platform_x", "/bundle")


def test_a_restarted_process_is_metered_from_its_start_and_counters_never_fall() -> None:
    before = Reading(started=1.0, cpu_us=100, read_bytes=10, write_bytes=10, rss_bytes=50)
    now = Reading(started=1.0, cpu_us=150, read_bytes=10, write_bytes=40, rss_bytes=60)
    again = Reading(started=2.0, cpu_us=30, read_bytes=1, write_bytes=2, rss_bytes=60)
    assert metering.used(before, now, 2.0).cpu_us == 50
    assert metering.used(before, now, 2.0).rss_bytes_s == 120
    assert metering.used(before, again, 1.0).cpu_us == 30


def test_a_disturbance_is_declared_otherwise_by_name() -> None:
    assert runplan.realism_of([]) == Realism()
    given = runplan.realism_of(["late_context_ppm=0", "seed=9"])
    assert given == Realism(late_context_ppm=0, seed=9)


@pytest.mark.parametrize("text", ["late=0", "late_context_ppm", "late_context_ppm=-1", "late_context_ppm=many"])
def test_what_is_no_disturbance_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="field=number"):
        runplan.realism_of([text])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["late_context_ppm=99999999"], "more than 1,000,000. Fix: give a number from 0 to 1,000,000"),
        (["duplicate_ppm=" + "9" * 5_000], "more than 1,000,000"),
        (["seed=9223372036854775808"], "more than 9,223,372,036,854,775,807"),
        (["late_context_ppm=1000000"], "the rates are 1,007,000 per million together"),
        (["mutant_ppm=600000", "poison_ppm=600000"], "1,208,000 per million together"),
    ],
)
def test_a_rate_is_a_share_of_a_million(given: list[str], why: str) -> None:
    with pytest.raises(UserError, match=re.escape(why)):
        runplan.realism_of(given)


def test_all_events_may_be_disturbed() -> None:
    others = ["duplicate_ppm=0", "mutant_ppm=0", "poison_ppm=0"]
    assert runplan.realism_of(["late_context_ppm=1000000", *others]).late_context_ppm == 1_000_000
    assert runplan.realism_of(["seed=9223372036854775807"]).seed == 2**63 - 1
