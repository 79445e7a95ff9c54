"""What a staged row must be; the first one that is not stops the import with its row number."""

from typing import NamedTuple

import duckdb

from fp_contracts.currencies import EXPONENTS
from fp_contracts.ingress import Channel
from fp_operator.worlds import sql
from fp_operator.worlds.mapping import REQUIRED, Mapping
from fp_runtime.errors import UserError

_LATEST_US = 4_102_444_800_000_000  # 2100-01-01
_LARGEST_MINOR = 2**53


class Rule(NamedTuple):
    """A staged row that meets `broken` (SQL) is refused; `value` (SQL) is shown."""

    what: str
    why: str
    fix: str
    broken: str
    value: str


def rules(mapping: Mapping) -> list[Rule]:
    """Every rule, in the order in which they are checked."""
    column = mapping.columns()
    channels = ", ".join(sql.literal(channel.value) for channel in Channel)
    currencies = ", ".join(sql.literal(code) for code in EXPONENTS)
    found = [
        Rule(name, "it is empty or its value is not in the map", "fill the column, extend the map or give a default",
             f"{name} IS NULL", "''")
        for name in REQUIRED
    ]  # fmt: skip
    found += [
        Rule(name, "it is longer than 256 characters", "shorten the ids in the source", f"length({name}) > 256", name)
        for name in sql.TEXT_FIELDS
    ]
    found += [
        Rule(_named(name, column), "it holds a NUL character, which no store keeps", "take it out of the source",
             f"contains({name}, chr(0))", name)
        for name in (*sql.TEXT_FIELDS, "campaign")
    ]  # fmt: skip
    # Before the amounts: without a currency nobody knows how many decimals one has.
    found.append(
        Rule("currency", "it is no ISO 4217 code", "map it to the code of money with a minor unit, such as EUR or JPY",
             f"currency NOT IN ({currencies})", "currency")
    )  # fmt: skip
    where = f"column {column['event_time']!r}"
    found += [
        Rule(where, "it cannot be read as a time", f"set time.format (now {mapping.time.format!r}) and time.tz",
             "ts_us IS NULL", "time_text"),
        Rule(where, "the time is not between 1970 and 2100", "set time.format to the right epoch unit",
             f"ts_us < 0 OR ts_us >= {_LATEST_US}", "time_text"),
    ]  # fmt: skip
    found += _amount_rules(mapping, f"column {column['amount']!r}")
    found += [
        Rule("channel", "it is no channel of the contract", f"map it to one of {', '.join(Channel)}",
             f"channel NOT IN ({channels})", "channel"),
        Rule(f"column {column['is_fraud']!r}", "it is neither a positive nor a negative label",
             "extend truth.is_fraud.positive/negative, or set missing = \"legit\"", "is_fraud IS NULL", "fraud_text"),
    ]  # fmt: skip
    return found


def _named(field: str, columns: dict[str, str]) -> str:
    return f"{field} (column {columns[field]!r})" if field in columns else field


def _amount_rules(mapping: Mapping, where: str) -> list[Rule]:
    found = [
        Rule(where, "the amount is not a number", "mend the row, or set amount.decimal_comma",
             "amount IS NULL", "amount_text"),
        Rule(where, "the amount is negative", "leave refunds out of the source: payments only",
             "amount < 0", "amount_text"),
        Rule(where, "the amount is too large", "check amount.unit",
             f"amount_minor IS NULL OR amount_minor > {_LARGEST_MINOR}", "amount_text"),
    ]  # fmt: skip
    if not mapping.amount.rounding:
        # Binary float tails (285.90000000000003) are no decimals of their own.
        found.append(
            Rule(where, "the amount has more decimals than its currency",
                 "check amount.unit and currency, or set amount.rounding = true",
                 "abs(exact_minor - amount_minor) > 0.0001", "amount_text")
        )  # fmt: skip
    return found


def check(staged: duckdb.DuckDBPyConnection, mapping: Mapping) -> None:
    """UserError for the first broken rule, naming the first row that breaks it and how many do."""
    for rule in rules(mapping):
        found = staged.execute(
            f"SELECT min(row_no), count(*), arg_min(coalesce({rule.value}, ''), row_no) FROM staged WHERE {rule.broken}"
        ).fetchone()
        if found is not None and found[1]:
            row, count, value = found
            shown = f" ({str(value)[:60]!r})" if value else ""
            rows = f"row {row}" if count == 1 else f"row {row} and {count - 1} more"
            raise UserError(rule.what, f"{rows}: {rule.why}{shown}", rule.fix)


def drop_duplicates(staged: duckdb.DuckDBPyConnection, mapping: Mapping) -> int:
    """How many rows of repeated payment ids were dropped; UserError when the mapping refuses them."""
    found = staged.execute(
        "SELECT payment_id, min(row_no), max(row_no) FROM staged GROUP BY payment_id HAVING count(*) > 1"
        " ORDER BY min(row_no) LIMIT 1"
    ).fetchone()
    if found is None:
        return 0
    if mapping.duplicates == "refuse":
        raise UserError(
            "payment_id", f"{found[0]!r} is in row {found[1]} and again in row {found[2]}",
            'map a unique column, or set duplicates = "keep_first"',
        )  # fmt: skip
    before = count_rows(staged)
    staged.execute("DELETE FROM staged WHERE row_no NOT IN (SELECT min(row_no) FROM staged GROUP BY payment_id)")
    return before - count_rows(staged)


def count_rows(staged: duckdb.DuckDBPyConnection) -> int:
    """Rows now staged."""
    found = staged.execute("SELECT count(*) FROM staged").fetchone()
    return int(found[0]) if found else 0
