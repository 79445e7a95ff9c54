"""A build from archive to manifest: what it puts, what it refuses, and that it does so again."""

from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fp_contracts import topics
from fp_contracts.dataset import BasisRange, DatasetManifest, Floors, OfsResult, RowFilter, dataset_key
from fp_contracts.header import Kind, kind_of
from fp_contracts.timestamps import US_PER_DAY
from fp_features import CORE_V1
from fp_ofs import leakage
from fp_ofs.engine import Embedded, Order, RowFunction, Tick
from fp_ofs.errors import Blocked, Cancelled
from fp_ofs.lanes import Shape, shape_of
from fp_ofs.leakage import LeakageCheck
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import read

REPORTS = {"readiness", "leakage", "quality", "parity"}


def codes(result: OfsResult) -> set[str]:
    assert result.status == "BLOCKED"
    return {blocker.code for blocker in result.blockers}


def manifest_of(bench: Any, result: OfsResult) -> DatasetManifest:
    assert result.manifest is not None
    return DatasetManifest.model_validate_json(read(bench.out, result.manifest))


def rows_of(bench: Any, manifest: DatasetManifest) -> pa.Table:
    return pa.concat_tables(pq.read_table(pa.BufferReader(bench.out.get(one.key))) for one in manifest.files)


@pytest.fixture(scope="module")
def built(kit: Any) -> tuple[Any, OfsResult]:
    bench = kit.bench()
    return bench, bench.build()


def test_a_build_puts_all_that_its_manifest_names(built: tuple[Any, OfsResult]) -> None:
    bench, result = built
    assert (result.status, result.blockers) == ("PUBLISHED", ())
    manifest = manifest_of(bench, result)
    named = {one.key for one in (*manifest.files, *manifest.pictures)}
    named |= {getattr(manifest, name).key for name in REPORTS}
    own = {key for key in bench.files() if not key.startswith("datasets/history/")}
    assert own == named | {result.manifest.key, result.rollback_recipe.key}  # type: ignore[union-attr]


def test_rows_are_the_eligible_payments_in_release_order(built: tuple[Any, OfsResult]) -> None:
    bench, result = built
    manifest = manifest_of(bench, result)
    table, counts = rows_of(bench, manifest), manifest.label_counts
    assert table.num_rows == manifest.rows == counts.fraud + counts.legit == sum(one.rows for one in manifest.files)
    assert 80 <= counts.payments <= 90
    assert counts.payments == sum(value for name, value in counts.model_dump().items() if name != "payments")
    assert counts.immature > 0
    assert pc.sum(table.column("label")).as_py() == counts.fraud > 0
    order = list(zip(table.column("release_us").to_pylist(), table.column("event_id").to_pylist(), strict=True))
    assert order == sorted(order)
    assert table.schema.names == [column.name for column in manifest.columns]
    assert manifest.features() == CORE_V1.names
    assert [str(kind).replace("double", "float64") for kind in table.schema.types] == [c.kind for c in manifest.columns]


def test_no_truth_no_offset_and_no_run_id_stands_in_the_rows(built: tuple[Any, OfsResult]) -> None:
    bench, result = built
    body = b"".join(bench.out.get(one.key) for one in manifest_of(bench, result).files)
    table = rows_of(bench, manifest_of(bench, result))
    assert not {"is_fraud", "offset", "platform_run_id"} & set(table.schema.names)
    assert b"platform_2026" not in body


def test_the_served_decision_stands_beside_the_row(built: tuple[Any, OfsResult]) -> None:
    bench, result = built
    table = rows_of(bench, manifest_of(bench, result))
    assert set(table.column("served_policy_rev").to_pylist()) == {"spine-v0"}
    assert table.column("served_action").null_count == 0


def test_the_quality_report_counts_what_the_rows_hold(built: tuple[Any, OfsResult]) -> None:
    bench, result = built
    quality = orjson.loads(read(bench.out, result.quality))  # type: ignore[arg-type]
    table = rows_of(bench, manifest_of(bench, result))
    assert quality["rows"] == table.num_rows == sum(day["rows"] for day in quality["days"])
    assert quality["frauds"] == pc.sum(table.column("label")).as_py() == sum(day["frauds"] for day in quality["days"])
    assert quality["nulls"]["account_id"] == table.column("account_id").null_count > 0
    assert len(quality["features"]) == len(CORE_V1.names)
    assert all(body.startswith(b"\x89PNG") for key, body in bench.files().items() if key.endswith(".png"))


def test_a_second_build_is_already_published_and_puts_nothing(built: tuple[Any, OfsResult]) -> None:
    bench, result = built
    before = bench.files()
    again = bench.build()
    assert again.status == "ALREADY_PUBLISHED"
    assert bench.files() == before
    own = {"status", "metrics", "inputs"}
    assert again.model_dump(exclude=own) == result.model_dump(exclude=own)
    assert result.inputs
    assert not again.inputs, "inputs are what this build read, and it read none"


def test_the_order_in_which_ranges_are_named_is_nothing(built: tuple[Any, OfsResult]) -> None:
    bench, _ = built
    request = bench.request(basis=tuple(reversed(bench.world.basis())))
    assert bench.build(request).status == "ALREADY_PUBLISHED"


@pytest.mark.parametrize("size", [7, 1_000])
def test_objects_cut_otherwise_give_the_same_bytes(kit: Any, built: tuple[Any, OfsResult], size: int) -> None:
    other = kit.bench(size=size)
    other.build()
    assert other.files() == built[0].files()


def test_an_engine_that_takes_groups_in_another_order_gives_the_same_bytes(
    kit: Any, built: tuple[Any, OfsResult]
) -> None:
    class Backwards(Embedded):
        def map_groups(self, table: pa.Table, key: str, order: Order, function: RowFunction, tick: Tick) -> pa.Table:
            found = super().map_groups(table, key, order, function, tick)
            return found.take(list(reversed(range(found.num_rows))))

    other = kit.bench()
    other.build(engine=Backwards())
    assert other.files() == built[0].files()


def test_the_input_stage_answers_p12_alone(kit: Any, built: tuple[Any, OfsResult]) -> None:
    bench = kit.bench()
    found = bench.build(bench.request("input"))
    assert found.status == "INPUT_READY"
    assert found.material is not None
    kept = found.material.key
    assert {key.rpartition("/")[2] for key in bench.files() if key != kept} == {"readiness.json", "leakage.json"}
    assert (found.readiness, found.leakage) == (built[1].readiness, built[1].leakage)
    assert bench.build().status == "PUBLISHED"
    assert {key: body for key, body in bench.files().items() if key != kept} == built[0].files()


@pytest.mark.parametrize("stage", ["input", "dataset"])
def test_a_dry_run_puts_nothing(kit: Any, stage: str) -> None:
    bench = kit.bench()
    assert bench.build(bench.request(stage), dry=True).status == "DRY_RUN"
    assert bench.files() == {}


def test_a_dry_run_that_is_blocked_says_so_and_puts_nothing(kit: Any) -> None:
    bench = kit.bench()
    assert codes(bench.build(bench.request(as_of_us=kit.end_us), dry=True)) == {"DFULL-RUN-B12"}
    assert bench.files() == {}


def test_filters_choose_rows_and_count_the_rest(kit: Any) -> None:
    bench = kit.bench()
    until_us = kit.end_us - 10 * US_PER_DAY
    result = bench.build(bench.request(filters=RowFilter(event_until_us=until_us, degraded="drop")))
    manifest = manifest_of(bench, result)
    table = rows_of(bench, manifest)
    assert pc.max(table.column("event_us")).as_py() < until_us
    assert set(table.column("degraded").to_pylist()) == {0}
    assert manifest.label_counts.filtered > 0


def test_the_second_dataset_of_a_name_rolls_back_to_the_first(kit: Any) -> None:
    bench = kit.bench()
    first = bench.build()
    second = bench.build(bench.request(code_release="next"))
    recipe = orjson.loads(read(bench.out, second.rollback_recipe))
    assert [step["active_after"] for step in recipe["executed"]] == [
        second.dataset_fingerprint, first.dataset_fingerprint, second.dataset_fingerprint,
    ]  # fmt: skip
    assert second.row_digest == first.row_digest


# Blockers: each test breaks one thing.


def test_an_as_of_in_the_future_blocks_b12(kit: Any) -> None:
    bench = kit.bench()
    at_the_edge = bench.build(bench.request("input", as_of_us=kit.end_us - 1))
    beyond = bench.build(bench.request("input", as_of_us=kit.end_us))
    assert at_the_edge.status == "INPUT_READY"
    assert codes(beyond) == {"DFULL-RUN-B12"}
    assert beyond.blockers[0].reason.startswith("label_as_of")
    assert beyond.readiness is not None
    assert "/blocked/" in beyond.readiness.key


def test_conflicting_labels_block_b12_and_are_censored(kit: Any) -> None:
    bench = kit.bench(kit.world(1, conflicts=True))
    assert codes(bench.build()) == {"DFULL-RUN-B12"}
    passed = bench.build(bench.request(floors=Floors(conflict_ppm=200_000)))
    counts = manifest_of(bench, passed).label_counts
    assert counts.conflict > 0
    assert counts.fraud + counts.legit == passed.metrics["rows"]


def test_coverage_under_the_floor_blocks_b12_1(kit: Any) -> None:
    bench = kit.bench()
    assert codes(bench.build(bench.request(unlabelled="censored"))) == {"DFULL-RUN-B12.1"}
    passed = bench.build(bench.request(unlabelled="censored", floors=Floors(coverage_ppm=100_000, conflict_ppm=0)))
    assert manifest_of(bench, passed).label_counts.unlabelled > 0


def test_too_few_rows_to_look_for_leakage_block_b12_1(kit: Any) -> None:
    bench = kit.bench()
    assert codes(bench.build(bench.request(maturity_days=20))) == {"DFULL-RUN-B12.1"}


@pytest.mark.parametrize("floors", [Floors(rows=1_000), Floors(frauds=1_000)])
def test_rows_or_frauds_under_the_floor_block_b13(kit: Any, floors: Floors) -> None:
    bench = kit.bench()
    assert codes(bench.build(bench.request(floors=floors))) == {"DFULL-RUN-B13"}


def test_a_label_that_knows_the_future_blocks_b12(kit: Any) -> None:
    """All of a merchant's labels in effect from the beginning: parity and the blind sample both see it."""

    class Leaky(Embedded):
        def map_groups(self, table: pa.Table, key: str, order: Order, function: RowFunction, tick: Tick) -> pa.Table:
            if "value" in table.schema.names:
                # In front of every payment, in their own order.
                early = pc.if_else(pc.is_valid(table.column("value")), pa.scalar(-1), table.column("lane"))
                table = table.set_column(0, "lane", early.cast(pa.int32()))
            return super().map_groups(table, key, order, function, tick)

    bench = kit.bench(kit.world(3, 250))
    request = bench.request("input", maturity_days=1)
    assert bench.build(request).status == "INPUT_READY"
    other = kit.bench(bench.world)
    found = other.build(request, engine=Leaky())
    assert codes(found) == {"DFULL-RUN-B12"}
    assert "feature_after_decision" in {blocker.reason.split(":")[0] for blocker in found.blockers}


def test_a_check_that_passes_its_own_poison_blocks_b12(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def asleep(_facts: object) -> int:
        return 0

    checks = (*leakage.CHECKS[1:], LeakageCheck(asleep, leakage.CHECKS[0].poison, "x"))
    monkeypatch.setattr(leakage.examine, "__defaults__", (checks,))
    bench = kit.bench()
    found = bench.build()
    assert codes(found) == {"DFULL-RUN-B12"}
    assert [blocker.reason.split(":")[0] for blocker in found.blockers] == ["asleep"]


def tampered(world: Any, kind: Kind, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the payload of the first record of a kind on the rtdl topic."""
    for (topic, _), log in world.records.items():
        for at, record in enumerate(log):
            if topic == topics.RTDL and kind_of(record.header) == kind:
                envelope = orjson.loads(record.value)
                change(envelope["payload"])
                log[at] = record._replace(value=orjson.dumps(envelope))
                return


@pytest.mark.parametrize("kind", [Kind.DECISION, Kind.FEATURE_SNAPSHOT])
def test_a_served_vector_that_differs_blocks_b13_and_is_shown(kit: Any, kind: Kind) -> None:
    world = kit.world(1)
    tampered(world, kind, lambda payload: payload.update(feature_vector=payload["feature_vector"].replace("A", "B", 1)))
    bench = kit.bench(world)
    found = bench.build()
    assert codes(found) == {"DFULL-RUN-B13"}
    assert found.parity is not None
    assert len(orjson.loads(read(bench.out, found.parity))["differing"]) == 1
    assert found.manifest is None
    assert not bench.out.exists(dataset_key(found.dataset_fingerprint, "manifest.json"))


def test_another_feature_digest_blocks_b12_1(kit: Any) -> None:
    bench = kit.bench()
    assert codes(bench.build(bench.request(feature_schema_digest="e" * 64))) == {"DFULL-RUN-B12.1"}


def test_a_basis_without_a_lane_blocks_b12_1(kit: Any) -> None:
    bench = kit.bench()
    basis = tuple(part for part in bench.world.basis() if (part.topic, part.partition) != (topics.TRAFFIC, 3))
    assert codes(bench.build(bench.request(basis=basis))) == {"DFULL-RUN-B12.1"}


def test_the_shape_of_a_basis_is_that_of_its_run() -> None:
    def basis(profile: str) -> list[BasisRange]:
        return [BasisRange(topic=name, partition=part, start=0, end=1)
                for name, topic in topics.pinned(profile).items() for part in range(topic.partitions)]  # fmt: skip

    two, six = shape_of(basis("local")), shape_of(basis("kind"))
    assert (two, six) == (Shape(2, 1, 2), Shape(6, 3, 6))
    assert [six.place_of(topics.LABELS, lane) for lane in range(6)] == [0, 1, 2, 0, 1, 2]
    assert (two.place_of(topics.LABELS, 1), two.place_of(topics.TRAFFIC, 1)) == (0, 1)
    uneven = [part for part in basis("kind") if part.topic != topics.LABELS]
    uneven += [BasisRange(topic=topics.LABELS, partition=part, start=0, end=1) for part in range(4)]
    without_last_lane = [part for part in basis("kind") if part.topic not in topics.INGRESS or part.partition < 5]
    for broken in (uneven, without_last_lane, []):
        with pytest.raises(Blocked, match="not of one run's lanes"):
            shape_of(broken)


@pytest.mark.parametrize("topic", [topics.TRAFFIC, topics.LABELS, topics.FLOW_ANCHOR])
def test_a_record_that_is_missing_in_the_archive_blocks_b12_1(kit: Any, topic: str) -> None:
    world = kit.world(1)
    log = next(log for (name, _), log in world.records.items() if name == topic and len(log) > 5)
    log[2] = log[2]._replace(header=log[-1].header)  # a watermark in its place: the sequence has a hole
    found = kit.bench(world).build()
    assert codes(found) == {"DFULL-RUN-B12.1"}
    assert "gaps" in found.blockers[0].reason


def test_a_basis_that_ends_before_its_window_blocks_b12_1(kit: Any) -> None:
    bench = kit.bench()
    request = bench.request()
    join = request.intent.join.model_copy(update={"window_ends_us": (kit.end_us + 1,)})
    found = bench.build(bench.request(join=join))
    assert codes(found) == {"DFULL-RUN-B12.1"}
    assert "closed up to" in found.blockers[0].reason


def test_what_lies_behind_the_window_is_left_out_on_both_sides(kit: Any) -> None:
    """A second window in the basis: its payments are neither rows nor differences."""
    bench = kit.bench()
    cut_us = kit.end_us - 6 * US_PER_DAY
    join = bench.request().intent.join.model_copy(update={"window_ends_us": (cut_us,)})
    found = bench.build(bench.request(join=join, as_of_us=cut_us - 1))
    assert found.status == "PUBLISHED"
    assert 0 < found.metrics["payments"] < bench.build().metrics["payments"]


def test_a_silent_label_lane_blocks_b12_1(kit: Any) -> None:
    world = kit.world(1)
    for place, log in world.records.items():
        if place == (topics.LABELS, 0):
            log.clear()
    bench = kit.bench(world)
    found = bench.build()
    assert codes(found) == {"DFULL-RUN-B12.1"}
    assert "nobody speaks" in found.blockers[0].reason


def test_a_manifest_whose_file_was_changed_blocks_b13_1(kit: Any) -> None:
    bench = kit.bench()
    result = bench.build()
    target = bench.root / "out" / manifest_of(bench, result).files[0].key
    target.chmod(0o644)
    target.write_bytes(target.read_bytes()[:-1] + b"x")
    assert codes(bench.build()) == {"DFULL-RUN-B13.1"}


@pytest.mark.parametrize("name", ["quality.json", "rows/00000.parquet", "manifest.json"])
def test_other_bytes_under_the_same_fingerprint_block_b13_1(kit: Any, name: str) -> None:
    bench = kit.bench()
    fingerprint = bench.build(dry=True).dataset_fingerprint
    bench.out.put(dataset_key(fingerprint, name), b"{}")
    assert codes(bench.build()) == {"DFULL-RUN-B13.1"}


def test_a_store_that_is_down_is_no_blocker(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = kit.bench()

    def down(_prefix: str) -> None:
        raise Unavailable("the store is down")

    monkeypatch.setattr(bench.archive, "list", down)
    with pytest.raises(Unavailable):
        bench.build()


# Interruptions: whatever was put, the next run ends in the same bytes.


@pytest.mark.parametrize("puts", [1, 3, 8, 9, 10, 11, 12])
def test_a_build_that_died_after_any_put_ends_in_the_same_bytes(
    kit: Any, built: tuple[Any, OfsResult], puts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, put, left = kit.bench(), None, [puts]
    put = bench.out.put

    def dying(key: str, body: bytes) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return put(key, body)

    with monkeypatch.context() as patch:
        patch.setattr(bench.out, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            bench.build()
    again = bench.build()
    assert (again.status, again.row_digest) == ("PUBLISHED", built[1].row_digest)
    assert bench.files() == built[0].files()


def test_a_cancel_is_heard_at_every_stage(kit: Any, built: tuple[Any, OfsResult]) -> None:
    from fp_ofs.build import Build

    for wanted in ("read", "features", "served", "checks", "publish", "rollback"):
        bench = kit.bench()

        def say(stage: str, _done: int, _total: int, at: str = wanted) -> None:
            if stage == at:
                raise Cancelled(stage)

        with pytest.raises(Cancelled):
            Build(bench.request(), bench.archive, bench.out, Embedded(), say).run()
        assert bench.build().row_digest == built[1].row_digest
        assert bench.files() == built[0].files()
