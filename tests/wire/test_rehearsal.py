"""A teardown rehearsed on real servers: made, killed half-way, finished, read again, metered, planted and scanned."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fp_contracts import topics
from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import TeardownRehearsed
from fp_contracts.fold import RunState
from fp_contracts.proofs import PROOFS
from fp_contracts.scratch import Scratch
from fp_operator import ending, namespace
from fp_operator.metering import Meter
from fp_operator.prices import price_table
from fp_operator.rehearsal import __main__ as rehearsing
from fp_operator.rehearsal import acts, making
from fp_operator.rehearsal.acts import Stage
from fp_operator.rehearsal.program import RehearsalSettings
from fp_operator.residue import Residual, scan
from fp_operator.runplan import Digests
from fp_operator.stack import StackAddresses
from fp_operator.stack.state import choose_ports
from fp_operator.substrate import Environment
from fp_runtime.kafka import open_admin
from fp_runtime.settings import RuntimeSettings
from fp_verify import sample
from fp_verify.check import verify
from fp_verify.log import read_log
from fp_verify.rehearsal import rehearsal_cells
from fp_verify.sample import RUN, GreenRun, make_config, until_p11
from fp_verify.sources import load_documents

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.fixture
def stage(stack: StackAddresses, database: str, tmp_path: Path) -> Iterator[Stage]:
    addresses = replace(stack, evidence_url=f"file://{tmp_path}/evidence")
    space = namespace.new_scratch(tmp_path, choose_ports([making.PROCESS])[making.PROCESS])
    settings = RuntimeSettings(
        instance="operator-0", kafka_bootstrap=stack.kafka_bootstrap, pg_dsn=database, evidence_url=stack.evidence_url
    )
    assert space.scratch is not None
    yield Stage(tmp_path, space, space.scratch, addresses, settings)
    ending.tear_down(space, addresses, lambda *_: None)


def test_a_rehearsal_proves_six_cells_and_leaves_nothing(stage: Stage) -> None:
    documents, outlived = acts.perform(stage)
    run = until_p11(run=GreenRun(config=make_config("full")))
    root = f"evidence/runs/{RUN}/rehearsal/{stage.scratch.tag}"
    told = TeardownRehearsed(
        scratch_run=stage.scratch.run, actor="tester", reason="a test", outlived=tuple(outlived),
        evidence=tuple(
            run.put(f"{root}/{proof}.json", {"run": RUN, "scratch_run": stage.scratch.run, **document})
            for proof, document in documents.items()
        ),
    )  # fmt: skip
    run.objects |= {ref.key: stage.store.get(ref.key) for ref in outlived}
    run.say(told, stage.scratch.run)
    log = read_log(RUN, run.records)
    cells = {cell.proof: cell for cell in rehearsal_cells(log, load_documents(run.objects.__getitem__, log))}
    assert {proof: cells[proof].reason for proof in PROOFS} == dict.fromkeys(PROOFS, "")
    sample.close_p16(run)
    assert verify(run.objects.__getitem__, read_log(RUN, run.records)).mismatches == ()
    assert scan(stage.space, stage.addresses) == ()
    assert namespace.noted(stage.main) == []


def test_the_killed_teardown_left_exactly_what_comes_after_its_failpoint(stage: Stage) -> None:
    making.make(stage.space, stage.scratch, stage.addresses)
    drill = acts._failure_drill(stage)
    assert drill["signal"] == 9
    assert {thing["kind"] for thing in drill["left"]} == {"process", "database", "key", "folder"}
    assert {thing["kind"] for thing in drill["before"]} == {"process", "port", "topic", "database", "key", "folder"}
    recovery = acts._recovery(stage)
    assert (recovery["exit_code"], recovery["left"]) == (0, [])


def test_what_a_killed_rehearsal_left_is_found_by_its_note_and_torn_down(stage: Stage) -> None:
    making.make(stage.space, stage.scratch, stage.addresses)
    assert {thing.kind for thing in scan(stage.space, stage.addresses)} >= {"process", "topic", "database", "key"}
    assert [space.scratch for space in namespace.noted(stage.main)] == [stage.scratch]
    assert ending.end_noted(stage.main, stage.addresses, lambda *_: None) == 1
    assert scan(stage.space, stage.addresses) == ()
    assert ending.end_noted(stage.main, stage.addresses, lambda *_: None) == 0


def test_the_meter_sees_an_unsupervised_process_by_its_mark(stage: Stage) -> None:
    meter = Meter(acts.marked(stage.space.state_dir), price_table()[0])
    assert meter.sample() == []
    with making.planted(stage.space, stage.scratch, stage.addresses):
        (found,) = meter.sample()
        assert found.cost_microusd > 0
    assert meter.sample() == []


@pytest.mark.parametrize("kind", ["process", "port", "topic", "database", "key", "folder"])
def test_the_scan_finds_each_planted_kind_by_name(stage: Stage, kind: str) -> None:
    with making.planted(stage.space, stage.scratch, stage.addresses) as things:
        (name,) = [thing.name for thing in things if thing.kind == kind]
        assert Residual(kind, name) in scan(stage.space, stage.addresses)


def test_topics_of_other_prefixes_are_not_touched(stage: Stage, topic_prefix: str) -> None:
    settings = stage.settings.model_copy(update={"topic_prefix": topic_prefix})
    with closing(open_admin(settings)) as other:
        other.create_topics([topics.CONTROL])
        making.make(stage.space, stage.scratch, stage.addresses)
        ending.tear_down(stage.space, stage.addresses, lambda *_: None)
        assert other.under_prefix() == [f"{topic_prefix}{topics.CONTROL}"]
        other.delete_under_prefix()
        assert other.under_prefix() == []
    with closing(open_admin(stage.settings)) as everything, pytest.raises(ValueError, match="every topic"):
        everything.delete_under_prefix()


def test_evidence_changed_after_the_teardown_reads_otherwise(stage: Stage, tmp_path: Path) -> None:
    _, _, outlived = acts._deploy(stage)
    path = tmp_path / "evidence" / outlived[0].key
    path.chmod(0o644)
    path.write_bytes(canonical_bytes([]))
    again = {item["key"]: item["sha256"] for item in acts._rollback(stage)["objects"]}
    assert [ref.key for ref in outlived if again[ref.key] != ref.sha256] == [outlived[0].key]


def test_the_teardown_of_a_namespace_is_a_command_of_its_own(stage: Stage) -> None:
    making.make(stage.space, stage.scratch, stage.addresses)
    assert acts._teardown(stage)[1] == 0
    assert scan(stage.space, stage.addresses) == ()


def test_a_rehearsal_that_cannot_be_made_says_why_and_leaves_nothing(
    stage: Stage, role_dsn: Callable[[str], str], tmp_path: Path
) -> None:
    addresses = replace(stage.addresses, pg_dsn=role_dsn("fp_operator"))
    environment = Environment(tmp_path, addresses, {}, Digests("a", "b", "c", "d"), ())
    config = RehearsalSettings(state_dir=str(tmp_path), run=RUN, actor="tester", reason="a test")
    told = rehearsing._rehearsed(environment, RunState(RUN), config)
    assert "permission denied to create database" in told.fault
    assert (told.evidence, told.outlived, told.actor) == ((), (), "tester")
    assert namespace.noted(tmp_path) == []
    assert scan(replace(stage.space, scratch=Scratch(told.scratch_run)), stage.addresses) == ()
