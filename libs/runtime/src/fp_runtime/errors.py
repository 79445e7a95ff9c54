"""The exception types that decide what a loop does; the message explains (design: architecture §7, rule 6)."""


class Poison(Exception):
    """This input can never succeed: quarantine it and go on. `reason` is a short code and the metric's label."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = str(reason)
        self.detail = detail


class Unavailable(Exception):
    """A dependency is down after bounded retries: crash with nothing committed and start again."""


class LaneStopped(Unavailable):
    """Too many poison inputs in a row or in the window: a bad deploy, not bad data, so the lane stops."""


class Fenced(Exception):
    """An owner row, lease or progress compare-and-set hit zero rows: this process is a zombie and exits."""


class UserError(Exception):
    """A mistake the operator can mend, told in one line: what, why and the fix."""

    def __init__(self, what: str, why: str, fix: str) -> None:
        super().__init__(f"{what}: {why}. Fix: {fix}")
        self.what = what
        self.why = why
        self.fix = fix
