"""Start a member of rtdl (`python -m fp_rtdl`) or its archive process (`python -m fp_rtdl archive`)."""

import sys
from functools import partial

from fp_rtdl import drill, facts
from fp_rtdl.member import Numbers, serve, serve_archive
from fp_rtdl.settings import RtdlSettings
from fp_runtime import settings
from fp_runtime.aside import Aside
from fp_runtime.participant import Participant, now_us
from fp_runtime.postgres import connect
from fp_runtime.process import running


def main() -> None:
    """Serve one run after the other until asked to stop; the participant's thread closes P8 and answers drills."""
    config = settings.load(RtdlSettings)
    numbers: Numbers = {}
    if sys.argv[1:] == ["archive"]:
        with running(config, lambda: Participant(config, {}, metrics=numbers.copy)) as process:
            while (state := process.participant.wait_for_run(process.stopping)) is not None:
                serve_archive(config, process, state, numbers)
        return
    control = connect(config.pg_dsn, f"{config.instance}/facts")
    gates = connect(config.pg_dsn, f"{config.instance}/gates")  # of its own: P8 is evaluated in another thread
    react = partial(drill.react, control, config.instance, now_us)
    p8 = Aside("P8", facts.evaluator(config, gates))
    with running(config, lambda: Participant(config, {"P8": p8}, react, numbers.copy)) as process:
        while (state := process.participant.wait_for_run(process.stopping)) is not None:
            serve(config, process, state, numbers)
    drill.withdraw(control, config.instance)


if __name__ == "__main__":
    main()
