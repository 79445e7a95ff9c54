"""Settings of the verdict service."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class VerdictSettings(RuntimeSettings):
    """What verdict needs beside the shared settings: where its page is served and how it watches."""

    page_host: str = Field("127.0.0.1", description="Address on which the run page is served")
    page_port: int = Field(0, ge=0, le=65535, description="Port of the run page; 0 = not served")
    watch_interval_s: float = Field(0.5, gt=0, description="How often alert rules are sampled, seconds")
