"""The teardown of a namespace: the platform's by `fp down`, a scratch one by a rehearsal. Repeatable at any point.

`python -m fp_operator.ending NOTE [FAILPOINT]` tears the noted scratch namespace down, in a process that may be killed.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import redis
from psycopg import sql

from fp_contracts.scratch import Scratch
from fp_operator import mesh, namespace
from fp_operator.namespace import Namespace
from fp_operator.residue import databases_of, keys_of, online, topics_of
from fp_operator.stack import OnStep, StackAddresses, Supervisor
from fp_operator.stack import down as stop_servers
from fp_operator.stack.addresses import given_addresses
from fp_operator.stack.strays import end_strays
from fp_runtime import failpoint
from fp_runtime.errors import Unavailable
from fp_runtime.failpoint import Failpoint
from fp_runtime.postgres import connect


def tear_down(
    space: Namespace, addresses: StackAddresses | None, on_step: OnStep, judge: Callable[[], None] = lambda: None
) -> None:
    """Services first, then data that is scratch, then what `judge` has to say while the servers answer, then these.

    What is gone already is passed over. Unavailable when a server that holds scratch data does not answer.
    """
    if Supervisor(space.state_dir).alive():
        on_step("services", f"{len(mesh.stop(space.state_dir))} stopped", 0.0)
    failpoint.hit(Failpoint.TEARDOWN_AFTER_SERVICES)
    if space.scratch is not None and addresses is not None:
        _end_data(space.scratch, addresses)
    judge()
    stop_servers(space.state_dir, on_step=on_step)
    if space.scratch is not None:
        end_strays(space.state_dir)  # also of a folder that is gone
        shutil.rmtree(space.state_dir, ignore_errors=True)


def _end_data(scratch: Scratch, addresses: StackAddresses) -> None:
    admin = topics_of(scratch, addresses)
    try:
        admin.delete_under_prefix()
    finally:
        admin.close()
    failpoint.hit(Failpoint.TEARDOWN_AFTER_TOPICS)
    with connect(addresses.pg_dsn, "fp-down") as conn:
        for name in databases_of(scratch, addresses):
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    try:
        with online(addresses) as client:
            for key in keys_of(scratch, addresses):
                client.delete(key)
    except redis.RedisError as error:
        raise Unavailable(f"low-latency store: {error}") from error


def end_noted(main: Path, addresses: StackAddresses, on_step: OnStep) -> int:
    """Tear down every scratch namespace that an ended rehearsal left in the state folder `main`; how many."""
    left = namespace.noted(main)
    for space in left:
        tear_down(space, addresses, on_step)
        assert space.scratch is not None
        namespace.note_of(main, space.scratch).unlink()
    return len(left)


def main(note: str, armed: str = "") -> None:
    """Tear down the noted namespace; addresses as FP_… variables."""
    failpoint.arm(armed)
    tear_down(namespace.read(Path(note)), StackAddresses(**given_addresses()), lambda *_: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
