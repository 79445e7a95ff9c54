"""Settings of the ingest gateway."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class IgSettings(RuntimeSettings):
    """What ig needs beside the shared settings."""

    producer_keys: str = Field(repr=False, description="Keys of producer tokens: kid:hex[,kid:hex], 16 bytes or more")
    ig_host: str = Field("127.0.0.1", description="Address on which the ingest endpoint listens")
    ig_port: int = Field(0, ge=0, le=65535, description="Port of the ingest endpoint; 0 = that of FP_IG_URL")
    ig_url: str = Field("http://127.0.0.1:8080", description="Address at which producers reach this gateway")
    body_deadline_s: float = Field(5.0, gt=0, description="How long the body of a request may take before 408, s")
    http_deadline_s: float = Field(2.0, gt=0, description="How long a request waits for its classes before 202, s")
    max_waiting: int = Field(64, ge=1, description="Batches that may wait for the writer before 429")
    delivery_timeout_s: float = Field(8.0, gt=0, description="How long a publish is tried before it is unknown, s")
