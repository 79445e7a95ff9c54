"""Settings of the scenario runner."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class SrSettings(RuntimeSettings):
    """What sr needs beside the shared settings: the digests it holds every pin against."""

    handles_digest: str = Field("", description="Digest of the handle registry as resolved at start-up")
    gate_wait_s: float = Field(20.0, gt=0, description="How long a pin waits for the gates of P(-1) and P0, seconds")
