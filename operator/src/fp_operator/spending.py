"""What the operator's own work costs: the usage of this process and of the stack's programs between two moments."""

import os
import time
from collections.abc import Mapping

from fp_operator.metering import Reading, families, read_tree, used
from fp_operator.prices import price_table
from fp_operator.stack import Supervisor
from fp_runtime import meter


class Spending:
    """Counts from the moment it is made; `microusd()` is what was used since, by the price table."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._prices = price_table()[0]
        self._at = time.monotonic()
        self._before = self._read()

    def microusd(self) -> int:
        """Cost so far, µUSD; a program that ended in between is counted as far as it was seen."""
        seconds = time.monotonic() - self._at
        usages = [used(self._before.get(name), now, seconds) for name, now in self._read().items()]
        return sum(meter.price(usage, self._prices) for usage in usages)

    def window_us(self) -> int:
        """Microseconds since the beginning."""
        return int((time.monotonic() - self._at) * 1_000_000)

    def _read(self) -> Mapping[str, Reading]:
        family = families()
        found = {"fp": read_tree(os.getpid(), family)}
        if self._supervisor.alive():
            found |= {n: read_tree(state.pid, family) for n, state in self._supervisor.states().items() if state.pid}
        return {name: reading for name, reading in found.items() if reading is not None}
