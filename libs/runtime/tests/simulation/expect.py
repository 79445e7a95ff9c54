"""What must come out, computed from the world alone: no logs, no frontiers, no processes."""

from collections import defaultdict
from typing import Any, NamedTuple

from fp_contracts import topics
from fp_contracts.partition import partition_of

from .join import Accounts, Join, Snapshot, deadline_of
from .world import ADJUDICATION, EFFECT_DELAY, LANES, RANKS, Event, World


class Expected(NamedTuple):
    """Snapshots and decisions without offsets, per payment; line classes per (lane, seq)."""

    snapshots: dict[str, dict[str, Any]]
    decisions: dict[str, dict[str, Any]]
    classes: dict[tuple[str, int], str]
    admitted: int


def expect(world: World) -> Expected:
    """The only right answer for a world."""
    classes, events = _admitted(world)
    per_target: dict[int, list[tuple[tuple[int, int, int], Snapshot]]] = defaultdict(list)
    for partition in range(topics.LANES):
        for number, snapshot in enumerate(_snapshots(world, partition, events)):
            target = partition_of(snapshot.key, topics.LANES)
            per_target[target].append(((snapshot.release, partition, number), snapshot))
    snapshots: dict[str, dict[str, Any]] = {}
    decisions: dict[str, dict[str, Any]] = {}
    for ordered in per_target.values():
        accounts = Accounts()
        for _, snapshot in sorted(ordered, key=lambda item: item[0]):
            decision = accounts.decide(snapshot.replays)
            accounts.apply(snapshot.replays, decision)
            snapshots[decision["event"]] = snapshot.replays
            decisions[decision["event"]] = decision
    return Expected(snapshots, decisions, classes, len(events))


def _admitted(world: World) -> tuple[dict[tuple[str, int], str], list[tuple[int, Event]]]:
    """Classes of all lines, and the admitted events with their order_ts, in lane order."""
    first: dict[str, Event] = {}
    classes: dict[tuple[str, int], str] = {}
    events: list[tuple[int, Event]] = []
    for lane in (*LANES, ADJUDICATION):
        for line in world.lanes[lane]:
            event = line.event
            known = first.get(event.event_id) if event else None
            if event is None or (known is not None and known != event):
                classes[lane, line.seq] = "QUARANTINED"
            elif known is not None:
                classes[lane, line.seq] = "DUPLICATE"
            else:
                classes[lane, line.seq] = "ADMITTED"
                first[event.event_id] = event
                events.append((line.order + (EFFECT_DELAY if lane == ADJUDICATION else 0), event))
    return classes, events


def _snapshots(world: World, partition: int, events: list[tuple[int, Event]]) -> list[Snapshot]:
    mine = [
        (order, RANKS[event.topic], event)
        for order, event in events
        if partition_of(event.merchant, topics.TOPICS[event.topic].partitions)
        == partition % topics.TOPICS[event.topic].partitions
        and order < world.end
    ]
    mine.sort(key=lambda item: item[:2])  # stable: lane order within an input
    join, out = Join(), list[Snapshot]()
    waiting: dict[int, int] = {}

    def fire(before: tuple[int, int]) -> None:
        while waiting and (first := min((at, 9, str(payment)) for payment, at in waiting.items()))[:2] < before:
            out.append(join.expire(waiting.pop(int(first[2])), int(first[2])))

    for order, rank, event in mine:
        fire((order, rank))
        done = join.merge(order, event, ("", 0, 0))
        if done is not None:
            waiting.pop(done.payment, None)
            out.append(done)
        elif event.payment in join.pending and event.payment not in waiting:
            waiting[event.payment] = deadline_of(event, world.window_end(order))
    fire((world.end, 0))
    return out
