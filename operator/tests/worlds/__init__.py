"""Tests of the worlds (a package, so that the folder `operator` never shadows the standard module)."""
