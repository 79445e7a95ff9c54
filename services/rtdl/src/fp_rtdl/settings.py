"""Settings of rtdl and its archive process."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class RtdlSettings(RuntimeSettings):
    """What rtdl and its archive need beside the shared settings."""

    archive_records: int = Field(20_000, ge=1, description="An archive object is written at this many records")
    archive_held: int = Field(100_000, ge=1, description="Records of all partitions in memory: about a kB each")
    archive_flush_s: float = Field(
        10.0, gt=0, description="Seconds after which the archive writes what it holds, however little"
    )
