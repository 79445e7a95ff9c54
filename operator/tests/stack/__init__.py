"""Unit tests of the embedded stack (a package, so that the folder `operator` never shadows the standard module)."""
