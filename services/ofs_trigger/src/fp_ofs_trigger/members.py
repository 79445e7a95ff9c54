"""What df's members reported of a registry revision. Pure."""

from dataclasses import dataclass

from fp_contracts import topics
from fp_contracts.bundle import BundleRef
from fp_contracts.control import BundleRescored
from fp_contracts.fold import RunState
from fp_contracts.registry import bundle_text


@dataclass(frozen=True, slots=True)
class Members:
    """Merged position by partition from which the expected bundle decides, and reports that say otherwise.

    `partitions`: how many must report.
    """

    positions: dict[int, int]
    otherwise: tuple[str, ...]
    partitions: int

    @property
    def complete(self) -> bool:
        """Whether every partition reported the expected bundle."""
        return not self.otherwise and len(self.positions) == self.partitions

    def document(self) -> dict[str, object]:
        """For evidence."""
        return {"positions": {str(part): n for part, n in sorted(self.positions.items())}, "otherwise": self.otherwise}


def reported(state: RunState, slot: str, revision: int, bundle: BundleRef | None) -> Members:
    """The reports of one revision against the bundle that it activates (None = guardrails)."""
    assert state.header is not None
    expected = None if bundle is None else bundle_text(bundle)
    positions: dict[int, int] = {}
    otherwise = []
    for event in state.bundles:
        if event.bundle_slot != slot or event.revision != revision:
            continue
        if event.bundle_ref == expected:
            positions[event.partition] = event.merged_n
        else:
            using = event.bundle_ref or "guardrails"
            otherwise.append(f"partition {event.partition} uses {using}: {event.reason}"[:200])
    return Members(positions, tuple(otherwise), state.header.partitions(topics.RTDL))


def rescored(state: RunState, bundle: BundleRef) -> BundleRescored | None:
    """What a df process answered for exactly this bundle."""
    named = (bundle.bundle_id, bundle.model_digest)
    return next((one for one in state.rescored if (one.bundle_id, one.model_digest) == named), None)
