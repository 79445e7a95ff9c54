"""The outside adjudicator: what it will say of each payment, and when. Pure."""

from bisect import bisect
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from fp_contracts.runconfig import RunConfig
from fp_wsp.expand import CHUNK_PAYMENTS, RANK_LABEL, Event
from fp_wsp.world import TruthRow


class Adjudication(NamedTuple):
    """One verdict of the outside adjudicator; `ts_us` is its observed_time. Merges with events by (ts_us, rank, …)."""

    ts_us: int
    rank: int
    event_id: str
    merchant_id: str
    account_id: str
    is_fraud: bool
    effective_us: int


def adjudications(truth: Iterable[TruthRow], config: RunConfig) -> Iterator[Adjudication]:
    """observed_time = payment time + the pinned delay; frauds only unless the run says "all".

    Payments before the run's first window are not in the run, so nobody speaks of them.
    """
    first_us = config.windows[0].start_us
    for row in truth:
        if row.ts_us >= first_us and (row.is_fraud or config.adjudication == "all"):
            yield Adjudication(
                row.ts_us + config.adjudication_delay_us,
                RANK_LABEL,
                row.event_id,
                row.merchant_id,
                row.account_id,
                row.is_fraud,
                row.ts_us,
            )


def with_adjudications(
    events: Iterable[list[Event]], verdicts: Iterable[Adjudication]
) -> Iterator[list[Event | Adjudication]]:
    """Events and verdicts in one order of event time: a verdict takes its world position among the events."""
    verdicts = iter(verdicts)
    verdict = next(verdicts, None)
    for stretch in events:
        merged: list[Event | Adjudication] = []
        at = 0
        while verdict is not None and stretch and verdict < stretch[-1]:
            place = bisect(stretch, verdict, at)
            merged += stretch[at:place]
            merged.append(verdict)
            at, verdict = place, next(verdicts, None)
        merged += stretch[at:]
        yield merged
    if verdict is not None:
        yield [verdict]
    while rest := list(islice(verdicts, CHUNK_PAYMENTS)):
        yield [*rest]
