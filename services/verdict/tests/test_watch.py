"""Alert rules fire once per crossing, on the member that owns the stalled partition."""

from fp_verdict.watch import SILENCE_US, STALL_US, Sample, Watch


def look(watch: Watch, at_us: int, n: int, lag: int = 5, seen_us: int | None = None) -> list[tuple[str, str]]:
    sample = Sample(at_us, {3: n}, {3: lag}, {"df-0": at_us if seen_us is None else seen_us}, {})
    return [(alert.rule, alert.instance) for alert in watch.observe(sample)]


def test_a_partition_that_stands_still_with_input_fires_once() -> None:
    watch = Watch(members=2)
    assert look(watch, 0, 10) == []
    assert look(watch, STALL_US - 1, 10) == []
    assert look(watch, STALL_US, 10) == [("rtdl_stalled", "rtdl-1")]
    assert look(watch, STALL_US + 1, 10) == []
    assert look(watch, STALL_US + 2, 11) == []
    assert look(watch, 2 * STALL_US + 2, 11) == [("rtdl_stalled", "rtdl-1")]


def test_a_partition_without_input_never_fires() -> None:
    watch = Watch(members=2)
    assert look(watch, 0, 10, lag=0) == []
    assert look(watch, 10 * STALL_US, 10, lag=0) == []
    assert look(watch, 11 * STALL_US - 1, 10) == []
    assert look(watch, 11 * STALL_US, 10) == [("rtdl_stalled", "rtdl-1")]


def test_a_silent_instance_fires() -> None:
    watch = Watch(members=1)
    assert look(watch, SILENCE_US, 1, lag=0, seen_us=0) == [("heartbeat_silent", "df-0")]
    assert look(watch, SILENCE_US + 1, 1, lag=0, seen_us=0) == []


def test_each_restart_of_a_member_fires_once() -> None:
    watch = Watch(members=2)
    fired = []
    for at_us, epoch in enumerate((1, 1, 2, 2, 3)):
        alerts = watch.observe(Sample(at_us, {}, {}, {}, {"rtdl-1": epoch, "rtdl-0": 1}))
        fired += [(alert.rule, alert.instance, alert.observed) for alert in alerts]
    assert fired == [("member_restarted", "rtdl-1", 2), ("member_restarted", "rtdl-1", 3)]
