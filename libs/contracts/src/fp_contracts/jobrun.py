"""What a learning job says of its own run: the code, the environment and the inputs, read by its own process."""

from collections.abc import Iterable

from pydantic import Field

from fp_contracts.canonical import digest_of
from fp_contracts.envelope import Closed, Hex64

QUALITY_MEASURES = ("rows", "frauds", "fraud_rate_ppm", "coverage_ppm", "conflict_ppm", "degraded")
PARITY_MEASURES = ("payments", "equal")
"""What a dataset job shows in telemetry, by the names of its quality and parity reports."""


class InputsRead(Closed):
    """Objects that were resolved and read: how many, how large, and a digest over what they are."""

    objects: int = Field(ge=0)
    size: int = Field(ge=0)
    digest: Hex64


class JobRuntime(Closed):
    """The running job. `instance` is `<begin of the request's sha256>-<pid>` and stands in its telemetry, too.

    `environment_lock`: sha256 of the lock file above the code, None where there is none; `unlocked`: distributions that
    are installed in another version than the lock names (the first twenty).
    """

    package: str
    instance: str
    build_digest: Hex64
    environment_lock: Hex64 | None
    unlocked: tuple[str, ...]
    python: str


def inputs_of(objects: Iterable[tuple[str, tuple[str, int]]]) -> InputsRead:
    """Of distinct objects given as (key, (sha256, size))."""
    found = sorted((key, sha256, size) for key, (sha256, size) in objects)
    size = sum(size for _, _, size in found)
    return InputsRead(objects=len(found), size=size, digest=digest_of([list(one) for one in found]))
