"""What can be wrong with a bundle or with the numbers it is given."""

from typing import Literal

Reason = Literal["FORMAT", "HASH", "SCHEMA", "MODEL"]


class BundleBroken(Exception):
    """This bundle must not be used.

    FORMAT: no manifest of a known format. HASH: bytes are not those that were named. SCHEMA: made for other features.
    MODEL: the model file cannot be a model of its family.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


class NotFinite(ValueError):
    """A feature or a score is NaN or infinite in these rows; no row of the batch was scored."""

    def __init__(self, what: Literal["feature", "score"], rows: tuple[int, ...]) -> None:
        super().__init__(f"{what} not finite in {len(rows)} rows, first {rows[0]}")
        self.what = what
        self.rows = rows
