"""Settings of the decision fabric and of its action layer."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from fp_runtime.settings import RuntimeSettings


class DfSettings(RuntimeSettings):
    """What df needs beside the shared settings."""

    learning_url: str = Field("", description="Store of model bundles, read only; empty = the archive store")
    actuator_url: str = Field("", description="Address of the actuator that executes intents, http://host:port")


class ActuatorSettings(BaseSettings):
    """What the embedded actuator needs: no bus, no database."""

    model_config = SettingsConfigDict(env_prefix="FP_", frozen=True, extra="ignore")

    actuator_port: int = Field(ge=1, le=65535, description="Port on which the actuator listens")
    actuator_file: str = Field(min_length=1, description="File of the actuator's own durable store")
