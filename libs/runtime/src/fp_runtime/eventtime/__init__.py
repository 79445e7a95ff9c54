"""Deterministic event-time dataflow: lanes, sequences, frontiers and the strict merge, as pure code (dataflow.md)."""
