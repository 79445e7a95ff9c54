"""Programs as supervisord reads them."""

import configparser
import shlex
from pathlib import Path

from fp_operator.stack.account import Account
from fp_operator.stack.program import Program, render_program, render_supervisord

FOLDER, LOGS = Path("/s/supervisor"), Path("/s/logs")


def section(program: Program) -> dict[str, str]:
    """The section after supervisord's own expansion of `%`."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;", "\t;"))
    parser.read_string(render_program(program, FOLDER, LOGS, "/s"))
    return {key: value % {} for key, value in parser.items(f"program:{program.name}")}


def test_arguments_arrive_as_they_were_given() -> None:
    argv = ("prog", "two words", "100%", "it's", 'a "quote"', "%(here)s", "semi;colon")
    command = shlex.split(section(Program("p", argv))["command"])
    assert tuple(command[command.index("--") + 1 :]) == argv


def test_a_program_is_tethered_and_restarted_as_it_says() -> None:
    program = Program("p", ("x",), stop_signal="INT", autorestart="failure", account=Account(7, 8), start_retries=2)
    found = section(program)
    command = shlex.split(found["command"])
    assert command[command.index("--death-signal") + 1] == "INT"
    assert command[command.index("--user") + 1] == "7:8"
    assert (found["stopsignal"], found["autorestart"], found["startretries"]) == ("INT", "unexpected", "2")
    assert found["stdout_logfile"] == "/s/logs/p.log"
    assert found["redirect_stderr"] == "true"


def test_output_to_a_file_leaves_errors_in_the_log() -> None:
    found = section(Program("p", ("x",), stdout=Path("/s/out.ndjson")))
    assert found["stdout_logfile"] == "/s/out.ndjson"
    assert found["stderr_logfile"] == "/s/logs/p.log"


def test_the_environment_stays_out_of_the_command_but_changes_it() -> None:
    one, two = (
        Program("p", ("x",), env={"FP_PG_DSN": dsn}) for dsn in ("postgresql://secret1", "postgresql://secret2")
    )
    assert "secret1" not in section(one)["command"]
    assert "secret1" not in repr(one)
    assert section(one)["command"] != section(two)["command"]


def test_the_supervisor_takes_orders_on_a_private_socket_only() -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(render_supervisord(FOLDER, LOGS, root=False))
    assert parser["unix_http_server"] == {"file": "/s/supervisor/s.sock", "chmod": "0700"}
    assert "user" not in parser["supervisord"]
    assert "inet_http_server" not in parser
