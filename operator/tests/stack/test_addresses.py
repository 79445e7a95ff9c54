"""Addresses handed from the stack to services."""

import pytest

from fp_operator.stack.addresses import VARIABLES, StackAddresses, check_form, given_addresses
from fp_runtime.errors import UserError

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


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("kafka_bootstrap", "127.0.0.1:9092"),
        ("kafka_bootstrap", "PLAINTEXT://b-1.x.kafka.eu-west-1.amazonaws.com:9098,[::1]:9092"),
        ("pg_dsn", "postgres://a:b@h/d?sslmode=disable"),
        ("redis_url", "rediss://a:b@h:1/0"),
    ],
)
def test_an_address_of_the_form_of_its_server_is_taken(field: str, address: str) -> None:
    check_form(field, address)


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("kafka_bootstrap", "rubbish"),
        ("kafka_bootstrap", "h:9092,"),
        ("pg_dsn", "host=x password=secret"),
        ("redis_url", "secret"),
    ],
)
def test_rubbish_is_named_by_its_variable_and_not_repeated(field: str, address: str) -> None:
    with pytest.raises(UserError, match=f"{VARIABLES[field]}: that is not the address of such a server") as raised:
        check_form(field, address)
    assert address not in str(raised.value)
