"""Settings that every service shares, read once from `FP_…` variables in `__main__` and passed down."""

from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fp_runtime.errors import UserError


class RuntimeSettings(BaseSettings):
    """Addresses and identity of one process. Secrets stay out of `repr` and of validation messages."""

    model_config = SettingsConfigDict(env_prefix="FP_", frozen=True, extra="forbid", hide_input_in_errors=True)

    profile: Literal["local", "kind", "dev_full"] = Field("local", description="Environment profile")
    instance: str = Field(
        pattern=r"^[a-z][a-z0-9_]*-\d+$", description="Name of this member: service and ordinal, e.g. rtdl-0"
    )
    kafka_bootstrap: str = Field(min_length=1, description="Kafka bootstrap servers, host:port[,host:port]")
    pg_dsn: str = Field(min_length=1, repr=False, description="PostgreSQL connection string of this service's role")
    redis_url: str | None = Field(
        None, repr=False, description="Redis address of the write-behind copy, if there is one"
    )
    evidence_url: str = Field(description="Evidence store: file:///absolute/folder or s3://bucket/prefix")
    archive_url: str = Field(
        "", description="Archive store of bus records: file:///absolute/folder or s3://bucket/prefix"
    )
    oracle_url: str = Field(
        "", description="Oracle store of sealed worlds: file:///absolute/folder or s3://bucket/prefix"
    )
    s3_endpoint: str | None = Field(None, description="Address of an S3-compatible server; none = AWS")
    topic_prefix: str = Field("", description="Prefix of every topic name, for tests and replays; dev_full refuses it")
    authority_digest: str = Field("", description="Digest of the pinned design authority and handle registry")
    otlp_endpoint: str | None = Field(
        None, description="OTLP/HTTP address of the telemetry collector; none = no export"
    )
    health_host: str = Field("127.0.0.1", description="Address on which the health server listens")
    health_port: int = Field(0, ge=0, le=65535, description="Port of the health server; 0 = any free one")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged")
    failpoints: str = Field("", description="Armed failpoints, name:kill:N[,name:raise:N]; dev_full refuses them")
    msk_region: str | None = Field(None, description="AWS region of an MSK cluster with IAM; none = plain Kafka")

    @model_validator(mode="after")
    def _dev_full_is_strict(self) -> Self:
        if self.profile == "dev_full" and (self.topic_prefix or self.failpoints):
            raise ValueError("profile dev_full refuses a topic prefix and failpoints")
        return self

    @property
    def service(self) -> str:
        """The service part of the instance name."""
        return self.instance.rpartition("-")[0]

    @property
    def ordinal(self) -> int:
        """The number of this member among those of its service."""
        return int(self.instance.rpartition("-")[2])


S = TypeVar("S", bound=RuntimeSettings)


def load(kind: type[S]) -> S:
    """Read settings from the environment; UserError naming each missing or wrong variable, never its value."""
    try:
        return kind()
    except ValidationError as error:
        faults = [f"{_variable(fault['loc'])} ({fault['msg']})" for fault in error.errors()]
        raise UserError("settings", "; ".join(faults), "set the variables named here") from error


def _variable(location: tuple[int | str, ...]) -> str:
    return "FP_" + "_".join(str(part) for part in location).upper() if location else "FP_PROFILE"
