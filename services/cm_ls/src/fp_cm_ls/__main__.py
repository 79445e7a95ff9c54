"""Start case management and label store."""

from functools import partial

from fp_cm_ls import member
from fp_cm_ls.http import Door, build
from fp_cm_ls.settings import CmSettings
from fp_runtime import settings
from fp_runtime.listener import Listener
from fp_runtime.participant import Participant
from fp_runtime.process import running
from fp_runtime.tokens import parse_keys


def main() -> None:
    """Serve open runs until asked to stop; the participant's thread closes P10."""
    config, shared = settings.load(CmSettings), member.Shared()
    make = partial(Participant, config, member.evaluators(config), metrics=shared.metrics)
    with running(config, make) as process:
        keys = parse_keys(config.producer_keys)
        door = Door(keys, process.health, config.http_deadline_s, config.body_deadline_s, config.max_waiting)
        listener = Listener(build(door), config.cm_host, config.cm_port)

        def stopping() -> bool:
            process.turn()
            listener.check()
            return process.stopping()

        while (state := process.participant.wait_for_run(stopping)) is not None:
            member.serve(config, shared, door, lambda: stopping() or process.participant.run_over(), state)
        listener.close()


if __name__ == "__main__":
    main()
