"""Reading topics back: every record between recorded starts and the ends as of now, for gates and tools."""

from collections.abc import Iterator, Mapping

from fp_runtime.bus import Consumer, Record, TopicPartition
from fp_runtime.errors import Unavailable

QUIET_S = 30.0
_POLL_S = 0.5
_BATCH = 500


def read_back(
    consumer: Consumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None
) -> Iterator[Record]:
    """Records of each partition from its start (inclusive) to its end, in order per partition.

    `ends` (exclusive-next) are those as of the call unless given. Unavailable when nothing comes for 30 s although the
    ends are not reached; raises OffsetOutOfRange.
    """
    if ends is None:
        ends = consumer.ends(starts)
    left = {tp for tp, at in starts.items() if ends[tp] > at}
    consumer.assign({tp: starts[tp] for tp in left})
    quiet_s = 0.0
    while left:
        records = consumer.poll(_BATCH, _POLL_S)
        quiet_s = 0.0 if records else quiet_s + _POLL_S
        if quiet_s > QUIET_S:
            raise Unavailable(f"{len(left)} partitions were not read to their ends within {QUIET_S:g} s")
        for record in records:
            place = (record.topic, record.partition)
            if record.offset < ends[place]:
                yield record
            if record.offset + 1 >= ends[place] and place in left:
                left.discard(place)
                consumer.pause([place])
