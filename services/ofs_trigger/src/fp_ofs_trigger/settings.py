"""Settings of the learning triggers."""

from typing import Literal

from pydantic import Field

from fp_runtime.settings import RuntimeSettings

_GIB = 1 << 30


class OfsTriggerSettings(RuntimeSettings):
    """What ofs_trigger needs beside the shared settings."""

    agent_dir: str = Field("", description="Folder for working files of agents and local jobs; empty = a temporary one")
    learning_url: str = Field("", description="Store of datasets, bundles and job reports; empty = the archive store")
    job_memory_bytes: int = Field(6 * _GIB, ge=_GIB // 4, description="Address space that a local job may take")
    ofs_runner: Literal["local", "databricks"] = Field("local", description="Where dataset jobs run")
    mf_runner: Literal["local", "sagemaker"] = Field("local", description="Where training jobs run")
    databricks_host: str = Field("", description="Databricks workspace address, for the databricks runner")
    databricks_job_id: int = Field(0, ge=0, description="Databricks job that runs the dataset wheel")
    sagemaker_region: str = Field("", description="AWS region of SageMaker, for the sagemaker runner")
    sagemaker_role_arn: str = Field("", description="Execution role of training jobs")
    sagemaker_image: str = Field("", description="Image of training jobs, by digest")
    sagemaker_instance: str = Field("ml.m5.large", description="Instance type of training jobs")
    tracking_url: str = Field("", description="MLflow tracking and registry address; empty = no tracker")
    telemetry_url: str = Field("", description="Where exported telemetry is read back: file of the sink; empty = none")
