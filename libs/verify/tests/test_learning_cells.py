"""The job cells of ofs and mf and the monitor of mpr: each check is broken once, and opens that cell alone."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fp_verify import sample_learning as sample
from fp_verify.learning import learning_cells
from fp_verify.log import read_log
from fp_verify.sample import RUN, GreenRun, until_p15

Change = Callable[[Any], None]


def cells_of(run: GreenRun) -> dict[tuple[str, str], Any]:
    return {(cell.lane, cell.proof): cell for cell in learning_cells(read_log(RUN, run.records), run.documents)}


def put(*path: Any, to: Any) -> Change:
    """Set a value of a document."""

    def change(document: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = to

    return change


def recarried(*path: Any, to: Any) -> Change:
    """Set a value inside a carried document and mend its reference, as one who wants to be believed would."""

    def change(document: Any) -> None:
        put("document", *path, to=to)(document)
        document.update(sample.carried(document["document"], document["ref"]["key"]))

    return change


def told(*path: Any, to: Any) -> Change:
    """Set a value of a job's result, and mend what refers to it."""

    def change(document: Any) -> None:
        job = document["job"]
        recarried(*path, to=to)(job["result"])
        job["ended"]["result"] = job["result"]["ref"]

    return change


def killed(name: str, to: Any) -> Change:
    return put("job", "ended", "killed", name, to=to)


def of_bundle(*path: Any, to: Any) -> Change:
    return lambda document: recarried(*path, to=to)(document["manifest"])


other_bytes_left = put("job", "ended", "killed", "left", 0, "sha256", to="0")


def only_figures(document: Any) -> None:
    document["points"] = [one for one in document["points"] if one["metric"] == "fp.job.quality"]


def without_rows_left(document: Any) -> None:
    document["job"]["ended"]["killed"]["left"] = [{"key": "datasets/readiness.json", "sha256": sample.HEX, "size": 1}]


def of_another_run(document: Any) -> None:
    for point in document["points"]:
        point["attributes"]["run"] = "r2"


def a_manifest_left(document: Any) -> None:
    document["job"]["ended"]["killed"]["left"].append({"key": "datasets/manifest.json", "sha256": "0", "size": 1})


BUILD, FIT = "P13", "P14"
ENDED, REPORT = "fingerprint", "eval_report"
CASES: dict[str, tuple[str, str, str, str, Change]] = {
    # lane, proof, phase, document, change
    "another code ran": ("ofs", "deploy", BUILD, ENDED, told("runtime", "build_digest", to="0" * 64)),
    "another job ran": ("ofs", "deploy", BUILD, ENDED, told("runtime", "package", to="fp_mf")),
    "no lock file": ("ofs", "deploy", BUILD, ENDED, told("runtime", "environment_lock", to=None)),
    "a library of another version": ("ofs", "deploy", BUILD, ENDED, told("runtime", "unlocked", to=["numpy 1"])),
    "the job says nothing of itself": ("ofs", "deploy", BUILD, ENDED, told("runtime", to=None)),
    "no engine": ("ofs", "deploy", BUILD, ENDED, told("engine", to="")),
    "inputs that nobody read": ("ofs", "deploy", BUILD, ENDED, told("inputs", to={})),
    "other inputs": ("ofs", "deploy", BUILD, ENDED, told("inputs", "fp.bus.rtdl.v1", "digest", to="0" * 64)),
    "no inputs": ("ofs", "deploy", BUILD, ENDED, put("named_inputs", to={})),
    "telemetry of another job": ("ofs", "monitor", BUILD, "telemetry", put("subject", to="fp_ofs-3")),
    "nothing read back": ("ofs", "monitor", BUILD, "telemetry", put("points", to=[])),
    "no progress": ("ofs", "monitor", BUILD, "telemetry", only_figures),
    "a stage that stopped": ("ofs", "monitor", BUILD, "telemetry", put("points", 1, "value", to=5)),
    "another figure": ("ofs", "monitor", BUILD, "telemetry", put("points", 3, "value", to=7)),
    "a report that says otherwise": ("ofs", "monitor", BUILD, "quality", recarried("coverage_ppm", to=1)),
    "a report with another hash": ("ofs", "monitor", BUILD, "parity", put("document", "equal", to=99)),
    "another drill": ("ofs", "failure_drill", BUILD, ENDED, killed("drill_id", to="3" * 32)),
    "another failpoint": ("ofs", "failure_drill", BUILD, ENDED, killed("failpoint", to="x")),
    "not killed": ("ofs", "failure_drill", BUILD, ENDED, killed("outcome", to="DONE")),
    "another signal": ("ofs", "failure_drill", BUILD, ENDED, killed("reason", to="signal 15")),
    "half-published": ("ofs", "failure_drill", BUILD, ENDED, a_manifest_left),
    "other row bytes": ("ofs", "recovery", BUILD, ENDED, other_bytes_left),
    "no row bytes": ("ofs", "recovery", BUILD, ENDED, without_rows_left),
    "the second run failed": ("ofs", "recovery", BUILD, ENDED, put("job", "ended", "outcome", to="FAILED")),
    "the same process": ("ofs", "recovery", BUILD, ENDED, put("job", "ended", "runner_ref", to="pid 1")),
    "it took too long": ("ofs", "recovery", BUILD, ENDED, put("job", "ended", "ended_us", to=9_000_000_000)),
    "another fingerprint": ("ofs", "recovery", BUILD, ENDED, put("input_fingerprint", to="0" * 64)),
    "another row digest": ("ofs", "recovery", BUILD, ENDED, told("row_digest", to="0" * 64)),
    "rows that do not add up": ("ofs", "recovery", BUILD, "manifest", recarried("rows", to=91)),
    "payments that do not add up": (
        "ofs", "recovery", BUILD, "manifest", recarried("label_counts", "payments", to=101)),
    "files that do not add up": ("ofs", "recovery", BUILD, "manifest", recarried("files", 0, "rows", to=1)),
    "another intent": ("ofs", "recovery", BUILD, "manifest", recarried("intent", to={})),
    "another code trained": ("mf", "deploy", FIT, REPORT, told("runtime", "build_digest", to="0" * 64)),
    "trained in another environment": ("mf", "deploy", FIT, REPORT, told("runtime", "environment_lock", to="0" * 64)),
    "a bundle of another environment": (
        "mf", "deploy", FIT, "bundle_receipt", of_bundle("environment_lock_digest", to="0" * 64)),
    "no tracker": ("mf", "monitor", FIT, "mlflow_refs", recarried("tracker", to="none")),
    "metrics of another training": ("mf", "monitor", FIT, "mlflow_refs", recarried("train_request_digest", to="0")),
    "metrics that read back otherwise": (
        "mf", "monitor", FIT, "mlflow_refs", recarried("read_back_ppm", "shuffled_ap", to=4)),
    "an alarm without a drift": (
        "mf", "monitor", FIT, REPORT, recarried("drift_trial", "undrifted", "psi_ppm", "score", to=250_000)),
    "a silent alarm": (
        "mf", "monitor", FIT, REPORT, recarried("drift_trial", "drifted", "psi_ppm", "amount", to=249_999)),
    "an alarm for something else": ("mf", "monitor", FIT, REPORT, recarried("drift_trial", "moved", to="score")),
    "an alarm that is only told": (
        "mf", "monitor", FIT, REPORT, recarried("drift_trial", "drifted", "alarm", to=[])),
    "no drift trial": ("mf", "monitor", FIT, REPORT, recarried("drift_trial", to=None)),
    "training not killed": ("mf", "failure_drill", FIT, REPORT, killed("outcome", to="DONE")),
    "killed before it began": ("mf", "failure_drill", FIT, REPORT, killed("killed_us", to=1)),
    "another model before the kill": (
        "mf", "recovery", FIT, REPORT, other_bytes_left),
    "another model in the bundle": ("mf", "recovery", FIT, "bundle_receipt", of_bundle("model_sha256", to="0" * 64)),
    "another bundle hash": ("mf", "recovery", FIT, REPORT, told("bundle", "bundle_id", to="0" * 32)),
    "trained on other rows": ("mf", "recovery", FIT, REPORT, recarried("dataset", "row_digest", to="0" * 64)),
    "a switch at another position": (
        "mpr", "monitor", "P15", "telemetry", put("points", 0, "attributes", "merged_n", to=4)),
    "a switch of another run": ("mpr", "monitor", "P15", "telemetry", of_another_run),
    "an old bundle still in use": ("mpr", "monitor", "P15", "telemetry", put("points", 6, "value", to=1)),
    "the last bundle not in use": ("mpr", "monitor", "P15", "telemetry", put("points", -1, "value", to=0)),
    "no metric read back": ("mpr", "monitor", "P15", "telemetry", put("points", to=[])),
}  # fmt: skip


def test_every_cell_of_the_three_lanes_holds() -> None:
    assert {key: cell.reason for key, cell in cells_of(until_p15()).items() if not cell.ok} == {}


@pytest.mark.parametrize("name", CASES)
def test_a_cell_opens_when_one_thing_of_it_is_broken(name: str) -> None:
    lane, proof, phase, document, change = CASES[name]
    run = until_p15()
    copy = orjson.loads(orjson.dumps(run.documents[phase, document]))
    change(copy)
    run.documents[phase, document] = copy
    opened = {key for key, cell in cells_of(run).items() if not cell.ok}
    assert (lane, proof) in opened
    # What was trained on is the dataset's manifest, so a wrong one opens cells of both lanes.
    assert {other for other, _ in opened} - ({"mf"} if document == "manifest" else set()) == {lane}


@pytest.mark.parametrize(("instance", "lane"), [("fp_ofs", "ofs"), ("fp_mf", "mf")])
def test_a_kill_that_the_control_log_does_not_tell_of_proves_nothing(instance: str, lane: str) -> None:
    run = until_p15()
    mark = f'"instance":"{instance}","killed_us"'.encode()
    kept = [record for record in run.records if mark not in record.value]
    assert len(kept) == len(run.records) - 1
    run.records = kept
    opened = {key for key, cell in cells_of(run).items() if not cell.ok}
    assert opened == {(lane, "failure_drill"), (lane, "recovery")}


def test_no_two_cells_rest_on_the_same_facts() -> None:
    facts = [orjson.dumps(cell.document(RUN)["facts"], option=orjson.OPT_SORT_KEYS)
             for cell in cells_of(until_p15()).values() if cell.ok]  # fmt: skip
    assert len(set(facts)) == len(facts)
