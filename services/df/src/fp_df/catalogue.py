"""The policies that this build carries, as package data."""

from importlib.resources import files

from fp_df.policy import FACTS, Policy, parse_policy, unknown_facts
from fp_runtime.errors import UserError

Catalogue = dict[str, tuple[Policy, str]]


def policies() -> Catalogue:
    """Revision -> (policy, digest). UserError for a document that is named wrongly or asks for unknown facts."""
    found: Catalogue = {}
    for entry in sorted(files("fp_df").joinpath("policies").iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(".json"):
            continue
        policy, digest = parse_policy(entry.read_bytes())
        unknown = unknown_facts(policy, FACTS)
        if unknown or f"{policy.policy_rev}.json" != entry.name:
            why = f"facts nobody provides: {sorted(unknown)}" if unknown else f"it says {policy.policy_rev}"
            raise UserError(f"policy {entry.name}", why, "mend the document under policies/")
        found[policy.policy_rev] = (policy, digest)
    return found
