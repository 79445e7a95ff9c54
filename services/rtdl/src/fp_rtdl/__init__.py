"""Real-time decision loop (rtdl): joins, merchant features, archive."""
