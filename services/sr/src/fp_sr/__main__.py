"""Start the scenario runner."""

import signal
import threading
from functools import partial

from fp_contracts import topics
from fp_runtime import controllog, settings
from fp_runtime.bus import FetchProfile
from fp_runtime.evidence import open_store
from fp_runtime.health import serve_health
from fp_runtime.kafka import open_consumer, open_producer
from fp_runtime.logs import configure_logs
from fp_runtime.participant import Participant
from fp_runtime.postgres import connect
from fp_sr import adapters, service
from fp_sr.domain import Environment
from fp_sr.settings import SrSettings


def main() -> None:
    """Answer pin requests until asked to stop; the participant thread closes P1 and P5."""
    config = settings.load(SrSettings)
    configure_logs(config)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    environment = Environment(config.profile, config.topic_prefix, config.authority_digest, config.handles_digest)
    desk_conn, gate_conn = connect(config.pg_dsn, "sr/desk"), connect(config.pg_dsn, "sr/gates")
    reader = partial(open_consumer, config, "fp.sr.lookup", fetch=FetchProfile.CONTROL)
    participant = Participant(
        config,
        {"P1": partial(service.evaluate_p1, environment), "P5": partial(service.evaluate_p5, gate_conn, reader)},
        partial(service.react, gate_conn),
    )
    participant.start()
    health = serve_health(config, participant)
    desk = service.PinDesk(
        desk_conn, open_producer(config), open_store(config.evidence_url, config.s3_endpoint), environment,
        config.gate_wait_s,
    )  # fmt: skip
    desk.resume()
    requests = open_consumer(config, "fp.sr", fetch=FetchProfile.CONTROL)
    begins = requests.begins([(topics.CONTROL, part) for part in range(controllog.PARTITIONS)])
    requests.assign(adapters.scan_starts(desk_conn, begins))
    while not stopping.is_set():
        participant.check()
        for record in requests.poll(500, 0.5):
            desk.answer(record, reader)
    participant.stop()
    health.close()


if __name__ == "__main__":
    main()
