"""Start the world stream producer."""

from functools import partial

from fp_runtime import settings
from fp_runtime.evidence import open_store
from fp_runtime.participant import Participant
from fp_runtime.process import running
from fp_wsp import member
from fp_wsp.settings import WspSettings


def main() -> None:
    """Stream the world of every run, until asked to stop."""
    config, shared = settings.load(WspSettings), member.Shared()
    store = open_store(config.evidence_url, config.s3_endpoint)
    make = partial(Participant, config, member.evaluators(config, shared), shared.react, shared.metrics)
    with running(config, make, alone=True) as process:
        while (state := process.participant.wait_for_run(process.stopping)) is not None:
            member.serve(config, shared, store, process, state)


if __name__ == "__main__":
    main()
