"""SQL that reads one foreign row as one staged payment; unreadable values become NULL and are named later. Pure."""

from fp_contracts.currencies import EXPONENTS
from fp_operator.worlds.mapping import Mapping, Source
from fp_runtime.errors import UserError

TEXT_FIELDS = (
    "payment_id", "merchant_id", "account_id", "instrument_id", "device_id", "terminal_id", "currency", "channel",
    "mcc", "country", "category", "auth_result",
)  # fmt: skip
_EPOCH_FACTORS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def name(column: str) -> str:
    """A quoted SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def text_of(column: str) -> str:
    """A column as trimmed NFC text; empty = NULL."""
    text = f"trim(CAST({name(column)} AS VARCHAR))"
    # The engine's nfc_normalize ends a text at its first NUL: two ids would become one, and nobody would see the NUL.
    return f"nullif(CASE WHEN contains({text}, chr(0)) THEN {text} ELSE nfc_normalize({text}) END, '')"


def source_text(source: Source) -> str:
    """A text field by its recipe."""
    if source.constant is not None:
        return literal(source.constant)
    value = text_of(str(source.column))
    if source.strip_prefix:
        starts = f"starts_with({value}, {literal(source.strip_prefix)})"
        value = f"CASE WHEN {starts} THEN substr({value}, {len(source.strip_prefix) + 1}) ELSE {value} END"
    if source.map is not None:
        cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in source.map.items())
        value = f"CASE {value} {cases} ELSE NULL END" if cases else "NULL"
    if source.default is not None:
        value = f"coalesce({value}, {literal(source.default)})"
    return f"{literal(source.prefix)} || {value}" if source.prefix else value


def time_us(mapping: Mapping) -> str:
    """Event time as microseconds since the epoch. Text without an offset is in the session's time zone."""
    text = text_of(mapping.time.column)
    form, zone = mapping.time.format, literal(mapping.time.tz)
    if form in _EPOCH_FACTORS:
        return f"TRY_CAST(round(TRY_CAST({text} AS DECIMAL(28,6)) * {_EPOCH_FACTORS[form]}) AS BIGINT)"
    if form == "iso":
        moment = f"TRY_CAST({text} AS TIMESTAMPTZ)"
    elif "%z" in form:
        moment = f"try_strptime({text}, {literal(form)})"
    elif "%" in form:
        moment = f"timezone({zone}, try_strptime({text}, {literal(form)}))"
    else:
        raise UserError(
            "mapping time.format", f"unknown format {form!r}", "use iso, epoch_s, epoch_ms, epoch_us or a %-pattern"
        )
    return f"CASE WHEN isfinite({moment}) THEN epoch_us({moment}) END"


def amount_decimal(mapping: Mapping) -> str:
    """The amount as it stands, as a decimal; NULL when it is no number (NaN, infinity, text)."""
    text = text_of(mapping.amount.column)
    if mapping.amount.decimal_comma:
        text = f"replace(replace({text}, '.', ''), ',', '.')"
    return f"TRY_CAST({text} AS DECIMAL(28,12))"


def minor_factor(mapping: Mapping, currency: str) -> str:
    """How many minor units the amount's unit has."""
    if mapping.amount.unit == "minor":
        return "1"
    other = {code: 10**exponent for code, exponent in EXPONENTS.items() if exponent != 2}
    cases = " ".join(f"WHEN {literal(code)} THEN {factor}" for code, factor in other.items())
    return f"CASE {currency} {cases} ELSE 100 END"  # rows.py refuses what is no currency


def is_fraud(mapping: Mapping) -> str:
    """The label as a boolean; NULL when its text is not known."""
    label = mapping.truth.is_fraud
    text = f"lower({text_of(label.column)})"
    positive, negative = (", ".join(literal(value) for value in values) for values in label.as_compared())
    missing = f"WHEN {text} IS NULL THEN false" if label.missing == "legit" else ""
    return f"CASE WHEN {text} IN ({positive}) THEN true WHEN {text} IN ({negative}) THEN false {missing} ELSE NULL END"


def campaign(mapping: Mapping) -> str:
    """The campaign's name or NULL."""
    if mapping.truth.campaign is None:
        return "CAST(NULL AS VARCHAR)"
    text = text_of(mapping.truth.campaign.column)
    none = ", ".join(literal(value) for value in mapping.truth.campaign.none)
    return f"CASE WHEN {text} IN ({none}) THEN NULL ELSE {text} END"


def kept(mapping: Mapping) -> str:
    """The condition of the account sample on source rows."""
    sample = mapping.filter.accounts
    if sample is None:
        return "true"
    source = mapping.fields.account_id
    account = text_of(source.column) if source.column is not None else literal(str(source.constant))
    digest = f"sha256({literal(sample.salt)} || coalesce({account}, ''))"
    return f"(CAST('0x' || substr({digest}, 1, 15) AS BIGINT) % {sample.modulo}) < {sample.below}"


def staging(mapping: Mapping, relation: str) -> str:
    """CREATE TABLE staged: one row per kept source row, with its row number (1 = first row of data)."""
    present = mapping.fields.present()
    fields = {field: source_text(present[field]) if field in present else "NULL" for field in TEXT_FIELDS}
    columns = ",\n  ".join(f"CAST({value} AS VARCHAR) AS {field}" for field, value in fields.items())
    return f"""CREATE TABLE staged AS
SELECT *, amount * factor AS exact_minor, TRY_CAST(round(amount * factor) AS BIGINT) AS amount_minor FROM (
 SELECT *, {minor_factor(mapping, "currency")} AS factor FROM (
 SELECT row_no, {columns},
  {time_us(mapping)} AS ts_us, {text_of(mapping.time.column)} AS time_text,
  {amount_decimal(mapping)} AS amount, {text_of(mapping.amount.column)} AS amount_text,
  {is_fraud(mapping)} AS is_fraud, {text_of(mapping.truth.is_fraud.column)} AS fraud_text,
  {campaign(mapping)} AS campaign
 FROM (SELECT *, row_number() OVER () AS row_no FROM {relation}) WHERE {kept(mapping)}))"""
