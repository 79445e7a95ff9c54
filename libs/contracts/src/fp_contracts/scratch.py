"""Names of a scratch namespace: all follow from its run id, so none of them can be a name of the platform's own."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import StringConstraints

KINDS = ("process", "port", "topic", "database", "key", "folder")
"""What a teardown ends and a residual scan looks for. Evidence is none of it: it stays."""
_PATTERN = "platform_[0-9]{8}T[0-9]{6}Z-r[0-9a-f]{12}"
_RUN = re.compile(_PATTERN)
ScratchRun = Annotated[str, StringConstraints(pattern=f"^{_PATTERN}$")]


def scratch_run(stamp: str, tag: str) -> str:
    """The run id of a scratch namespace; `stamp` = platform_YYYYMMDDTHHMMSSZ, `tag` = 12 hex digits."""
    return f"{stamp}-r{tag}"


@dataclass(frozen=True, slots=True)
class Scratch:
    """The scratch namespace of one rehearsal; ValueError unless `run` ends in -r and 12 hex digits."""

    run: str

    def __post_init__(self) -> None:
        if _RUN.fullmatch(self.run) is None:
            raise ValueError(f"not a scratch run: {self.run[:80]!r}")

    @property
    def tag(self) -> str:
        return self.run[-12:]

    @property
    def topic_prefix(self) -> str:
        return f"r{self.tag}."

    @property
    def database(self) -> str:
        """Its database; a name that begins so belongs to the namespace too."""
        return f"fp_r{self.tag}"

    @property
    def key_prefix(self) -> str:
        return f"fp:{self.run}:"

    @property
    def evidence_prefix(self) -> str:
        return f"evidence/runs/{self.run}/"

    def owns(self, kind: str, name: str) -> bool:
        """Whether a resource's name lies in this namespace; processes, ports and folders are told by their mark."""
        prefixes = {
            "topic": self.topic_prefix, "database": self.database, "key": self.key_prefix,
            "evidence": self.evidence_prefix,
        }  # fmt: skip
        return name.startswith(prefixes.get(kind, ""))
