import pytest

from fp_runtime.deadline import until
from fp_runtime.errors import LaneStopped, Poison, Unavailable, UserError
from fp_runtime.settings import RuntimeSettings, load

REQUIRED = {
    "FP_INSTANCE": "rtdl-1",
    "FP_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "FP_PG_DSN": "postgresql://fp_rtdl:hunter2@127.0.0.1/fp",
    "FP_EVIDENCE_URL": "file:///tmp/evidence",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_instance_names_service_and_ordinal(environment: pytest.MonkeyPatch) -> None:
    settings = load(RuntimeSettings)
    assert (settings.service, settings.ordinal) == ("rtdl", 1)


def test_secrets_do_not_show(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FP_REDIS_URL", "redis://u:hunter2@h/0")
    assert "hunter2" not in repr(load(RuntimeSettings))


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_variable_is_named_with_its_fix(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(UserError, match=f"{name}.*Fix:"):
        load(RuntimeSettings)


@pytest.mark.parametrize("name", ["FP_TOPIC_PREFIX", "FP_FAILPOINTS"])
def test_dev_full_refuses_what_isolates_tests(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv("FP_PROFILE", "dev_full")
    load(RuntimeSettings)
    environment.setenv(name, "x")
    with pytest.raises(UserError, match="dev_full refuses"):
        load(RuntimeSettings)


def test_a_wrong_value_is_not_repeated(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FP_INSTANCE", "hunter2 hunter2")
    with pytest.raises(UserError) as caught:
        load(RuntimeSettings)
    assert "hunter2" not in str(caught.value)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in RuntimeSettings.model_fields.values())


def test_errors_say_what_the_loop_needs() -> None:
    assert str(Poison("SCHEMA", "no amount")) == "SCHEMA: no amount"
    assert Poison("SCHEMA").reason == "SCHEMA"
    assert issubclass(LaneStopped, Unavailable)


def test_until_gives_the_first_result_and_names_what_did_not_come() -> None:
    answers = iter([None, False, 0])
    assert until(lambda: next(answers), 1, "an answer", interval_s=0) == 0
    with pytest.raises(TimeoutError, match="the moon"):
        until(lambda: None, 0, "the moon")
