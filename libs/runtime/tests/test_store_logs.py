import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from fp_runtime import logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    handlers, level = logging.root.handlers, logging.root.level
    stream = io.StringIO()
    logs.configure("rtdl-0", "INFO", stream)
    yield stream
    logging.root.handlers, logging.root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def last(stream: io.StringIO) -> dict[str, object]:
    found: dict[str, object] = json.loads(stream.getvalue().splitlines()[-1])
    return found


def test_a_line_carries_its_ids(lines: io.StringIO) -> None:
    with logs.context(run="platform_x", phase="P8"):
        logs.logger("fp_rtdl").info("batch_committed", n=500)
    line = last(lines)
    assert {key: line[key] for key in ("event", "n", "run", "phase", "instance", "level", "logger")} == {
        "event": "batch_committed", "n": 500, "run": "platform_x", "phase": "P8", "instance": "rtdl-0",
        "level": "info", "logger": "fp_rtdl",
    }  # fmt: skip
    logs.logger("fp_rtdl").info("next")
    assert "run" not in last(lines)


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "hunter2"},
        {"pg_dsn": "hunter2"},
        {"api_key": "hunter2"},
        {"settings": {"Token": "hunter2", "port": 1}},
        {"items": [{"client_secret": "hunter2"}]},
        {"error": "cannot reach postgresql://fp_df:hunter2@db:5432/fp"},
        {"error": "host=db password=hunter2 user=fp"},
        {"error": "host=db password='hunter2 x' user=fp"},
    ],
)
def test_no_secret_is_logged(lines: io.StringIO, fields: dict[str, object]) -> None:
    logs.logger("x").warning("failed", **fields)
    assert "hunter2" not in lines.getvalue()
    assert logs.HIDDEN in lines.getvalue()


def test_exceptions_and_library_lines_are_redacted_json_too(lines: io.StringIO) -> None:
    try:
        raise RuntimeError("postgresql://u:hunter2@h/db")
    except RuntimeError:
        logs.logger("x").exception("crashed")
    assert "RuntimeError" in str(last(lines)["exception"])
    logging.getLogger("botocore").warning("redis://u:%s@h", "hunter2")
    assert last(lines)["logger"] == "botocore"
    assert "hunter2" not in lines.getvalue()


def test_lower_levels_are_left_out(lines: io.StringIO) -> None:
    logs.logger("x").debug("noise")
    assert lines.getvalue() == ""
