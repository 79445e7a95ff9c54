"""A look at a run in a thread of its own: reading topics back may take longer than a heartbeat or a lease may wait."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from fp_contracts.fold import RunState

_REST = 3.0
Found = TypeVar("Found")


class Aside(Generic[Found]):
    """Answers None until what it looks for is there; each answer given is gathered anew. Of evaluations: an Evaluate.

    The work inside must own what it uses (connections, consumers). What it raises is raised when it is asked for.
    What it found for another run, or another attempt of `phase`, is dropped. It rests three times as long as it worked.
    """

    def __init__(
        self, phase: str, look: Callable[[RunState], Found | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` in seconds."""
        self._phase = phase
        self._look = look
        self._clock = clock
        self._asked: tuple[str, int] | None = None
        self._pending: Future[Found | None] | None = None
        self._began_s = 0.0
        self._rest_until_s = 0.0

    def __call__(self, state: RunState) -> Found | None:
        """What was found for this run's attempt once it is there; begins to look when nothing is under way."""
        asked = state.platform_run_id, state.attempt_of(self._phase)
        if self._pending is not None:
            if not self._pending.done():
                return None
            pending, self._pending = self._pending, None
            if self._asked == asked:
                self._rest_until_s = self._clock() + _REST * (self._clock() - self._began_s)
                return pending.result()
        if self._asked == asked and self._clock() < self._rest_until_s:
            return None
        self._asked, self._began_s, self._pending = asked, self._clock(), Future()
        # A daemon: a process that is asked to stop does not wait for what nobody will hear.
        work = threading.Thread(
            target=self._work, args=(state, self._pending), name=f"aside-{self._phase}", daemon=True
        )  # fmt: skip
        work.start()
        return None

    def _work(self, state: RunState, pending: "Future[Found | None]") -> None:
        try:
            pending.set_result(self._look(state))
        except BaseException as error:  # noqa: BLE001  # raised again by who asks
            pending.set_exception(error)
