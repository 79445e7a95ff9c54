"""Settings of the decision fabric and of its action layer."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class DfSettings(RuntimeSettings):
    """What df needs beside the shared settings."""

    actuator_url: str = Field("", description="Address of the actuator that executes intents, http://host:port")


class ActuatorSettings(RuntimeSettings):
    """What the embedded actuator needs."""

    actuator_port: int = Field(0, ge=0, le=65535, description="Port on which the actuator listens")
    actuator_file: str = Field("", description="File of the actuator's own durable store")
