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
    is_archive = sys.argv[1:] == ["archive"]
    numbers: Numbers = {}

    def participant() -> Participant:
        if is_archive:
            return Participant(config, {}, metrics=numbers.copy)
        control = connect(config.pg_dsn, f"{config.instance}/facts")
        react = partial(drill.react, control, config.instance, now_us)
        gates = connect(config.pg_dsn, f"{config.instance}/gates")  # of its own: P8 is evaluated in another thread
        return Participant(config, {"P8": Aside("P8", facts.evaluator(config, gates))}, react, numbers.copy)

    with running(config, participant) as process:
        while (state := process.participant.wait_for_run(process.stopping)) is not None:
            (serve_archive if is_archive else serve)(config, process, state, numbers)


if __name__ == "__main__":
    main()
