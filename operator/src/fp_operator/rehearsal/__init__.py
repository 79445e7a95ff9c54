"""The rehearsal of a teardown on a scratch namespace, between P11 and P16 of a run (gates.md, Six proofs)."""
