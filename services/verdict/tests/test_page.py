"""The run page: whole, self-contained, and never a script from data."""

from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest

from fp_contracts.control import AlertFired
from fp_contracts.fold import RunState, fold
from fp_contracts.phases import PHASES
from fp_runtime.evidence import FileStore
from fp_verdict.http import answer
from fp_verdict.page import page_key, render, usd
from fp_verdict.reading import PageDesk
from fp_verdict.report import as_status, make_report
from fp_verify.log import read_log
from fp_verify.sample import RUN, GreenRun, green_run, until_p11


class Tags(HTMLParser):
    """Collects tags and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]


def kept(run: GreenRun, folder: Path) -> FileStore:
    store = FileStore(folder)
    for key, body in run.objects.items():
        store.put(key, body)
    return store


def state_of(run: GreenRun) -> RunState:
    return read_log(RUN, run.records).state


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunState, FileStore]:
    run = green_run()
    return state_of(run), kept(run, tmp_path_factory.mktemp("evidence"))


def test_the_page_shows_every_phase_and_needs_nothing_from_elsewhere(green: tuple[RunState, FileStore]) -> None:
    state, store = green
    text = render(PageDesk(store).report(state))
    found = Tags(text)
    assert all(f">{key}<" in text for key in PHASES)
    assert "BLOCKED, spine GREEN" in text
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert all(link.startswith("../../../../evidence/") for link in found.links)
    assert "supervisord on one machine" in text


def test_every_link_of_the_page_leads_to_an_object(green: tuple[RunState, FileStore], tmp_path: Path) -> None:
    state, store = green
    for link in Tags(render(PageDesk(store).report(state))).links:
        assert store.exists(link.removeprefix("../../../../"))


def test_data_is_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    alert = AlertFired(rule=evil, instance=evil, observed=1, threshold=1, at_us=1)
    text = render(make_report(fold(RunState(evil), alert), {}, None))
    assert "<script" not in text


def test_an_unpinned_run_renders_too() -> None:
    report = make_report(RunState(RUN), {}, None)
    assert (report.verdict, report.why) == ("OPEN", ("P(-1) is the first phase that is not proven",))
    assert "OPEN" in render(report, "/", 5)


def test_a_page_in_work_reloads_and_a_closed_one_does_not(green: tuple[RunState, FileStore], tmp_path: Path) -> None:
    open_run = until_p11()
    assert 'http-equiv="refresh"' in render(PageDesk(kept(open_run, tmp_path)).report(state_of(open_run)), "/", 5)
    assert 'http-equiv="refresh"' not in render(PageDesk(green[1]).report(green[0]), "/", 5)


def test_the_kept_page_is_the_same_after_a_restart(green: tuple[RunState, FileStore]) -> None:
    state, store = green
    PageDesk(store).put_page(state)
    first = store.get(page_key(RUN))
    PageDesk(store).put_page(state)
    assert store.get(page_key(RUN)) == first == render(PageDesk(store).report(state)).encode()


def test_http_answers(green: tuple[RunState, FileStore]) -> None:
    state, store = green
    desk = PageDesk(store)
    status, kind, body = answer("/status.json?x=1", state, desk, store)
    assert (status, kind) == (200, "application/json")
    assert orjson.loads(body) == as_status(desk.report(state))
    assert orjson.loads(body)["spine_verdict"] == "GREEN"
    assert answer("/", state, desk, store)[0] == 200
    assert answer("/", None, desk, store)[0] == 200
    key = next(found.key for found in store.list("evidence/"))
    assert answer(f"/{key}", state, desk, store)[2] == store.get(key)
    for path in ("/evidence/../secrets.json", "/evidence/%2e%2e/x", "/evidence/none.json", "/x", "/evidence/"):
        assert answer(path, state, desk, store)[0] == 404


@pytest.mark.parametrize(("microusd", "text"), [(0, "$0.0000"), (123, "$0.0001"), (1_500_000, "$1.50")])
def test_money_for_people(microusd: int, text: str) -> None:
    assert usd(microusd) == text
