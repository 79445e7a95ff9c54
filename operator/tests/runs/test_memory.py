"""Memory of an environment: its own processes and what they started, the largest look kept."""

import os
import subprocess
import sys
from pathlib import Path

from fp_operator import memory
from fp_operator.memory import Peak, Resident
from fp_operator.metering import families


def test_without_a_supervisor_it_is_this_process_and_what_it_started(tmp_path: Path) -> None:
    alone = memory.look(tmp_path)
    script = "held = bytearray(64 << 20); print(len(held), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        both = memory.look(tmp_path)
        child.communicate(b"\n")
    assert both.processes == alone.processes + 1
    assert both.pss_bytes >= alone.pss_bytes + (60 << 20)
    assert both.rss_bytes >= both.pss_bytes


def test_a_process_below_two_roots_counts_once() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        family = families()
        own = memory.below({os.getpid()}, family)
        assert {child.pid, *(process.pid for process in family[child.pid])} <= own
        assert memory.below({os.getpid(), child.pid}, family) == own
        child.communicate(b"\n")


def test_what_ended_meanwhile_adds_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert memory.with_process(Resident(1, 2, 3), child.pid) == Resident(1, 2, 3)
    assert memory.with_process(Resident(), os.getpid()).processes == 1


def test_the_peak_looks_now_and_then_and_keeps_the_largest(tmp_path: Path) -> None:
    peak = Peak(tmp_path)
    peak.note(0.0)
    first = peak.largest
    assert first.pss_bytes > 0
    held = bytearray(64 << 20)
    peak.note(memory.EVERY_S / 2)
    assert peak.largest == first
    peak.note(memory.EVERY_S)
    assert peak.largest.pss_bytes > first.pss_bytes + len(held) // 2
    largest = peak.largest
    del held
    peak.note(2 * memory.EVERY_S)
    assert peak.largest == largest
