"""Training jobs on SageMaker: one job per request name, its result from the store it wrote to; endpoint and batch."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from fp_ofs_trigger.runners import Ended, Job, Progress, check_id, concluded
from fp_ofs_trigger.runners.lines import JobOutput
from fp_runtime.errors import UserError

if TYPE_CHECKING:
    from fp_ofs_trigger.settings import OfsTriggerSettings

POLL_S = 15.0
_GIB = 1 << 30
_EXISTS = ("ResourceInUse", "ValidationException")


class SageMakerRunner:
    """runners.Runner on SageMaker training jobs. `sagemaker` and `logs` are boto3 clients."""

    name = "sagemaker"

    def __init__(
        self, sagemaker: Any, logs: Any, image: str, role_arn: str, instance: str,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._sagemaker = sagemaker
        self._logs = logs
        self._image = image
        self._role_arn = role_arn
        self._instance = instance
        self._wait = wait

    def run(self, job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Ended:
        """See Runner."""
        name = f"fp-{check_id(job.request_id)[:48]}"
        try:
            self._create(name, job)
            described, why = self._watch(name, cancelled)
            usage = {
                "wall_ms": int(described.get("TrainingTimeInSeconds", 0)) * 1_000,
                "billed_ms": int(described.get("BillableTimeInSeconds", 0)) * 1_000,
            }
            if why is not None:
                return Ended("CANCELLED", "stopped", None, b"", name, usage)
            return self._concluded(name, described, progress, usage)
        except (BotoCoreError, ClientError) as error:
            return Ended("UNAVAILABLE", str(error)[:200], None, b"", name, {})

    def _create(self, name: str, job: Job) -> None:
        """A job of this name may exist from an earlier try: it is then the same request's."""
        arguments = ["run", f"{job.out_url}/jobs/{job.request_id}/request.json", "--out", job.out_url]
        try:
            self._sagemaker.create_training_job(
                TrainingJobName=name,
                AlgorithmSpecification={
                    "TrainingImage": self._image, "TrainingInputMode": "File",
                    "ContainerEntrypoint": ["python", "-m", job.module], "ContainerArguments": arguments,
                },
                RoleArn=self._role_arn,
                OutputDataConfig={"S3OutputPath": f"{job.out_url}/sagemaker"},
                ResourceConfig={"InstanceType": self._instance, "InstanceCount": 1, "VolumeSizeInGB": 30},
                StoppingCondition={"MaxRuntimeInSeconds": job.limits.wall_s},
            )  # fmt: skip
        except ClientError as error:
            if error.response["Error"]["Code"] not in _EXISTS or not self._exists(name):
                raise

    def _exists(self, name: str) -> bool:
        try:
            self._sagemaker.describe_training_job(TrainingJobName=name)
        except ClientError:
            return False
        return True

    def _watch(self, name: str, cancelled: Callable[[], bool]) -> tuple[Mapping[str, Any], str | None]:
        why: str | None = None
        while True:
            described: Mapping[str, Any] = self._sagemaker.describe_training_job(TrainingJobName=name)
            if described["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
                return described, why
            if why is None and cancelled():
                why = "CANCELLED"
                self._sagemaker.stop_training_job(TrainingJobName=name)
            self._wait(POLL_S)

    def _concluded(
        self, name: str, described: Mapping[str, Any], progress: Callable[[Progress], None], usage: Mapping[str, int]
    ) -> Ended:
        output = JobOutput(progress)
        for line in self._lines(name):
            output.take(line.encode())
        reason = str(described.get("FailureReason", ""))[:200]
        if described.get("SecondaryStatus") == "MaxRuntimeExceeded":
            return Ended("TIMED_OUT", reason or "MaxRuntimeExceeded", None, output.log(), name, usage)
        # SageMaker tells that the container failed, not its exit code; a blocked job says so itself.
        blocked = output.result is not None and output.result.get("status") == "BLOCKED"
        code = 3 if blocked else 0 if described["TrainingJobStatus"] == "Completed" else 1
        ended = concluded(code, output.result, output.log(), name, usage)
        return ended if not reason else ended._replace(reason=reason)

    def _lines(self, name: str) -> list[str]:
        group = "/aws/sagemaker/TrainingJobs"
        streams = self._logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        lines: list[str] = []
        for stream in streams:
            found = self._logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=False
            )
            lines += [event["message"] for event in found["events"]]
        return lines


class SageMakerServing:
    """A bundle behind a realtime endpoint, and batch transform over a dataset. Names end in the bundle's id."""

    def __init__(self, sagemaker: Any, image: str, role_arn: str, instance: str) -> None:
        self._sagemaker = sagemaker
        self._image = image
        self._role_arn = role_arn
        self._instance = instance

    def create_model(self, bundle_id: str, bundle_url: str) -> str:
        """A model from a bundle's archive; its name."""
        name = f"fp-bundle-{bundle_id}"
        self._sagemaker.create_model(
            ModelName=name, PrimaryContainer={"Image": self._image, "ModelDataUrl": bundle_url},
            ExecutionRoleArn=self._role_arn,
        )  # fmt: skip
        return name

    def create_endpoint(self, model: str) -> str:
        """A realtime endpoint of one instance on a model; its name."""
        variant = {
            "VariantName": "one", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": self._instance,
        }  # fmt: skip
        self._sagemaker.create_endpoint_config(EndpointConfigName=model, ProductionVariants=[variant])
        self._sagemaker.create_endpoint(EndpointName=model, EndpointConfigName=model)
        return model

    def transform(self, model: str, job: str, input_url: str, output_url: str) -> None:
        """Score a dataset in one batch transform job."""
        self._sagemaker.create_transform_job(
            TransformJobName=job, ModelName=model, BatchStrategy="MultiRecord",
            TransformInput={
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": input_url}},
                "ContentType": "application/json", "SplitType": "Line",
            },
            TransformOutput={"S3OutputPath": output_url, "AssembleWith": "Line"},
            TransformResources={"InstanceType": self._instance, "InstanceCount": 1},
        )  # fmt: skip


def open_sagemaker(settings: "OfsTriggerSettings") -> SageMakerRunner:
    """The runner of a region; credentials come from the AWS chain. UserError for a missing setting."""
    if not (settings.sagemaker_region and settings.sagemaker_role_arn and settings.sagemaker_image):
        raise UserError(
            "sagemaker runner", "region, role or image is missing", "set FP_SAGEMAKER_REGION and the others"
        )
    region = settings.sagemaker_region
    return SageMakerRunner(
        boto3.client("sagemaker", region_name=region), boto3.client("logs", region_name=region),
        settings.sagemaker_image, settings.sagemaker_role_arn, settings.sagemaker_instance,
    )  # fmt: skip
