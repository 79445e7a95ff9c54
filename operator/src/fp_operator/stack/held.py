"""supervisord that ends with its stack once nobody holds that any more: `held.py HOLD UNFINISHED -c …`.

Run as a file; holding.py says who holds. It must not be asked from outside: a killed launcher cannot give orders, while
its locks are gone with it.
"""

import fcntl
import os
import signal
import sys
import threading

from supervisor.supervisord import main as supervise  # type: ignore[import-untyped]

_HIGH = 1_000  # supervisord closes what lies below its `minfds`


def main(hold: str, unfinished: str, arguments: list[str]) -> None:
    """Supervise, and watch beside it."""
    threading.Thread(target=_watch, args=(hold, unfinished), daemon=True).start()
    supervise(arguments)


def _watch(hold: str, unfinished: str) -> None:
    with open(hold, "rb") as file:
        lock = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until the last holder let go, or died
    if not os.path.exists(unfinished):
        os.close(lock)
        return
    os.kill(os.getpid(), signal.SIGTERM)  # the lock stays: nobody takes up a stack that is ending


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
