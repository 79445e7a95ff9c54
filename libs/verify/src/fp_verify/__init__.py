"""Offline verification: recompute a run's verdict and every hash from its evidence. Depends on contracts only."""
