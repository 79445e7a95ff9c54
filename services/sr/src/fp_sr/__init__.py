"""Scenario runner (sr): pins a run and publishes READY."""
