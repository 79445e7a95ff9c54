"""What a job left behind, read back by reference: gates judge these bytes, never a job's word."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fp_contracts.canonical import CanonicalError, parse_strict
from fp_contracts.control import EvidenceRef
from fp_ofs_trigger.jobs import EndSeen
from fp_runtime.evidence import EvidenceBroken, EvidenceKeyError, EvidenceMissing, EvidenceStore, read

M = TypeVar("M", bound=BaseModel)
EMBEDDED_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Artifact:
    """One object that a job named: its document, or why it does not count. `ref` None = the job named none."""

    name: str
    ref: EvidenceRef | None
    document: Any
    fault: str | None

    def evidence(self) -> dict[str, Any]:
        """What goes into the phase's own evidence: the reference, and the document unless it is large."""
        ref = None if self.ref is None else self.ref.model_dump(mode="json")
        small = self.ref is not None and self.ref.size <= EMBEDDED_BYTES
        return {"ref": ref, "fault": self.fault, "document": self.document if small else None}

    def field(self, *path: str) -> Any:
        """A value of the document by its path; None where there is none."""
        found = self.document
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found


def fetch(store: EvidenceStore, name: str, ref: EvidenceRef | None) -> Artifact:
    """Read back one JSON object by size and hash. Unavailable when the store is down."""
    if ref is None:
        return Artifact(name, None, None, "not named")
    try:
        return Artifact(name, ref, parse_strict(read(store, ref)), None)
    except (EvidenceMissing, EvidenceBroken, EvidenceKeyError) as error:
        return Artifact(name, ref, None, f"{type(error).__name__}: {str(error)[:120]}")
    except CanonicalError as error:
        return Artifact(name, ref, None, f"no canonical JSON: {error}")


@dataclass(frozen=True, slots=True)
class JobReport:
    """How a job ended and everything it named, read back. `seen` None = it has not ended."""

    seen: EndSeen | None
    result: Artifact
    artifacts: Mapping[str, Artifact]

    def faults(self) -> list[str]:
        """Named objects that do not count."""
        return [f"{found.name}: {found.fault}" for found in (self.result, *self.artifacts.values()) if found.fault]

    def parsed(self, model: type[M]) -> M | None:
        """The result as its contract model; None when it is not one."""
        return parsed(self.result, model)


def parsed(artifact: Artifact, model: type[M]) -> M | None:
    """An artifact as a contract model; None when it breaks the contract or is not there."""
    if artifact.fault is not None or artifact.ref is None:
        return None
    try:
        return model.model_validate(artifact.document, strict=False, extra="ignore")
    except ValidationError:
        return None


def report_of(store: EvidenceStore, seen: EndSeen | None, names: tuple[str, ...]) -> JobReport:
    """Read back a job's result and the objects that it names under `names`."""
    if seen is None:
        return JobReport(None, Artifact("result", None, None, None), {})
    result = fetch(store, "result", seen.event.result)
    artifacts = {name: fetch(store, name, _ref(result.field(name))) for name in names}
    return JobReport(seen, result, artifacts)


def _ref(found: Any) -> EvidenceRef | None:
    try:
        return None if found is None else EvidenceRef.model_validate(found)
    except ValidationError:
        return None
