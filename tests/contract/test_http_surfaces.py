"""Every answer of the HTTP surfaces that need no server behind them is one that their OpenAPI document names."""

from collections.abc import Iterator

import httpx
import pytest
import schemathesis

from fp_df.actuator import Effects, make_app
from fp_df.actuator_openapi import DOCUMENT as ACTUATOR
from fp_mf import serve
from fp_mf.openapi import describe
from fp_models import Bundle, load, pack
from fp_models.logistic import LogisticModel
from fp_runtime.evidence import FileStore
from fp_runtime.health import DOCUMENT as HEALTH
from fp_runtime.health import Health
from fp_runtime.health import serve as serve_health
from fp_verdict.http import serve as serve_page
from fp_verdict.openapi import DOCUMENT as PAGE
from fp_verdict.reading import PageDesk
from fp_verify.log import read_log
from fp_verify.sample import RUN, green_run

from ..surfaces import served, surface, validate

NAMES = ["amount", "count", "risk"]
actuator, model, page, process = (
    surface(ACTUATOR),
    surface(describe(len(NAMES)), opaque=True),
    surface(PAGE),
    surface(HEALTH),
)


@pytest.fixture(scope="module")
def actuator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    effects = Effects(tmp_path_factory.mktemp("actuator") / "effects.db")
    with served(make_app(effects)) as url:
        yield url
    effects.close()


def bundle() -> Bundle:
    """A logistic model of three features."""
    width, digest = len(NAMES), "d" * 64
    fields = {
        "family": "logistic", "feature_set": "three", "feature_schema_digest": digest, "feature_names": NAMES,
        "policy_rev": "p", "dataset_fingerprint": digest, "dataset_sha256": digest, "train_request_digest": digest,
        "code_release": "r", "environment_lock_digest": digest,
        "thresholds": {"step_up_ppm": 300_000, "review_ppm": 500_000, "block_ppm": 600_000},
    }  # fmt: skip
    model = LogisticModel((0.0,) * width, (1.0,) * width, (0.2,) * width, -1.0)
    return load(pack(fields, model.to_bytes()), schema_digest=digest)


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    with served(serve.build(bundle())) as url:
        yield url


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a run that has its verdict."""
    store = FileStore(tmp_path_factory.mktemp("evidence"))
    made = green_run()
    for key, body in made.objects.items():
        store.put(key, body)
    state = read_log(RUN, made.records).state
    server = serve_page("127.0.0.1", 0, lambda: state, PageDesk(store), store)
    yield f"http://127.0.0.1:{server.port}"
    server.close()


@pytest.fixture(scope="module")
def health_url() -> Iterator[str]:
    server = serve_health(Health("sr-0", ("run",)))
    yield f"http://127.0.0.1:{server.port}"
    server.close()


@actuator.parametrize()
def test_the_actuator_answers_as_documented(case: schemathesis.Case, actuator_url: str) -> None:
    validate(case, actuator_url)


@model.parametrize()
def test_the_served_model_answers_as_documented(case: schemathesis.Case, model_url: str) -> None:
    validate(case, model_url)


@page.parametrize()
def test_the_run_page_answers_as_documented(case: schemathesis.Case, page_url: str) -> None:
    validate(case, page_url)


@process.parametrize()
def test_the_health_of_a_process_is_as_documented(case: schemathesis.Case, health_url: str) -> None:
    validate(case, health_url)


def test_the_documents_are_served_as_they_are(
    actuator_url: str, model_url: str, page_url: str, health_url: str
) -> None:
    served = [httpx.get(f"{url}/openapi.json").json() for url in (actuator_url, model_url, page_url, health_url)]
    assert served == [ACTUATOR, describe(len(NAMES)), PAGE, HEALTH]
