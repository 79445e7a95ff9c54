"""OFS: training rows from a run's own archive and labels, proved equal to what was served (learning.md §2)."""
