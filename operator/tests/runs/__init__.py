"""Tests of what turns services into runs."""
