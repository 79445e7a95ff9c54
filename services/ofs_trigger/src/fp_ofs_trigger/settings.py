"""Settings of the learning triggers."""

from pydantic import Field

from fp_runtime.settings import RuntimeSettings


class OfsTriggerSettings(RuntimeSettings):
    """What ofs_trigger needs beside the shared settings."""

    agent_dir: str = Field("", description="Folder for the agents' working files; empty = a temporary one")
