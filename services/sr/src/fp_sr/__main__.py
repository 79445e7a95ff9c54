"""Start the scenario runner."""

from functools import partial

from fp_contracts import topics
from fp_runtime import controllog, settings
from fp_runtime.bus import FetchProfile
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer, open_producer
from fp_runtime.participant import Participant
from fp_runtime.postgres import connect
from fp_runtime.process import running
from fp_sr import adapters, service
from fp_sr.domain import Environment
from fp_sr.settings import SrSettings


def main() -> None:
    """Answer pin requests until asked to stop; the participant's thread closes P1 and P5."""
    config = settings.load(SrSettings)
    environment = Environment(config.profile, config.topic_prefix, config.authority_digest, config.handles_digest)
    desk_conn, gate_conn = connect(config.pg_dsn, "sr/desk"), connect(config.pg_dsn, "sr/gates")
    reader = partial(open_consumer, config, "fp.sr.lookup", fetch=FetchProfile.CONTROL)
    gates = {
        "P1": partial(service.evaluate_p1, environment, gate_conn),
        "P5": partial(service.evaluate_p5, gate_conn, reader),
    }
    store = open_store(config.evidence_url, config.s3_endpoint)
    with running(config, lambda: Participant(config, gates, partial(service.react, gate_conn)), alone=True) as process:
        producer = open_producer(config)
        desk = service.PinDesk(
            desk_conn, producer, store, environment, config.gate_wait_s, config.instance, process.turn
        )
        desk.resume()
        requests = open_consumer(config, "fp.sr", fetch=FetchProfile.CONTROL)
        begins = requests.begins([(topics.CONTROL, part) for part in range(controllog.PARTITIONS)])
        requests.assign(adapters.scan_starts(desk_conn, begins))
        while not process.stopping():
            process.turn()
            for record in requests.poll(500, 0.5):
                desk.answer(record, reader)


if __name__ == "__main__":
    main()
