"""Start the learning triggers."""

import asyncio
import tempfile

from fp_ofs_trigger import adapters, service
from fp_ofs_trigger.settings import OfsTriggerSettings
from fp_runtime import settings
from fp_runtime.participant import Participant
from fp_runtime.process import running


def main() -> None:
    """Heartbeat and read the learning topics until asked to stop."""
    config = settings.load(OfsTriggerSettings)
    events = service.LearningEvents()
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(config, lambda: Participant(config, {}, metrics=lambda: events.seen.metrics())) as process,
    ):
        app = adapters.make_app(config, config.agent_dir or scratch, events.on_event)
        asyncio.run(service.serve(app, process.turn, process.stopping))


if __name__ == "__main__":
    main()
