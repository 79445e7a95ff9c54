"""From a world to the configuration that a run pins: windows, policies, envelopes, digests. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fp_contracts.phases import ORDER, PHASES
from fp_contracts.runconfig import PolicySwitch, Realism, RunConfig, SpendLimit, Window
from fp_contracts.topics import TRAFFIC, pinned
from fp_features import CORE_V1
from fp_runtime.errors import UserError
from fp_wsp.realism import PPM
from fp_wsp.world import WorldManifest, whole_window

_SECOND_US = 1_000_000
_MOST_SEED = 2**63 - 1  # the largest integer that a canonical document holds
# Expected seconds and a cap in micro-USD: a phase that runs four times as long, or costs more, blocks. P12 to P14 train
# for minutes; P15 waits for a person's approval and for window 2.
_ENVELOPES: Mapping[str, tuple[int, int]] = {
    "P(-1)": (60, 20_000), "P0": (180, 50_000), "P6": (300, 100_000), "P7": (900, 400_000), "P8": (300, 100_000),
    "P9": (300, 100_000), "P10": (180, 50_000), "P11": (180, 50_000), "P12": (180, 100_000), "P13": (300, 200_000),
    "P14": (600, 400_000), "P15": (900, 400_000), "P16": (180, 50_000), "P17": (300, 100_000),
}  # fmt: skip
_DEFAULT_ENVELOPE = (120, 50_000)
_STOPS = "longer than four times the expected duration, spend over the cap, or alert 3"


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests that a run pins."""

    authority: str
    handles: str
    image_manifest: str
    price_table: str


def envelopes(payments: int) -> tuple[SpendLimit, ...]:
    """One spend envelope per phase, with room for the size of the world."""
    scale = max(1, payments // 50_000)
    limits = []
    for key in ORDER:
        seconds, cap = _ENVELOPES.get(key, _DEFAULT_ENVELOPE)
        limits.append(
            SpendLimit(
                phase=key, max_spend_microusd=cap * scale, expected_duration_s=seconds * scale, hard_stop=_STOPS,
                expected_artifacts=PHASES[key].evidence,
            )
        )  # fmt: skip
    return tuple(limits)


def window_of(manifest: WorldManifest, join_wait_ms: int) -> Window:
    """One window over the whole world; ends after the last join may wait."""
    start_us, end_us = whole_window(manifest)
    margin_us = join_wait_ms * 1_000 + _SECOND_US
    return Window(start_us=start_us, end_us=end_us + margin_us)


def windows_of(whole: Window, scope: str) -> tuple[Window, ...]:
    """Scope spine: everything at once. Scope full: three quarters to learn from, the last one for what was learnt."""
    if scope == "spine":
        return (whole,)
    turn_us = whole.start_us + (whole.end_us - whole.start_us) * 3 // 4
    return Window(start_us=whole.start_us, end_us=turn_us), Window(start_us=turn_us, end_us=whole.end_us)


def switches(window: Window, current: str, previous: str) -> tuple[PolicySwitch, ...]:
    """The rollback proof of every run: the previous policy from 40 % of event time on, the current from 50 % on."""
    span = window.end_us - window.start_us
    return (
        PolicySwitch(policy_rev=previous, effective_us=window.start_us + span * 4 // 10),
        PolicySwitch(policy_rev=current, effective_us=window.start_us + span * 5 // 10),
    )


def realism_of(given: Iterable[str]) -> Realism:
    """The declared disturbances but for those given as `field=number`; UserError for what is no field or no number.

    An event draws one fate, so the rates are shares of one million.
    """
    declared = Realism()
    for text in given:
        name, _, number = text.partition("=")
        if name not in Realism.model_fields or not (number.isdecimal() and number.isascii()):
            fields = ", ".join(Realism.model_fields)
            raise UserError(f"--realism {text[:60]!r}", "no field=number", f"name one of {fields}")
        most = PPM if name.endswith("_ppm") else _MOST_SEED
        if len(number) > len(str(_MOST_SEED)) or int(number) > most:
            raise UserError(f"--realism {text[:60]!r}", f"more than {most:,}", f"give a number from 0 to {most:,}")
        declared = declared.model_copy(update={name: int(number)})
    shares = sum(value for name, value in declared.model_dump().items() if name.endswith("_ppm"))
    if shares > PPM:
        why = f"the rates are {shares:,} per million together"
        raise UserError("--realism", why, "lower one of them; those that are not given keep what they are")
    return declared


def make_config(
    manifest: WorldManifest,
    digests: Digests,
    policies: Mapping[str, str],
    *,
    profile: str = "local",
    scope: str = "spine",
    realism: Realism | None = None,
    pace_per_s: int = 0,
    adjudication: str = "fraud",
    current: str = "spine-v1",
    previous: str = "spine-v0",
) -> RunConfig:
    """The configuration of a run over a whole world; its policy switches lie in window 1 whatever the scope."""
    join_wait_ms = 2_000
    whole = window_of(manifest, join_wait_ms)
    return RunConfig.model_validate(
        {
            "profile": profile,
            "scope": scope,
            "lanes": pinned(profile)[TRAFFIC].partitions,
            "manifest_fingerprint": manifest.fingerprint,
            "windows": windows_of(whole, scope),
            "join_wait_ms": join_wait_ms,
            "realism": realism or Realism(),
            "pace_per_s": pace_per_s,
            "adjudication": adjudication,
            "feature_set": CORE_V1.name,
            "feature_schema_digest": CORE_V1.schema_digest,
            "policies": dict(policies),
            "policy_initial": current,
            "policy_switches": switches(whole, current, previous),
            "authority_digest": digests.authority,
            "handles_digest": digests.handles,
            "image_manifest_digest": digests.image_manifest,
            "price_table_digest": digests.price_table,
            "envelopes": envelopes(manifest.rows),
        }
    )
