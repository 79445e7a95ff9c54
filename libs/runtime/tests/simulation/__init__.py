"""A seeded simulation of the event-time dataflow in memory: the design's rules, every fault, every planted bug."""
