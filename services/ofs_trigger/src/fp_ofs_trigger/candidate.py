"""What P14 hands to the corridor: the candidate, what its evaluation said, and the baseline beside it. Pure."""

from dataclasses import dataclass

from fp_contracts.registry import BundlePublished


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the evaluation report says of the test rows: how many, and the sha256 of their float64 scores in order."""

    rows: int
    scores_sha256: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What P14 gave: the bundle as it would be published, and why it may not be (empty = eligible).

    `challenger`: the baseline's bundle, to be scored in shadow; `challenger_fault`: why it cannot be.
    """

    published: BundlePublished
    faults: tuple[str, ...]
    evaluated: Evaluated
    challenger: BundlePublished | None = None
    challenger_fault: str | None = None
