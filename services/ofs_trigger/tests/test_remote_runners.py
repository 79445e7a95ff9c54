"""Remote runners against recorded shapes of their services: the ends of a local job, one remote run per request."""

import json
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from fp_contracts.learning import Limits
from fp_ofs_trigger.runners import Ended, Job, Progress
from fp_ofs_trigger.runners.databricks import DatabricksRunner, JobsDown, SdkJobs, open_databricks
from fp_ofs_trigger.runners.sagemaker import SageMakerRunner, SageMakerServing, open_sagemaker
from fp_ofs_trigger.settings import OfsTriggerSettings
from fp_runtime.errors import UserError

ID = "ab" * 32
JOB = Job(ID, "fp_ofs", b"{}", "s3://bucket/learning", Limits(wall_s=100, cpu_s=100, memory_bytes=1 << 30))
LOGS = 'starting\n{"stage":"rows","done":1,"total":2}\n{"result":{"status":"PUBLISHED"}}\n'


def never() -> bool:
    return False


# --- Databricks: documents of the Jobs API 2.1 ---


def run_document(life: str, result: str | None = None, message: str = "") -> dict[str, Any]:
    state = {"life_cycle_state": life, "state_message": message, **({"result_state": result} if result else {})}
    return {"job_id": 11, "run_id": 455644833, "state": state, "tasks": [{"run_id": 2112892, "task_key": "build"}]}


class Workspace:
    """JobsApi that plays back documents; the last one stays."""

    def __init__(self, *runs: dict[str, Any], output: Mapping[str, Any] | None = None) -> None:
        self.runs, self.said = list(runs), output or {"logs": LOGS}
        self.calls: list[Any] = []
        self.down_at = 0

    def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if len(self.calls) == self.down_at:
            raise JobsDown("503 temporarily unavailable")

    def run_now(self, job_id: int, token: str, parameters: list[str]) -> int:
        self._call("run_now", job_id, token, tuple(parameters))
        return 455644833

    def get_run(self, run_id: int) -> Mapping[str, Any]:
        self._call("get_run")
        return self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]

    def output(self, task_run_id: int) -> Mapping[str, Any]:
        self._call("output", task_run_id)
        return self.said

    def repair(self, run_id: int) -> None:
        self._call("repair", run_id)

    def cancel(self, run_id: int) -> None:
        self._call("cancel", run_id)

    def names(self) -> list[str]:
        return [call[0] for call in self.calls if call[0] not in ("get_run", "output")]


class Clock:
    """Seconds that pass only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def read(self) -> float:
        return self.now


def on_databricks(
    workspace: Workspace, cancelled: Callable[[], bool] = never, seen: list[Progress] | None = None
) -> Ended:
    clock = Clock()
    runner = DatabricksRunner(workspace, 11, lambda job: f"{job.out_url}/request.json", clock.wait, clock.read)
    return runner.run(JOB, (seen if seen is not None else []).append, cancelled)


RUNNING, DONE = run_document("RUNNING"), run_document("TERMINATED", "SUCCESS")


def test_a_databricks_run_brings_its_result_and_its_progress() -> None:
    workspace, seen = Workspace(run_document("PENDING"), RUNNING, DONE), list[Progress]()
    ended = on_databricks(workspace, seen=seen)
    assert (ended.outcome, ended.result, ended.ref) == ("DONE", {"status": "PUBLISHED"}, "run 455644833")
    assert ended.usage == {"wall_ms": 20_000}
    assert seen == [Progress("rows", 1, 2)]
    arguments = ("run", "s3://bucket/learning/request.json", "--out", "s3://bucket/learning")
    assert workspace.calls[0] == ("run_now", 11, ID, arguments)


def test_a_cluster_that_failed_is_repaired_once() -> None:
    broken = run_document("INTERNAL_ERROR", "FAILED", "cluster terminated")
    workspace = Workspace(broken, RUNNING, DONE)
    assert on_databricks(workspace).outcome == "DONE"
    assert workspace.names() == ["run_now", "repair"]
    again = Workspace(broken, broken, output={"logs": "", "error": "lost"})
    ended = on_databricks(again)
    assert (ended.outcome, ended.reason) == ("FAILED", "cluster terminated")
    assert again.names() == ["run_now", "repair"]


def test_a_blocked_databricks_job_is_blocked_and_not_repaired() -> None:
    failed = run_document("TERMINATED", "FAILED", "exit 3")
    workspace = Workspace(failed, output={"logs": '{"result":{"status":"BLOCKED","blockers":[]}}'})
    ended = on_databricks(workspace)
    assert (ended.outcome, ended.reason) == ("BLOCKED", "exit 3")
    assert workspace.names() == ["run_now"]


@pytest.mark.parametrize("output", [{"logs": "no result"}, {"error": "boom", "logs": ""}])
def test_a_databricks_run_without_a_result_failed(output: Mapping[str, Any]) -> None:
    assert on_databricks(Workspace(DONE, output=output)).outcome == "FAILED"


def test_a_databricks_run_that_hangs_is_cancelled_at_its_deadline() -> None:
    workspace = Workspace(*[RUNNING] * 14, run_document("TERMINATED", "CANCELED"))
    assert on_databricks(workspace).outcome == "TIMED_OUT"
    assert workspace.names() == ["run_now", "cancel"]


def test_a_cancelled_databricks_run_is_cancelled_there() -> None:
    workspace = Workspace(RUNNING, run_document("TERMINATED", "CANCELED"))
    assert on_databricks(workspace, lambda: True).outcome == "CANCELLED"
    assert workspace.names() == ["run_now", "cancel"]


@pytest.mark.parametrize("call", [1, 2, 4, 5])
def test_a_workspace_that_is_down_is_unavailable(call: int) -> None:
    workspace = Workspace(RUNNING, DONE)
    workspace.down_at = call
    assert on_databricks(workspace).outcome == "UNAVAILABLE"


def test_a_databricks_runner_needs_its_settings() -> None:
    with pytest.raises(UserError, match="FP_DATABRICKS_HOST"):
        open_databricks("", 0)


@pytest.fixture
def jobs_server() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The Jobs API 2.1 over HTTP, with documents as the service gives them."""
    asked: list[tuple[str, Any]] = []
    answers = {
        "/api/2.1/jobs/run-now": {"run_id": 455644833, "number_in_job": 455644833},
        "/api/2.1/jobs/runs/get": DONE,
        "/api/2.1/jobs/runs/get-output": {"logs": LOGS, "metadata": DONE},
        "/api/2.1/jobs/runs/repair": {"repair_id": 734650698524280},
        "/api/2.1/jobs/runs/cancel": {},
    }

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0].replace("/2.2/", "/2.1/")
            asked.append((path.rpartition("/")[2], json.loads(body) if body else self.path.partition("?")[2]))
            found = answers.get(path)
            raw = json.dumps(found if found is not None else {"error_code": "NOT_FOUND", "message": path}).encode()
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = answer  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.timeout(400)
def test_the_sdk_speaks_the_shapes_that_the_runner_reads(jobs_server: tuple[str, list[tuple[str, Any]]]) -> None:
    sdk = pytest.importorskip("databricks.sdk", reason="the extra `databricks` is not installed")
    url, asked = jobs_server
    api, clock = SdkJobs(sdk.WorkspaceClient(host=url, token="t", auth_type="pat")), Clock()
    ended = DatabricksRunner(api, 11, lambda _: "request", clock.wait).run(JOB, lambda _: None, never)
    assert (ended.outcome, ended.result) == ("DONE", {"status": "PUBLISHED"})
    sent = next(body for name, body in asked if name == "run-now")
    assert sent["idempotency_token"] == ID
    assert sent["python_params"][0] == "run"
    api.repair(1)
    api.cancel(1)
    assert [name for name, _ in asked][-2:] == ["repair", "cancel"]


# --- SageMaker: shapes checked by botocore against the service's own model ---


class Cloud:
    """Clients whose answers are given, in order; parameters are validated by botocore."""

    def __init__(self, sagemaker: Any, logs: Any) -> None:
        self.sagemaker, self.logs = sagemaker, logs
        self.stub, self.log_stub = Stubber(self.sagemaker), Stubber(self.logs)
        self.stub.activate()
        self.log_stub.activate()
        self.runner = SageMakerRunner(
            self.sagemaker, self.logs, "image@sha256:1", "arn:aws:iam::123456789012:role/train", "ml.m5.large",
            lambda _: None,
        )  # fmt: skip

    def created(self) -> None:
        self.stub.add_response(
            "create_training_job", {"TrainingJobArn": "arn:aws:sagemaker:eu-west-2:123456789012:training-job/x"},
            {
                "TrainingJobName": f"fp-{ID[:48]}", "AlgorithmSpecification": ANY, "RoleArn": ANY,
                "OutputDataConfig": ANY, "ResourceConfig": ANY, "StoppingCondition": {"MaxRuntimeInSeconds": 100},
            },
        )  # fmt: skip

    def described(self, status: str, secondary: str = "Training", **more: Any) -> None:
        self.stub.add_response(
            "describe_training_job",
            {
                "TrainingJobName": "x", "TrainingJobArn": "arn:aws:sagemaker:eu-west-2:123456789012:training-job/x",
                "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"}, "TrainingJobStatus": status,
                "SecondaryStatus": secondary, "StoppingCondition": {"MaxRuntimeInSeconds": 100},
                "ResourceConfig": {"VolumeSizeInGB": 30}, "AlgorithmSpecification": {"TrainingInputMode": "File"},
                "CreationTime": 1, **more,
            },
        )  # fmt: skip

    def said(self, text: str = LOGS) -> None:
        self.log_stub.add_response("describe_log_streams", {"logStreams": [{"logStreamName": "x/algo-1"}]})
        events = [{"timestamp": 1, "message": line} for line in text.splitlines()]
        self.log_stub.add_response("get_log_events", {"events": events})

    def run(self, cancelled: Callable[[], bool] = never) -> Ended:
        ended = self.runner.run(JOB, lambda _: None, cancelled)
        self.stub.assert_no_pending_responses()
        self.log_stub.assert_no_pending_responses()
        return ended


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[Any, Any]]:
    """Real clients; making one takes longer than all that is asked of it."""
    session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="eu-west-2")
    sagemaker, logs = session.client("sagemaker"), session.client("logs")
    yield sagemaker, logs
    sagemaker.close()
    logs.close()


@pytest.fixture
def cloud(clients: tuple[Any, Any]) -> Iterator[Cloud]:
    made = Cloud(*clients)
    yield made
    made.stub.deactivate()
    made.log_stub.deactivate()


def test_a_training_job_brings_its_result_and_what_was_billed(cloud: Cloud) -> None:
    cloud.created()
    cloud.described("InProgress")
    cloud.described("Completed", "Completed", TrainingTimeInSeconds=30, BillableTimeInSeconds=31)
    cloud.said()
    ended = cloud.run()
    assert (ended.outcome, ended.result) == ("DONE", {"status": "PUBLISHED"})
    assert ended.usage == {"wall_ms": 30_000, "billed_ms": 31_000}


def test_a_training_job_that_exists_already_is_the_same_one(cloud: Cloud) -> None:
    cloud.stub.add_client_error("create_training_job", "ResourceInUse", "Training job names must be unique")
    cloud.described("Completed", "Completed")
    cloud.described("Completed", "Completed")
    cloud.said()
    assert cloud.run().outcome == "DONE"


def test_a_request_that_sagemaker_refuses_is_unavailable(cloud: Cloud) -> None:
    cloud.stub.add_client_error("create_training_job", "ValidationException", "no such image")
    cloud.stub.add_client_error("describe_training_job", "ValidationException", "Requested resource not found")
    ended = cloud.run()
    assert (ended.outcome, "no such image" in ended.reason) == ("UNAVAILABLE", True)


def test_a_blocked_training_is_blocked(cloud: Cloud) -> None:
    cloud.created()
    cloud.described("Failed", "Failed", FailureReason="AlgorithmError: exit code 3")
    cloud.said('{"result":{"status":"BLOCKED"}}')
    ended = cloud.run()
    assert (ended.outcome, ended.reason) == ("BLOCKED", "AlgorithmError: exit code 3")


def test_a_training_that_died_failed(cloud: Cloud) -> None:
    cloud.created()
    cloud.described("Failed", "Failed", FailureReason="AlgorithmError: exit code 137")
    cloud.said("no result")
    ended = cloud.run()
    assert (ended.outcome, ended.reason, ended.result) == ("FAILED", "AlgorithmError: exit code 137", None)


def test_a_training_that_hangs_is_ended_by_its_stopping_condition(cloud: Cloud) -> None:
    cloud.created()
    cloud.described("Stopped", "MaxRuntimeExceeded")
    cloud.said("slow")
    assert cloud.run().outcome == "TIMED_OUT"


def test_a_cancelled_training_is_stopped_there(cloud: Cloud) -> None:
    cloud.created()
    cloud.described("InProgress")
    cloud.stub.add_response("stop_training_job", {}, {"TrainingJobName": f"fp-{ID[:48]}"})
    cloud.described("Stopped", "Stopped")
    assert cloud.run(lambda: True).outcome == "CANCELLED"


def test_a_bundle_is_served_by_an_endpoint_and_by_batch(cloud: Cloud) -> None:
    model, arn = f"fp-bundle-{'c' * 32}", "arn:aws:sagemaker:eu-west-2:123456789012:x/x"
    cloud.stub.add_response("create_model", {"ModelArn": arn})
    cloud.stub.add_response("create_endpoint_config", {"EndpointConfigArn": arn})
    cloud.stub.add_response("create_endpoint", {"EndpointArn": arn})
    cloud.stub.add_response("create_transform_job", {"TransformJobArn": arn})
    serving = SageMakerServing(cloud.sagemaker, "image@sha256:1", "arn:aws:iam::123456789012:role/serve", "ml.m5.large")
    assert serving.create_model("c" * 32, "s3://b/bundle.tar.gz") == model
    assert serving.create_endpoint(model) == model
    serving.transform(model, "job", "s3://b/in", "s3://b/out")
    cloud.stub.assert_no_pending_responses()


def test_a_sagemaker_runner_needs_its_settings() -> None:
    settings = OfsTriggerSettings(
        instance="ofs_trigger-0", kafka_bootstrap="x:1", pg_dsn="postgresql://x", evidence_url="file:///x"
    )
    with pytest.raises(UserError, match="FP_SAGEMAKER_REGION"):
        open_sagemaker(settings)
