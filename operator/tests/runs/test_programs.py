"""Every process of the mesh gets its own name, role and ports, and no other's password."""

from dataclasses import replace
from pathlib import Path

from fp_contracts.services import instances
from fp_operator.programs import BUILD, MEMBERS, PORTS, WRITERS, make_programs
from fp_operator.stack import StackAddresses

ADDRESSES = StackAddresses(
    "h:1", "postgresql://fp_owner:owner@h:2/fp", "redis://h:3", "file:///e", "file:///a", "file:///o"
)
PROGRAMS = make_programs(
    ADDRESSES,
    Path("/state"),
    {name: 100 + n for n, name in enumerate(PORTS)},
    lambda role: f"pw-{role}",
    {BUILD: "b"},
    "k1:00",
)


def test_every_required_instance_runs_and_the_actuator_and_the_meter() -> None:
    assert {program.name for program in PROGRAMS} == {*instances(MEMBERS, WRITERS), "actuator", "meter-0"}


def test_each_logs_in_as_its_own_role_and_none_as_the_owner() -> None:
    for program in PROGRAMS:
        dsn = program.env.get("FP_PG_DSN", "")
        assert "owner" not in dsn
        if program.name == "rtdl-1":
            assert "fp_rtdl:pw-fp_rtdl@" in dsn
    actions = next(program for program in PROGRAMS if program.name == "actions-0")
    assert "fp_df:pw-fp_df@" in actions.env["FP_PG_DSN"]


def test_only_who_signs_or_checks_credentials_holds_their_keys() -> None:
    assert {p.name for p in PROGRAMS if "FP_PRODUCER_KEYS" in p.env} == {"wsp-0", "ig-0", "cm_ls-0"}


def test_ports_are_given_once_and_a_new_build_is_a_new_program() -> None:
    given = [value for program in PROGRAMS for key, value in program.env.items() if key.endswith("_PORT")]
    assert len(given) == len(set(given))
    assert all(program.env[BUILD] == "b" for program in PROGRAMS)


def test_the_embedded_sink_hears_what_is_read_back_and_a_collector_of_ones_own_hears_all() -> None:
    names = {name: 100 + n for n, name in enumerate(PORTS)}

    def heard(telemetry_url: str | None) -> dict[str, dict[str, str]]:
        found = replace(ADDRESSES, otlp_endpoint="http://h:4", telemetry_url=telemetry_url)
        programs = make_programs(found, Path("/state"), names, lambda role: role, {BUILD: "b"}, "k1:00", "file:///t")
        return {program.name: dict(program.env) for program in programs if "FP_OTLP_ENDPOINT" in program.env}

    assert heard("file:///s").keys() == {"df-0", "ofs_trigger-0"}
    assert heard("file:///s")["ofs_trigger-0"]["FP_TELEMETRY_URL"] == "file:///s"
    assert heard("file:///s")["ofs_trigger-0"]["FP_TRACKING_URL"] == "file:///t"
    assert heard(None).keys() == set(instances(MEMBERS, WRITERS))
    assert "FP_TELEMETRY_URL" not in heard(None)["ofs_trigger-0"]
