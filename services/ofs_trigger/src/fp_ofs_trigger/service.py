"""Learning triggers: reads the learning topics; the corridor P12–P15 stays OPEN until it is built."""

import asyncio
import time
from collections.abc import Callable

import faust

from fp_ofs_trigger.domain import Seen

STOP_POLL_S = 0.25


class LearningEvents:
    """The count of learning events, written by the agents' thread and read by the heartbeat."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.last_event_s = 0.0

    def on_event(self, topic: str, body: bytes) -> None:
        """Note one record; bodies get their meaning with the learning lane."""
        self.seen = self.seen.note(topic)
        self.last_event_s = time.monotonic()


async def serve(app: faust.App, turn: Callable[[], None], stopping: Callable[[], bool]) -> None:
    """Run the agents until asked to stop; raises what ended the participant, or an agent's crash."""
    app.finalize()
    await app.start()
    try:
        while not stopping():
            turn()
            if app.crashed:
                raise RuntimeError("a learning agent crashed")
            await asyncio.sleep(STOP_POLL_S)
    finally:
        await app.stop()
