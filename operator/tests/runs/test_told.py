"""Every verb's errors: one line on standard error, and the exit code says whose turn it is."""

import errno
import os

import psycopg
import pytest
import typer

from fp_operator.cli.output import Exit, told
from fp_operator.stack import Away
from fp_runtime.errors import Unavailable, UserError


def outcome(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(typer.Exit) as ended, told():
        raise error
    return ended.value.exit_code, capsys.readouterr().err.removeprefix("error ").removesuffix("\n")


def unavailable(cause: OSError) -> Unavailable:
    error = Unavailable(f"evidence store /s/evidence: {cause.strerror}")
    error.__cause__ = cause
    return error


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


DOCTOR = "`fp doctor` says what is down, `fp up` starts it"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("run", "there is none yet", "start one: `fp run`"), Exit.USAGE,
         "run: there is none yet. Fix: start one: `fp run`"),
        (Away("the kafka server", "does not answer", "start it"), Exit.UNAVAILABLE,
         "the kafka server: does not answer. Fix: start it"),
        (Unavailable("Kafka has been away for 120 s"), Exit.UNAVAILABLE,
         f"unavailable: Kafka has been away for 120 s. Fix: {DOCTOR}"),
        (psycopg.errors.AdminShutdown("terminating connection\ndue to command"), Exit.UNAVAILABLE,
         f"unavailable: PostgreSQL: terminating connection due to command. Fix: {DOCTOR}"),
        (TimeoutError("not within 90 s: supervisord has ended"), Exit.UNAVAILABLE,
         f"unavailable: not within 90 s: supervisord has ended. Fix: {DOCTOR}"),
        (unavailable(full()), Exit.UNAVAILABLE,
         "unavailable: evidence store /s/evidence: No space left on device. Fix: free 1 GB there, then try again"),
        (psycopg.errors.DiskFull("could not extend file: No space left on device"), Exit.UNAVAILABLE,
         "unavailable: PostgreSQL: could not extend file: No space left on device. "
         "Fix: free 1 GB on the disk of the state folder, then `fp up`"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x"), Exit.USAGE,
         "cannot use /proc/x: No such file or directory. "
         "Fix: name another one (the state folder: FP_STATE_DIR=…)"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(error, capsys) == (code, line)


def test_a_reader_that_has_enough_is_no_error_of_ours() -> None:
    with pytest.raises(BrokenPipeError), told():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_debug_shows_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FP_DEBUG", "1")
    with pytest.raises(UserError), told():
        raise UserError("a", "b", "c")
