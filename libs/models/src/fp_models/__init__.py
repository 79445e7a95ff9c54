"""Model bundles: their format, verified loading, and scores with the same bits in trainer, server and df."""
