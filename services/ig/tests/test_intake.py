"""The intake by itself: who is waited for, and for how long."""

import time

from fp_ig.intake import EXPECT_S, LATELY_S, Batch, Intake


def test_a_request_that_has_stopped_holds_up_no_take() -> None:
    at_s = 0.0
    intake = Intake(clock=lambda: at_s)
    with intake.expecting():
        at_s = LATELY_S
        began = time.monotonic()
        for n in range(100):
            assert intake.offer(batch := Batch(0, n + 1, [], 5, "wsp"))
            assert intake.take(10, gather=6) == [batch]
        assert time.monotonic() - began < 50 * EXPECT_S
        with intake.expecting():
            assert intake.expected == 2
    assert intake.expected == 0
