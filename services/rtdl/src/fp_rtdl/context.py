"""The parts of payments that the join of one partition keeps for the context horizon. Pure."""

from bisect import bisect_left
from collections import deque
from typing import Any, NamedTuple

from fp_rtdl.decode import Anchor, Arrival, ArrivalKey, Entities

NEVER_US = 2**63


class Kept(NamedTuple):
    """One entry of the context with the time (µs) after which it is forgotten; `table` names what it is."""

    expires_us: int
    table: str
    value: Arrival | Entities | Anchor | str


class Context:
    """Parts kept for the horizon, `flows` = the flows bound to an arrival. The first word on a key stands.

    `fresh` is what came since the last checkpoint took it.
    """

    def __init__(self) -> None:
        self.arrivals: dict[ArrivalKey, Arrival] = {}
        self.entities: dict[ArrivalKey, Entities] = {}
        self.anchors: dict[str, Anchor] = {}
        self.rebound: dict[str, str] = {}
        self.flows: dict[ArrivalKey, list[str]] = {}
        self.fresh: list[Kept] = []
        self._tables: dict[str, dict[Any, Any]] = {
            "arrival": self.arrivals, "entities": self.entities, "anchor": self.anchors, "rebound": self.rebound,
        }  # fmt: skip
        self._expiry: deque[tuple[int, str, Any]] = deque()
        self.oldest_us = NEVER_US
        """When the next entry expires: before that, `prune` has nothing to do."""

    def put(self, kept: Kept, key: ArrivalKey | str) -> bool:
        """Keep a part unless its key is taken; whether it was kept."""
        table = self._tables[kept.table]
        if key in table:
            return False
        table[key] = kept.value
        if type(kept.value) is Anchor:
            self.flows.setdefault(kept.value.key, []).append(kept.value.flow_id)
        self._expiry.append((kept.expires_us, kept.table, key))
        if kept.expires_us < self.oldest_us:
            self.oldest_us = kept.expires_us
        return True

    def prune(self, clock_us: int) -> None:
        """Forget what expired before the merge clock: by the order, so that batching cannot change a join."""
        expiry = self._expiry
        while expiry and expiry[0][0] < clock_us:
            _, table, key = expiry.popleft()
            value = self._tables[table].pop(key)
            if table == "anchor":
                self.flows[value.key].remove(value.flow_id)
                if not self.flows[value.key]:
                    del self.flows[value.key]
        self.oldest_us = expiry[0][0] if expiry else NEVER_US

    def fresh_after(self, clock_us: int) -> tuple[Kept, ...]:
        """Of what is fresh, what has not expired: times never fall, since each is the merge clock plus the horizon."""
        return tuple(self.fresh[bisect_left(self.fresh, (clock_us,)) :])

    def __len__(self) -> int:
        return len(self._expiry)


def key_of(value: Arrival | Entities | Anchor) -> ArrivalKey | str:
    """The key under which a part is kept."""
    return value.flow_id if isinstance(value, Anchor) else value.key
