"""Verdict: gate fold, run report, governance, run page."""
