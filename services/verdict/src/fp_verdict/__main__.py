"""Start the verdict service."""

import time
from collections.abc import Sequence
from functools import partial

from fp_contracts.fold import RunState
from fp_runtime import settings
from fp_runtime.aside import Aside
from fp_runtime.bus import FetchProfile
from fp_runtime.controllog import Event
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer
from fp_runtime.participant import Evaluate, Participant, now_us
from fp_runtime.postgres import connect
from fp_runtime.process import running
from fp_verdict.closing import ClosingDesk, evaluator
from fp_verdict.http import serve
from fp_verdict.reading import PageDesk
from fp_verdict.reconcile import evaluate_p11
from fp_verdict.sampling import Watchman
from fp_verdict.service import Reporter
from fp_verdict.settings import VerdictSettings
from fp_verdict.spinefacts import SpineDesk
from fp_verdict.windowdesk import WindowDesk


def main() -> None:
    """Watch one run after the other until asked to stop; the participant's thread closes P2, P11 and P16."""
    config = settings.load(VerdictSettings)
    store = open_store(config.evidence_url, config.s3_endpoint)
    archive = open_store(config.archive_url, config.s3_endpoint)
    own = partial(connect, config.pg_dsn)  # a connection for each thread
    reader = partial(open_consumer, config, "fp.verdict.gates", fetch=FetchProfile.READBACK)
    pages = PageDesk(store)
    reporter = Reporter(own("verdict/gates"), store, pages, config.instance, now_us)
    spine = SpineDesk(own("verdict/spine"), store, archive, reader, now_us)
    window = WindowDesk(own("verdict/window"), store, archive, reader, time.monotonic)
    finale = ClosingDesk(own("verdict/final"), store, reader, now_us)
    gates: dict[str, Evaluate] = {
        "P2": reporter.evaluate_p2,
        "P11": Aside("P11", lambda state: evaluate_p11(spine.gather(state))),
        "P16": evaluator(finale),
    }
    watchman = Watchman(own("verdict/watch"), reader(), now_us)

    def react(state: RunState) -> Sequence[Event]:
        return (*reporter.react(state), *window.react(state))

    with running(config, lambda: Participant(config, gates, react), alone=True) as process:
        if config.page_port:
            serve(config.page_host, config.page_port, process.participant.state, pages, store)
        while not process.stopping():
            process.turn()
            state = process.participant.state()
            if state is not None:
                watchman.look(state)
            process.stop.wait(config.watch_interval_s)


if __name__ == "__main__":
    main()
