"""Control events about model bundles: what people approve and what df members report. Part of `control`."""

from typing import Literal

from fp_contracts.envelope import Closed, Hex32, Hex64, Id, TimeUs


class BundleApprovalGiven(Closed):
    """A named person approves the candidate bundle of a run for promotion; the corridor decides whether it counts."""

    type: Literal["bundle_approval_given"] = "bundle_approval_given"
    bundle_id: Hex32
    model_digest: Hex64
    actor: Id
    reason: str


class BundleSwitched(Closed):
    """A df member reports the merged position from which a registry revision decides.

    `bundle_ref` null = guardrails only, with the `reason` (rolled back, or why nothing named could serve).
    """

    type: Literal["bundle_switched"] = "bundle_switched"
    bundle_slot: str
    revision: int
    bundle_ref: str | None
    source: Literal["tenant", "global", "fallback", "guardrails"]
    effective_us: TimeUs
    partition: int
    merged_n: int
    reason: str = ""


class BundleRescored(Closed):
    """A df process scored the evaluation rows of a published bundle from the vectors that it served itself.

    `scores_sha256`: of the float64 scores in the order of the rows; null with the `reason` when there are none.
    `missing`: rows that df never decided.
    """

    type: Literal["bundle_rescored"] = "bundle_rescored"
    bundle_id: Hex32
    model_digest: Hex64
    rows: int
    missing: int
    scores_sha256: Hex64 | None
    reason: str = ""
