"""Addresses handed from the stack to services."""

from fp_operator.stack.addresses import StackAddresses, given_addresses

STACK = StackAddresses(
    kafka_bootstrap="127.0.0.1:1",
    pg_dsn="postgresql://fp_owner:secret@127.0.0.1:2/fp?sslmode=disable",
    redis_url="redis://fp:secret@127.0.0.1:3/0",
    evidence_url="file:///s/evidence",
    archive_url="file:///s/archive",
    oracle_url="file:///s/oracle",
)


def test_another_role_keeps_host_database_and_options() -> None:
    assert STACK.pg_dsn_as("fp_df", "p@:/w") == "postgresql://fp_df:p%40%3A%2Fw@127.0.0.1:2/fp?sslmode=disable"
    assert STACK.pg_dsn_for("other") == "postgresql://fp_owner:secret@127.0.0.1:2/other?sslmode=disable"


def test_the_environment_reads_back_as_the_same_addresses() -> None:
    environment = STACK.environment()
    assert "FP_OTLP_ENDPOINT" not in environment
    assert StackAddresses(**given_addresses(environment)) == STACK


def test_an_empty_variable_is_not_given() -> None:
    assert given_addresses({"FP_KAFKA_BOOTSTRAP": "", "FP_PG_DSN": "x", "OTHER": "y"}) == {"pg_dsn": "x"}


def test_no_password_shows_in_the_text_of_the_value() -> None:
    assert "secret" not in repr(STACK)
