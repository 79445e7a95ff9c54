"""Become a program under limits that dies with its parent: `limited.py MEMORY_BYTES CPU_S argv…` (Linux).

Run as a file with `python -I -S`: limits are set between fork and exec without running Python in a threaded fork.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NICE = 10


def main(memory_bytes: str, cpu_s: str, *argv: str) -> None:
    """Set the limits and exec; never returns. The stream goes before learning: the priority is lowered."""
    parent = os.getppid()
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("limited: the parent is gone")
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(*sys.argv[1:])
