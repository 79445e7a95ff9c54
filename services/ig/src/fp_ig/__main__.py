"""Start the ingest gateway."""

from fp_ig.gateway import Gateway
from fp_ig.settings import IgSettings
from fp_runtime import settings
from fp_runtime.participant import Participant
from fp_runtime.process import running


def main() -> None:
    """Serve open runs until asked to stop; the participant's thread closes P4 and P7."""
    config = settings.load(IgSettings)
    gateway = Gateway(config)
    with running(config, lambda: Participant(config, gateway.gates(), metrics=gateway.metrics)) as process:
        door, listener = gateway.listen(process.health)

        def stopping() -> bool:
            process.turn()
            listener.check()
            return process.stopping()

        while (state := process.participant.wait_for_run(stopping)) is not None:
            gateway.serve(state, door, lambda: stopping() or process.participant.run_over())
        listener.close()


if __name__ == "__main__":
    main()
