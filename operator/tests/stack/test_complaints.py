"""What supervisord's log and a program's own log say about trouble."""

import json
import time
from pathlib import Path

import pytest

from fp_operator.stack.complaints import count_ends, ended_lately, last_error

NOW = time.mktime(time.strptime("2026-11-30 07:20:00", "%Y-%m-%d %H:%M:%S"))
LOG = """\
2026-11-30 07:11:00,000 INFO exited: df-0 (exit status 1; not expected)
2026-11-30 07:12:00,082 INFO supervisord started with pid 16238
2026-11-30 07:13:00,082 INFO spawned: 'df-0' with pid 16240
2026-11-30 07:14:00,082 INFO exited: df-0 (exit status 1; not expected)
2026-11-30 07:15:00,082 INFO exited: df-0 (terminated by SIGKILL; not expected)
2026-11-30 07:15:00,082 INFO exited: rehearsal (exit status 0; expected)
2026-11-30 07:16:00,082 INFO stopped: ig-0 (terminated by SIGTERM)
"""


def test_only_unasked_ends_of_this_supervisor_count() -> None:
    assert count_ends(LOG.splitlines(), NOW) == {"df-0": 2}


def test_what_is_long_ago_does_not_count() -> None:
    assert count_ends(LOG.splitlines(), NOW + 270) == {"df-0": 1}


def test_no_log_is_no_trouble(tmp_path: Path) -> None:
    assert ended_lately(tmp_path / "none", NOW) == {}
    assert last_error(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([json.dumps({"level": "error", "event": "unavailable", "error": "no broker"}), '{"level": "info"}'],
         "unavailable: no broker"),
        ([json.dumps({"level": "critical", "event": "crashed", "exception": "Traceback\n  x\nKeyError: 'a'"})],
         "crashed: KeyError: 'a'"),
        (["LOG: ready", "FATAL:  could not write lock file: No space left on device", "LOG: bye"],
         "FATAL: could not write lock file: No space left on device"),
        (["first", "last", ""], "last"),
        ([], ""),
    ],
)  # fmt: skip
def test_the_last_error_is_found_among_other_lines(tmp_path: Path, lines: list[str], told: str) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(lines))
    assert last_error(log) == told
