"""What an operator may waive, by name: one check of one run, with a reason, until a time (law 11)."""

from enum import StrEnum
from typing import Self


class Waiver(StrEnum):
    """Every check that can be waived, and what its waiver lets pass."""

    lets_pass: str

    def __new__(cls, name: str, lets_pass: str) -> Self:
        """A member is its name; what it lets pass hangs on it."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.lets_pass = lets_pass
        return member

    EMPTY_RUN = "empty_run", "P6 and P7 of a run without traffic (spec P6)"
    NON_REGRESSION = "non_regression", "P11 where results differ from the baseline's"
