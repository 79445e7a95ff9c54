"""MF: trains, evaluates, serves and batch-applies the model that may decide (learning.md §3)."""
