"""Start df: `python -m fp_df` decides, `python -m fp_df actions` acts, `python -m fp_df actuator` is acted upon."""

import signal
import sys
import threading
from functools import partial
from pathlib import Path

from fp_df import member
from fp_df.actuator import Effects, make_app
from fp_df.catalogue import policies
from fp_df.settings import ActuatorSettings, DfSettings
from fp_runtime import logs, settings
from fp_runtime.listener import Listener
from fp_runtime.participant import Participant
from fp_runtime.process import running


def decide() -> None:
    """Decide every payment of every run, until asked to stop."""
    config, catalogue = settings.load(DfSettings), policies()
    shared = member.Shared(rescore=member.Rescorer(config))
    make = partial(Participant, config, member.evaluators(config, catalogue), shared.react, shared.metrics)
    with running(config, make) as process:
        while (state := process.participant.wait_for_run(process.stopping)) is not None:
            member.serve(config, catalogue, shared, process, state)


def act() -> None:
    """Execute every intent, until asked to stop."""
    config, shared, catalogue = settings.load(DfSettings), member.ActShared(), policies()
    with running(config, partial(Participant, config, {}, metrics=shared.metrics)) as process:
        while (state := process.participant.wait_for_run(process.stopping)) is not None:
            member.act(config, catalogue, shared, process, state)


def be_acted_upon() -> None:
    """Serve the embedded actuator until asked to stop."""
    config, stop = ActuatorSettings(), threading.Event()
    logs.configure("actuator-0")
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    listener = Listener(make_app(Effects(Path(config.actuator_file))), "127.0.0.1", config.actuator_port)
    while not stop.wait(0.5):
        listener.check()
    listener.close()


if __name__ == "__main__":
    {"": decide, "actions": act, "actuator": be_acted_upon}["".join(sys.argv[1:])]()
