"""The bundle that decides today: what a candidate must not fall behind, and what drift is measured from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts.bundle import PROFILE_FILE, TrainRequest
from fp_contracts.canonical import parse_strict, sha256_hex
from fp_mf import drift
from fp_mf.errors import fail
from fp_mf.evaluate import Fitted
from fp_models import Bundle, BundleBroken, fetch


@dataclass(frozen=True, slots=True)
class Active:
    """The active bundle when it can be compared, its profile when it has one, and what to say of it."""

    bundle: Bundle | None = None
    profile: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def drift(self, fitted: Fitted) -> dict[str, int]:
        """PSI (ppm) of the test window against the profile; the active bundle's own scores stand for "score"."""
        if self.profile is None or fitted.active_scores is None:
            return {}
        test = fitted.split.test
        return drift.stability(dict(self.profile), test.names, test.features, fitted.active_scores)


def find_active(get: Callable[[str], bytes], request: TrainRequest) -> Active:
    """The active bundle of the request; one made for other features cannot be compared, and that is said.

    Errors: Blocked B14 when it is damaged.
    """
    if request.active is None:
        return Active()
    try:
        bundle = fetch(get, request.active, schema_digest=request.feature_schema_digest)
    except BundleBroken as error:
        if error.reason == "SCHEMA":
            return Active(notes=("the active bundle is made for other features: compared with the baseline alone",))
        fail(f"the active bundle {request.active.bundle_id} is damaged: {error}")
    expected = bundle.manifest.profile_sha256
    if expected is None:
        return Active(bundle, notes=("the active bundle has no profile: drift unknown",))
    key = f"{request.active.manifest.key.rpartition('/')[0]}/{PROFILE_FILE}"
    try:
        raw = get(key)
    except KeyError:
        fail(f"{key} is missing")
    if sha256_hex(raw) != expected:
        fail(f"{key} is not the profile of the active bundle")
    return Active(bundle, parse_strict(raw))
