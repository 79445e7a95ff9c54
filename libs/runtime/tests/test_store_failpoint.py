import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fp_runtime import failpoint
from fp_runtime.errors import UserError
from fp_runtime.failpoint import Failpoint, FailpointRaised, arm, hit


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoint.disarm()


def test_the_nth_hit_raises_once() -> None:
    arm("df.before_commit:raise:3")
    hit(Failpoint.DF_BEFORE_COMMIT)
    hit(Failpoint.DF_AFTER_COMMIT)
    hit(Failpoint.DF_BEFORE_COMMIT)
    with pytest.raises(FailpointRaised, match=r"df\.before_commit"):
        hit(Failpoint.DF_BEFORE_COMMIT)
    hit(Failpoint.DF_BEFORE_COMMIT)


def test_several_can_be_armed() -> None:
    arm("df.before_commit:raise:1,df.after_commit:raise:1")
    for name in (Failpoint.DF_AFTER_COMMIT, Failpoint.DF_BEFORE_COMMIT):
        with pytest.raises(FailpointRaised):
            hit(name)


@pytest.mark.parametrize("spec", ["nowhere:kill:1", "df.before_commit:bang:1", "df.before_commit:kill:0", "x"])
def test_a_wrong_spec_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="name:action:N"):
        arm(spec)


def test_nothing_is_armed_by_the_empty_spec() -> None:
    arm("")
    hit(Failpoint.IG_AFTER_CLAIM)


def test_a_kill_is_immediate() -> None:
    code = "from fp_runtime.failpoint import *; arm('ig.after_claim:kill:2'); [hit('ig.after_claim') for _ in '123']"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('alive')"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
