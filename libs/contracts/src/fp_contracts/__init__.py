"""Contracts of the payment-fraud mesh: records, topics, phases, ids and hashes. Pure: no I/O, no clock."""
