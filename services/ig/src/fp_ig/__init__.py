"""Ingest gateway (ig): admits events and journals every claim."""
