"""Contracts of the payment-fraud mesh: records, topics, phases, ids, hashes; no I/O."""
