"""Settings of the world stream producer."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class WspSettings(RuntimeSettings):
    """What wsp needs beside the shared settings."""

    producer_keys: str = Field(repr=False, description="Key that signs this producer's tokens: kid:hex")
    ig_url: str = Field("http://127.0.0.1:8080", description="Address of the ingest gateway")
    cm_url: str = Field("http://127.0.0.1:8081", description="Address of the external-adjudication API of cm_ls")
    token_life_s: int = Field(600, ge=10, description="Life of a token, seconds")
    reply_timeout_s: float = Field(10.0, gt=0, description="How long a reply is waited for before the batch is resent")
