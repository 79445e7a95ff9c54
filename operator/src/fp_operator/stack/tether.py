"""Exec a program that dies with its parent: `tether.py [options] -- argv…` (Linux: PR_SET_PDEATHSIG).

Run as a file with `python -I -S`, it imports nothing but the standard library, so it costs some 20 ms.
"""

import argparse
import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_FILES = 65_536
_SUPERVISOR = "FP_SUPERVISOR_PID"
MARK = "FP_STACK_MEMBER"


def main(arguments: list[str]) -> None:
    """Drop the account, tie the life to the parent's, then become the program; never returns."""
    options = _parser().parse_args(arguments)
    parent = os.getppid()
    if options.supervised and os.environ.get(_SUPERVISOR) != str(parent):
        sys.exit("tether: the supervisor is gone")
    environment = dict(os.environ)
    if options.env:
        with open(options.env, encoding="utf-8") as file:
            environment |= json.load(file)
    if options.announce:
        environment[_SUPERVISOR] = str(os.getpid())
    if options.mark:
        environment[MARK] = options.mark
    _raise_file_limit()
    if options.user:
        _become(options.user)
    if options.death_signal:
        _die_with_parent(options.death_signal)
        if os.getppid() != parent:
            sys.exit("tether: the parent is gone")
    os.execvpe(options.argv[0], options.argv, environment)


def _raise_file_limit() -> None:
    """Servers hold a file per log segment and connection; the usual soft limit of 1,024 is too low for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _become(user: str) -> None:
    uid, _, gid = user.partition(":")
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))


def _die_with_parent(name: str) -> None:
    """The kernel sends the signal when the parent dies; after a change of account, since that clears it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.Signals[f"SIG{name}"]), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tether", description=__doc__)
    parser.add_argument("--death-signal", help="signal on the parent's death, e.g. TERM")
    parser.add_argument("--supervised", action="store_true", help="refuse to start without the announced supervisor")
    parser.add_argument("--announce", action="store_true", help="announce the program as the supervisor")
    parser.add_argument("--env", help="JSON object of variables to add")
    parser.add_argument("--mark", help="state folder, by which strays are found")
    parser.add_argument("--user", help="uid:gid to become")
    parser.add_argument("argv", nargs="+")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
