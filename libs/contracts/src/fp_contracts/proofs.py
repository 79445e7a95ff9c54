"""The six-proof matrix: lanes × proofs (spec Appendix B, gates.md). One artifact never serves two cells."""

LANES = ("spine", "ofs", "mf", "mpr", "teardown")
PROOFS = ("deploy", "monitor", "failure_drill", "recovery", "rollback", "cost_control")


def proof_key(run: str, lane: str, proof: str) -> str:
    """Evidence key of one cell's artifact."""
    return f"evidence/runs/{run}/proofs/{lane}/{proof}.json"
