"""Dataset jobs on Databricks job clusters: run-now with an idempotency token, one repair, result from its output."""

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fp_ofs_trigger.runners import Ended, Job, Progress, check_id, concluded
from fp_ofs_trigger.runners.lines import JobOutput
from fp_runtime.errors import UserError

POLL_S = 10.0
# Life-cycle and result states of the Jobs API 2.1.
_OVER = frozenset({"TERMINATED", "SKIPPED", "INTERNAL_ERROR"})
_REPAIRED_ONCE = frozenset({"INTERNAL_ERROR"})
_TOKEN_CHARACTERS = 64


class JobsDown(Exception):
    """The workspace does not answer or refuses."""


class JobsApi(Protocol):
    """The Jobs API 2.1 as JSON documents. Every method raises JobsDown."""

    def run_now(self, job_id: int, token: str, parameters: list[str]) -> int:
        """Run id; the same token gives the same run."""
        ...

    def get_run(self, run_id: int) -> Mapping[str, Any]:
        """The run with its state and tasks."""
        ...

    def output(self, task_run_id: int) -> Mapping[str, Any]:
        """What a task printed (`logs`, its last 5 MB) and its `error`."""
        ...

    def repair(self, run_id: int) -> None:
        """Run the failed tasks once more."""
        ...

    def cancel(self, run_id: int) -> None:
        """Ask the run to end."""
        ...


class DatabricksRunner:
    """runners.Runner on one prepared job whose wheel task takes the same arguments as the command line."""

    name = "databricks"

    def __init__(
        self, api: JobsApi, job_id: int, request_url: Callable[[Job], str],
        wait: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._api = api
        self._job_id = job_id
        self._request_url = request_url
        self._wait = wait
        self._clock = clock

    def run(self, job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Ended:
        """See Runner."""
        started, ref = self._clock(), ""
        try:
            token = check_id(job.request_id)[:_TOKEN_CHARACTERS]
            run_id = self._api.run_now(self._job_id, token, ["run", self._request_url(job), "--out", job.out_url])
            ref = f"run {run_id}"
            state, why = self._watch(run_id, started + job.limits.wall_s, cancelled)
            usage = {"wall_ms": int((self._clock() - started) * 1_000)}
            if why is not None:
                return Ended(why, str(state.get("state_message", ""))[:200], None, b"", ref, usage)
            return self._concluded(run_id, state, progress, ref, usage)
        except JobsDown as error:
            return Ended("UNAVAILABLE", str(error)[:200], None, b"", ref, {})

    def _watch(self, run_id: int, deadline: float, cancelled: Callable[[], bool]) -> tuple[Mapping[str, Any], Any]:
        """(last state, TIMED_OUT or CANCELLED when we ended it)."""
        why, repaired = None, False
        while True:
            state: Mapping[str, Any] = self._api.get_run(run_id).get("state", {})
            if state.get("life_cycle_state") in _OVER:
                broken = state.get("life_cycle_state") in _REPAIRED_ONCE
                if why is not None or repaired or not broken:
                    return state, why
                self._api.repair(run_id)
                repaired = True
            elif why is None and (self._clock() >= deadline or cancelled()):
                why = "TIMED_OUT" if self._clock() >= deadline else "CANCELLED"
                self._api.cancel(run_id)
            self._wait(POLL_S)

    def _concluded(
        self, run_id: int, state: Mapping[str, Any], progress: Callable[[Progress], None], ref: str,
        usage: Mapping[str, int],
    ) -> Ended:  # fmt: skip
        tasks = self._api.get_run(run_id).get("tasks", [])
        output, said = JobOutput(progress), self._api.output(int(tasks[-1]["run_id"])) if tasks else {}
        for line in str(said.get("logs", "")).encode().splitlines():
            output.take(line)
        output.note(str(said.get("error", "")).encode())
        # The exit code is not given; what a blocked job says of itself is.
        blocked = output.result is not None and output.result.get("status") == "BLOCKED"
        code = 3 if blocked else 0 if state.get("result_state") == "SUCCESS" else 1
        ended = concluded(code, output.result, output.log(), ref, usage)
        return ended if ended.outcome == "DONE" else ended._replace(reason=str(state.get("state_message", ""))[:200])


class SdkJobs:
    """JobsApi through databricks-sdk; `client` is its WorkspaceClient."""

    def __init__(self, client: Any) -> None:
        self._jobs = client.jobs
        self._error: type[Exception] = importlib.import_module("databricks.sdk.errors").DatabricksError

    def _ask(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (self._error, OSError) as error:
            raise JobsDown(str(error)) from error

    def run_now(self, job_id: int, token: str, parameters: list[str]) -> int:
        """See JobsApi."""
        wait = self._ask(lambda: self._jobs.run_now(job_id, idempotency_token=token, python_params=parameters))
        return int(wait.response.run_id)

    def get_run(self, run_id: int) -> Mapping[str, Any]:
        """See JobsApi."""
        return dict(self._ask(lambda: self._jobs.get_run(run_id)).as_dict())

    def output(self, task_run_id: int) -> Mapping[str, Any]:
        """See JobsApi."""
        return dict(self._ask(lambda: self._jobs.get_run_output(task_run_id)).as_dict())

    def repair(self, run_id: int) -> None:
        """See JobsApi."""
        self._ask(lambda: self._jobs.repair_run(run_id, rerun_all_failed_tasks=True))

    def cancel(self, run_id: int) -> None:
        """See JobsApi."""
        self._ask(lambda: self._jobs.cancel_run(run_id))


def open_databricks(host: str, job_id: int) -> DatabricksRunner:
    """The runner on a workspace; credentials come from the SDK's own chain. UserError for a missing setting or SDK."""
    if not host or not job_id:
        raise UserError("databricks runner", "no workspace or job", "set FP_DATABRICKS_HOST and FP_DATABRICKS_JOB_ID")
    try:
        sdk = importlib.import_module("databricks.sdk")
    except ImportError as error:
        raise UserError("databricks runner", "its SDK is missing", "install fp-ofs-trigger[databricks]") from error
    jobs = SdkJobs(sdk.WorkspaceClient(host=host))
    return DatabricksRunner(jobs, job_id, lambda job: f"{job.out_url}/jobs/{job.request_id}/request.json")
