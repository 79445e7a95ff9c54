"""The mapping file: how a foreign table of payments is read as a world (TOML; every field is described)."""

import tomllib
import unicodedata
from importlib import resources
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from fp_contracts.canonical import digest_of
from fp_contracts.envelope import Closed, Text
from fp_contracts.ingress import TRUTH_FIELDS
from fp_runtime.errors import UserError

BUILT_IN = ("sparkov", "handbook", "generic")
SHIPPED = ("sample", "tiny")  # worlds whose names `--world` reads as those that come with the project
_OWN_COLUMN = ("event_time", "amount", "payment_id")
REQUIRED = ("payment_id", "merchant_id", "account_id", "currency", "channel")


class Source(Closed):
    """Where a text field comes from: a column or a constant; then strip_prefix, map, default and prefix in turn."""

    column: str | None = None
    constant: str | None = None
    strip_prefix: str = ""
    map: dict[str, str] | None = None
    default: str | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either column or constant")
        return self


class Time(Closed):
    """Event time. `format`: iso (text or a native timestamp), epoch_s, epoch_ms, epoch_us, or a strptime pattern."""

    column: str
    format: str = "iso"
    tz: str = "UTC"


class Amount(Closed):
    """Money. `unit` major = decimal currency units, minor = integer minor units. `rounding` allows extra decimals."""

    column: str
    unit: Literal["major", "minor"] = "major"
    decimal_comma: bool = False
    rounding: bool = False


class Fields(Closed):
    """The public fields of a payment; instrument_id falls back to account_id."""

    payment_id: Source
    merchant_id: Source
    account_id: Source
    currency: Source
    channel: Source
    instrument_id: Source | None = None
    device_id: Source | None = None
    terminal_id: Source | None = None
    mcc: Source | None = None
    country: Source | None = None
    category: Source | None = None
    auth_result: Source | None = None

    def present(self) -> dict[str, Source]:
        """The fields that this mapping fills."""
        return {name: source for name in type(self).model_fields if (source := getattr(self, name)) is not None}


class IsFraud(Closed):
    """The label column (compared as lower-case text). `missing` says what an empty label means."""

    column: Text
    positive: tuple[str, ...] = ("1", "true", "t", "yes", "y", "1.0", "fraud")
    negative: tuple[str, ...] = ("0", "false", "f", "no", "n", "0.0", "legit")
    missing: Literal["refuse", "legit"] = "refuse"

    def as_compared(self) -> tuple[list[str], list[str]]:
        """The positive and the negative texts in the form in which labels are compared."""
        positive, negative = (
            [unicodedata.normalize("NFC", text.strip(" ")).lower() for text in texts]
            for texts in (self.positive, self.negative)
        )
        return positive, negative


class Campaign(Closed):
    """The column that explains a fraud; values in `none` mean no campaign."""

    column: str
    none: tuple[str, ...] = ("", "0")


class Truth(Closed):
    """The columns that only the adjudication lane may read."""

    is_fraud: IsFraud
    campaign: Campaign | None = None


class AccountSample(Closed):
    """Keep an account when the first 15 hex digits of sha256(salt + account) modulo `modulo` are under `below`."""

    modulo: int = Field(ge=1)
    below: int = Field(ge=1)
    salt: str = ""


class Filter(Closed):
    """Which rows become the world: event time in [start, until), whole accounts, at most the first `rows`."""

    start: str | None = None
    until: str | None = None
    accounts: AccountSample | None = None
    rows: int | None = Field(default=None, ge=1)


class Mapping(Closed):
    """A whole mapping file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    description: Text
    licence: Text
    format: Literal["csv", "parquet"]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    duplicates: Literal["refuse", "keep_first"] = "refuse"
    time: Time
    amount: Amount
    fields: Fields
    truth: Truth
    filter: Filter = Filter()

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of the mapping (hex64)."""
        return digest_of(self.model_dump(mode="json"))

    def between(self, start: str | None, until: str | None) -> Self:
        """This mapping for event time in [start, until); None leaves what its filter says."""
        given = {name: bound for name, bound in (("start", start), ("until", until)) if bound is not None}
        return self.model_copy(update={"filter": self.filter.model_copy(update=given)}) if given else self

    def columns(self) -> dict[str, str]:
        """Every source column that is read: mapped name -> column."""
        found = {"event_time": self.time.column, "amount": self.amount.column, "is_fraud": self.truth.is_fraud.column}
        if self.truth.campaign:
            found["campaign"] = self.truth.campaign.column
        return found | {name: s.column for name, s in self.fields.present().items() if s.column is not None}


def load_mapping(name_or_path: str | Path) -> Mapping:
    """A built-in mapping by name or a TOML file; UserError for anything that is not a sound mapping of a new world."""
    what = f"mapping {name_or_path}"
    try:
        if str(name_or_path) in BUILT_IN:
            text = resources.files(__package__).joinpath(f"mappings/{name_or_path}.toml").read_text(encoding="utf-8")
        else:
            text = Path(name_or_path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(what, "there is no such file", f"give a TOML file or one of {', '.join(BUILT_IN)}") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UserError(
            what, f"it cannot be read: {why}", f"give a TOML file or one of {', '.join(BUILT_IN)}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            what, "it is not UTF-8 text", "give the TOML file, not the data; see the generic one"
        ) from error
    mapping = parse_mapping(text, what)
    if mapping.name in SHIPPED:
        why = f"name: {mapping.name!r} is a world that comes with the project, and --world would always mean that one"
        raise UserError(what, why, "choose another name")
    return mapping


def parse_mapping(text: str, what: str = "mapping") -> Mapping:
    """TOML text to a Mapping; UserError naming the first fault."""
    try:
        mapping = Mapping.model_validate(tomllib.loads(text), strict=False)
    except tomllib.TOMLDecodeError as error:
        raise UserError(what, f"it is not TOML ({error})", "see the generic mapping for the form") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "mapping"
        raise UserError(what, f"{where}: {first['msg']}", "see the generic mapping for every field") from error
    refuse(mapping)
    return mapping


def refuse(mapping: Mapping) -> None:
    """UserError for a mapping that would leak the truth or that contradicts itself."""
    _refuse_truth(mapping)
    _refuse_shared(mapping)
    positive, negative = mapping.truth.is_fraud.as_compared()
    both = [text for text in positive if text in negative]
    if both:
        why = f"{both[0]!r} is both positive and negative"
        raise UserError("mapping truth.is_fraud", why, "give both lists, each label in one of them")


def _refuse_shared(mapping: Mapping) -> None:
    """A time, an amount and what names one payment are nothing else; a shop is not its own customer."""
    columns = mapping.columns()
    for name, column in columns.items():
        for other, theirs in columns.items():
            apart = other in _OWN_COLUMN or {name, other} == {"merchant_id", "account_id"}
            if name != other and apart and column.lower() == theirs.lower():
                raise UserError(f"field {name}", f"column {column!r} is {other} already", "map each to its own column")


def _refuse_truth(mapping: Mapping) -> None:
    """UserError when a truth column would land in the stream view (law 10)."""
    truth = {mapping.truth.is_fraud.column.lower()}
    if mapping.truth.campaign:
        truth.add(mapping.truth.campaign.column.lower())
    public = {name: column for name, column in mapping.columns().items() if name not in ("is_fraud", "campaign")}
    for name, column in public.items():
        if column.lower() in truth or column.lower().removeprefix("tx_") in TRUTH_FIELDS:
            raise UserError(
                f"field {name}",
                f"column {column!r} is truth and may never reach the stream",
                "map it under [truth] only",
            )
