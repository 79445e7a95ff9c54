"""Settings of case management and label store."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class CmSettings(RuntimeSettings):
    """What cm_ls needs beside the shared settings."""

    producer_keys: str = Field(repr=False, description="Keys of producer tokens: kid:hex[,kid:hex], 16 bytes or more")
    cm_host: str = Field("127.0.0.1", description="Address on which the case and adjudication API listens")
    cm_port: int = Field(ge=1, le=65535, description="Port of the case and adjudication API")
    body_deadline_s: float = Field(5.0, gt=0, description="How long the body of a request may take before 408, s")
    http_deadline_s: float = Field(5.0, gt=0, description="How long a request waits for its classes before 202, s")
    max_waiting: int = Field(64, ge=1, description="Batches that may wait for the desk, and readers, before 429")
