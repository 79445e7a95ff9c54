"""ig and cm_ls as processes on real servers: every answer is one that their document names, and they live on."""

import uuid
from collections.abc import Iterator

import httpx
import pytest
import schemathesis

from fp_cm_ls.openapi import DOCUMENT as CASES
from fp_contracts.ingress import ADJUDICATION, CASE_READ, EVENT_CLASSES
from fp_ig.openapi import DOCUMENT as GATEWAY
from fp_operator.stack import StackAddresses
from fp_runtime.deadline import until
from fp_runtime.tokens import Claims, issue, parse_keys

from ..surfaces import surface, validate
from .cell import KEYS, RUN, Cell, config_of, free_port, new_cell

pytestmark = pytest.mark.stack
gateway, cases = surface(GATEWAY, opaque=True), surface(CASES, opaque=True)


@pytest.fixture(scope="module")
def cell(stack: StackAddresses, module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """A pinned run and its two services with an HTTP side, both ready."""
    ports = {"ig": free_port(), "cm_ls": free_port()}
    made = new_cell(
        stack, module_database, f"t{uuid.uuid4().hex[:12]}.", tmp_path_factory.mktemp("surfaces"), tuple(ports),
        FP_IG_URL=f"http://127.0.0.1:{ports['ig']}", FP_CM_URL=f"http://127.0.0.1:{ports['cm_ls']}",
        FP_CM_PORT=str(ports["cm_ls"]),
    )  # fmt: skip
    made.pin(config_of())
    for service in ports:
        made.start(f"{service}-0")
    for name in ("FP_IG_URL", "FP_CM_URL"):
        until(lambda: ready(made.environ[name]), 60, f"{name} serves the run")  # noqa: B023 - called in this turn only
    yield made
    made.stop()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def bearer(*classes: str) -> dict[str, str]:
    claims = Claims(kid="k1", sub="wsp", run=RUN, classes=classes, exp_us=2**62)
    return {"Authorization": f"Bearer {issue(parse_keys(KEYS), claims)}"}


@gateway.parametrize()
def test_the_gateway_answers_as_documented(case: schemathesis.Case, cell: Cell) -> None:
    validate(case, cell.environ["FP_IG_URL"], bearer(*EVENT_CLASSES))


@cases.parametrize()
def test_cases_and_labels_answer_as_documented(case: schemathesis.Case, cell: Cell) -> None:
    validate(case, cell.environ["FP_CM_URL"], bearer(ADJUDICATION, CASE_READ))


@pytest.mark.parametrize("name", ["%00", "a%00b", "%ED%A0%80", "%FF", "x" * 4_000])
def test_a_case_that_no_store_can_name_is_not_there(cell: Cell, name: str) -> None:
    found = httpx.get(f"{cell.environ['FP_CM_URL']}/v1/cases/{name}", headers=bearer(CASE_READ))
    assert (found.status_code, found.json()["code"]) == (404, "CASE_UNKNOWN")


def test_what_sends_events_reads_no_case(cell: Cell) -> None:
    for path in ("/v1/cases", "/v1/cases/c1"):
        found = httpx.get(f"{cell.environ['FP_CM_URL']}{path}", headers=bearer(*EVENT_CLASSES, ADJUDICATION))
        assert (found.status_code, found.json()["code"]) == (403, "TOKEN_SCOPE")


def test_both_serve_their_document_and_have_survived(cell: Cell) -> None:
    served = [httpx.get(f"{cell.environ[name]}/openapi.json").json() for name in ("FP_IG_URL", "FP_CM_URL")]
    assert served == [GATEWAY, CASES]
    assert {name: process.poll() for name, process in cell.running.items()} == {"ig-0": None, "cm_ls-0": None}
    assert all(ready(cell.environ[name]) for name in ("FP_IG_URL", "FP_CM_URL"))
