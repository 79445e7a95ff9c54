"""A tiny sealed world: payments, their parts, labels, and the disturbances that the sender makes of them."""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from fp_contracts import topics
from fp_contracts.header import Kind
from fp_contracts.partition import partition_of

JOIN_WAIT, ADJUDICATION_DELAY, EFFECT_DELAY = 8, 9, 7
LANES = tuple(str(lane) for lane in range(topics.LANES))
ADJUDICATION = "adjudication"
FOREVER = 2**40
PARTS = (topics.ARRIVAL_EVENTS, topics.ARRIVAL_ENTITIES, topics.FLOW_ANCHOR)
RANKS = {topics.LABELS: 0, **{topic: rank for rank, topic in enumerate((*PARTS, topics.TRAFFIC), 1)}}
KINDS = {
    topics.ARRIVAL_EVENTS: Kind.ARRIVAL_EVENT,
    topics.ARRIVAL_ENTITIES: Kind.ARRIVAL_ENTITIES,
    topics.FLOW_ANCHOR: Kind.FLOW_ANCHOR,
    topics.LABELS: Kind.LABEL_ASSERTION,
}


class Event(NamedTuple):
    """One event as the world knows it; `mutant` = same id, other payload."""

    event_id: str
    topic: str
    kind: Kind
    ts: int
    payment: int
    merchant: str
    account: str
    amount: int
    mutant: bool = False


class Line(NamedTuple):
    """One numbered line of a lane; event None = poison.

    `order` is its natural order_ts, `at` the world time of sending.
    """

    seq: int
    position: int
    at: int
    order: int
    event: Event | None


@dataclass
class World:
    """Lines per lane, window ends, and `at` of every world position (never falling)."""

    seed: int
    window_ends: tuple[int, ...]
    lanes: dict[str, list[Line]] = field(default_factory=dict)
    at: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.window_ends[-1]

    def window_end(self, order: int) -> int:
        """The end of the window that an order_ts belongs to."""
        return next(end for end in self.window_ends if order < end)

    def at_position(self, position: int) -> int:
        """Nothing at or behind `position` that is not late has a ts below this."""
        return self.at[position] if position < len(self.at) else FOREVER


def build(seed: int) -> World:
    """The world of a seed: always the same."""
    rng = random.Random(f"world {seed}")
    events = _payments(rng, rng.randint(6, 14))
    last = max(event.ts for event in events)
    world = World(seed, (rng.randint(last // 3, 2 * last // 3), last + 25))
    sent = sorted(_disturbed(rng, events), key=lambda item: item[0])
    by_lane: dict[str, list[Line]] = defaultdict(list)
    for position, (at, merchant, event) in enumerate(sent):
        lane = str(partition_of(merchant, topics.LANES))
        if event is not None and event.topic == topics.LABELS:
            lane = ADJUDICATION
        lines = by_lane[lane]
        floor = lines[-1].order if lines else 0
        lines.append(Line(len(lines) + 1, position, at, max(floor, event.ts if event else 0), event))
        world.at.append(at)
    world.lanes = {lane: by_lane[lane] for lane in (*LANES, ADJUDICATION)}
    return world


def _payments(rng: random.Random, count: int) -> list[Event]:
    merchants = [f"m{rng.randrange(1000)}" for _ in range(rng.randint(1, 9))]
    accounts = [f"a{rng.randrange(1000)}" for _ in range(rng.randint(1, 6))]
    events, ts = [], 1
    for payment in range(count):
        ts += rng.choice((0, 0, 1, 2, 6))
        who = payment, rng.choice(merchants), rng.choice(accounts), rng.randint(1, 99)
        auth_ts = ts + rng.randint(0, 1)
        events += [
            Event(f"{topic[7:]}-{payment}", topic, KINDS[topic], ts, *who) for topic in PARTS if rng.random() > 0.06
        ]
        events.append(Event(f"auth-{payment}", topics.TRAFFIC, Kind.AUTH_REQUEST, auth_ts, *who))
        if rng.random() < 0.4:
            events.append(Event(f"answer-{payment}", topics.TRAFFIC, Kind.TRAFFIC_OTHER, auth_ts + 2, *who))
        if rng.random() < 0.5:
            observed = auth_ts + ADJUDICATION_DELAY
            events.append(Event(f"label-{payment}", topics.LABELS, Kind.LABEL_ASSERTION, observed, *who))
    return sorted(events, key=lambda event: event.ts)


def _disturbed(rng: random.Random, events: list[Event]) -> list[tuple[int, str, Event | None]]:
    """(time of sending, merchant, event): late parts, duplicates, mutants and poison."""
    sent: list[tuple[int, str, Event | None]] = []
    for event in events:
        at = event.ts
        if event.topic in PARTS and rng.random() < 0.12:
            at += rng.randint(1, 2 * JOIN_WAIT)
        sent.append((at, event.merchant, event))
        if rng.random() < 0.08:
            sent.append((at + rng.randint(0, 5), event.merchant, event))
        if event.topic != topics.LABELS and rng.random() < 0.04:
            sent.append((at + rng.randint(0, 5), event.merchant, event._replace(amount=0, mutant=True)))
        if event.topic != topics.LABELS and rng.random() < 0.04:
            sent.append((at, event.merchant, None))
    return sent
