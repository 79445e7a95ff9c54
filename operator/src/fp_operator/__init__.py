"""Operator: the fp command, the local stack, the worlds."""
