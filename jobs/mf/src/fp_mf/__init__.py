"""MF: trains, evaluates, serves and batch-applies the model that may decide (learning.md §3)."""

import os

# Before numpy is imported: a runner limits memory, and a BLAS whose threads got none for their buffers waits for them
# for ever instead of failing. One thread is also what keeps sums, and so the baseline's bytes, the same everywhere.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
