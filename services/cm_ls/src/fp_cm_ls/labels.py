"""Labels: what an adjudication must hold, how it is ordered, and what was known as of a time. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from pydantic import ValidationError

from fp_contracts import derive
from fp_contracts.canonical import CanonicalError, parse_strict
from fp_contracts.downstream import FRAUD_DISPOSITIONS, SOURCE_RANK, LabelAssertion
from fp_contracts.envelope import EVENT_LIMIT
from fp_contracts.records import Pins

CONFLICT: Final = "CONFLICT"
DISPOSITION: Final = "fraud_disposition"


class Word(NamedTuple):
    """What one source said of a payment, and from when on. Times in µs."""

    source: str
    effective_us: int
    observed_us: int
    value: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is no acceptable adjudication, and why."""

    reason: str


def read_assertion(raw: bytes, pins: Pins, window_end_us: int) -> LabelAssertion | Rejected:
    """One line of the adjudication lane; the id must be the derived one, so that a resend is the same assertion."""
    if len(raw) > EVENT_LIMIT:
        return Rejected("LINE_OVER_LIMIT")
    try:
        parse_strict(raw)
        assertion = LabelAssertion.model_validate_json(raw)
    except CanonicalError:
        return Rejected("NOT_JSON")
    except ValidationError:
        return Rejected("SCHEMA_BROKEN")
    return _fault(assertion, pins, window_end_us) or assertion


def _fault(assertion: LabelAssertion, pins: Pins, window_end_us: int) -> Rejected | None:
    subject = assertion.subject
    expected = derive.assertion_id(
        subject.platform_run_id, subject.event_id, assertion.label_type, assertion.source, assertion.actor,
        assertion.label_value, assertion.observed_us,
    )  # fmt: skip
    if subject.platform_run_id != pins.platform_run_id:
        return Rejected("PIN_MISMATCH")
    if assertion.source != "EXTERNAL":
        return Rejected("SOURCE_NOT_ALLOWED")
    if assertion.assertion_id != expected:
        return Rejected("ID_NOT_DERIVED")
    if assertion.label_type == DISPOSITION and assertion.label_value not in FRAUD_DISPOSITIONS:
        return Rejected("VALUE_UNKNOWN")
    if assertion.effective_us > assertion.observed_us:
        return Rejected("EFFECTIVE_AFTER_OBSERVED")
    if assertion.observed_us >= window_end_us:
        return Rejected("OBSERVED_AFTER_WINDOW")
    return None


def order_of(assertion: LabelAssertion, delay_us: int, floor_us: int) -> int:
    """order_ts of a label (µs): it takes effect `delay_us` after it was observed, never below the frontier given."""
    return max(assertion.observed_us + delay_us, floor_us)


def resolve(assertions: Iterable[LabelAssertion], as_of_us: int) -> str | None:
    """The value known of one payment and label type as of a time: what was observed later counts for nothing.

    HUMAN over EXTERNAL over AUTO, then the latest effective, then the latest observed; a tie of different values is
    CONFLICT; nothing known is None.
    """
    return best(
        Word(item.source, item.effective_us, item.observed_us, item.label_value)
        for item in assertions
        if item.observed_us <= as_of_us
    )


def best(words: Iterable[Word]) -> str | None:
    """The value that stands among all that was said; see `resolve`."""
    known = list(words)
    if not known:
        return None
    highest = max(_precedence(word) for word in known)
    values = {word.value for word in known if _precedence(word) == highest}
    return values.pop() if len(values) == 1 else CONFLICT


def _precedence(word: Word) -> tuple[int, int, int]:
    return SOURCE_RANK[word.source], word.effective_us, word.observed_us
