"""The effect of the model on real tables: what df committed against the label store as of the end of window 2."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fp_contracts import topics
from fp_contracts.control import EvidenceRef, WindowEnded
from fp_contracts.fold import RunState
from fp_contracts.header import Kind
from fp_contracts.reasons import Action
from fp_contracts.runconfig import RunConfig, RunHeader, Window, config_digest
from fp_df import domain, payloads, sample
from fp_df.catalogue import policies
from fp_df.domain import Advice, Scored
from fp_df.plan import plan_of
from fp_df.records import RecordWriter
from fp_df.snapshot import read_snapshot
from fp_features import CORE_V1, AccountState
from fp_operator import effect
from fp_runtime import outbox
from fp_runtime.postgres import Connection, connect

pytestmark = pytest.mark.stack

HOUR_US = 3_600_000_000
START_US = sample.START_US + HOUR_US
WINDOWS = (Window(start_us=sample.START_US, end_us=START_US), Window(start_us=START_US, end_us=START_US + 100))
REF = "bundle:" + "d" * 64
CONFIG = RunConfig.model_validate(
    {
        "profile": "local", "scope": "full", "manifest_fingerprint": "b" * 64, "windows": WINDOWS,
        "feature_schema_digest": CORE_V1.schema_digest,
        "policies": {rev: digest for rev, (_, digest) in policies().items()},
        "policy_initial": "spine-v1", "authority_digest": "e" * 64, "handles_digest": "f" * 64,
        "image_manifest_digest": "a" * 64, "price_table_digest": "0" * 64, "envelopes": (),
        "adjudication_delay_us": 50,
    }
)  # fmt: skip
HEADER = RunHeader(
    platform_run_id=sample.RUN, scenario_run_id="1" * 32, config=CONFIG, run_config_digest=config_digest(CONFIG),
    start_offsets={name: {str(part): 0 for part in range(topic.partitions)} for name, topic in topics.TOPICS.items()},
    lane_writers={}, pinned_us=1, pin_partition=0, pin_offset=0,
)  # fmt: skip
ENDED = WindowEnded(window=2, lane_seqs={}, ledger_ref=EvidenceRef(key="k", sha256="a" * 64, size=1))
STATE = RunState(sample.RUN, header=HEADER, windows_ended={2: ENDED})
# event time in µs after the start of window 2 (the payment is a millisecond older than its place in the order)
AT = {"before": -10, "fraud": 0, "legit": 10, "late word": 20, "unscored": 30, "immature": 1_051}


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    """A run with six payments: one of window 1, five of window 2, of which one was decided without a model."""
    feed, writer = sample.Feed(), RecordWriter(sample.PINS, "df:0", plan_of(HEADER, policies()).partitions)
    policy = policies()["spine-v1"][0]
    with connect(database, "wire-effect") as opened:
        with opened.transaction(), opened.cursor() as cur:
            for number, (name, at_us) in enumerate(AT.items()):
                at_us = min(START_US + at_us, WINDOWS[1].end_us - 1)
                made = feed.snapshot(number, at_us, "acc", 5_000, event_us=START_US + AT[name])
                snapshot = read_snapshot(made.value)
                vector = domain.full_vector(snapshot, AccountState(), at_us)
                told = domain.GUARDRAILS if name == "unscored" else Advice(REF, Scored(0.9, Action.BLOCK), None)
                decided = domain.make_decision(sample.RUN, snapshot, vector, policy, told)
                text = payloads.render(decided, 0, number).payload
                outbox.add(
                    cur, sample.RUN, [writer.write(Kind.DECISION, decided.decision_id, "acc", at_us, text, None)]
                )
            for number, observed in ((1, 50), (3, 100), (5, 50)):  # the second is said when the window has ended
                cur.execute(
                    "INSERT INTO cm.assertion VALUES (%s, %s, %s, 'm', 'acc', 'fraud_disposition', 'FRAUD_CONFIRMED',"
                    " 0, %s, 0, 'EXTERNAL', 'bo', 0, %s, '')",
                    (sample.RUN, f"a{number}", f"auth-{number}", START_US + observed, number),
                )
        yield opened


def test_it_is_read_from_what_was_committed_and_known_when_the_window_ended(conn: Connection) -> None:
    found = effect.of_run(conn, STATE)
    assert (found.payments, found.frauds, found.immature, found.without_model) == (3, 1, 1, 1)
    assert (found.fraud_minor, found.currency, found.per_day) == (5_000, "EUR", 60)
    assert (found.with_model.fraud_blocked_minor, found.with_model.legit_blocked_minor) == (5_000, 10_000)
    assert (found.guardrails.fraud_blocked_minor, found.guardrails.by_action["ALLOW"]) == (0, 3)


def test_a_word_of_before_the_end_is_known(conn: Connection) -> None:
    later = WINDOWS[1].model_copy(update={"end_us": WINDOWS[1].end_us + 1})
    config = CONFIG.model_copy(update={"windows": (WINDOWS[0], later)})
    header = HEADER.model_copy(update={"config": config})
    assert effect.of_run(conn, replace(STATE, header=header)).frauds == 2
