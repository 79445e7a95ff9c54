"""Start the verdict service."""

from fp_runtime import settings
from fp_runtime.evidence import open_store
from fp_runtime.participant import Participant, now_us
from fp_runtime.postgres import connect
from fp_runtime.process import running
from fp_verdict.service import Reporter
from fp_verdict.settings import VerdictSettings


def main() -> None:
    """Watch one run after the other until asked to stop; the participant's thread closes P2, P11 and P16."""
    config = settings.load(VerdictSettings)
    store = open_store(config.evidence_url, config.s3_endpoint)
    reporter = Reporter(connect(config.pg_dsn, "verdict/gates"), store, config.instance, now_us)
    with running(config, lambda: Participant(config, {"P2": reporter.evaluate_p2}, reporter.react)) as process:
        while not process.stopping():
            process.turn()
            process.stop.wait(config.watch_interval_s)


if __name__ == "__main__":
    main()
