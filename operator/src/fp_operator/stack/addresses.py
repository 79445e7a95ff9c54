"""Where everything is: the value that `up` returns and services are configured from."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from fp_runtime.errors import UserError

VARIABLES = {
    "kafka_bootstrap": "FP_KAFKA_BOOTSTRAP",
    "pg_dsn": "FP_PG_DSN",
    "redis_url": "FP_REDIS_URL",
    "evidence_url": "FP_EVIDENCE_URL",
    "archive_url": "FP_ARCHIVE_URL",
    "oracle_url": "FP_ORACLE_URL",
    "otlp_endpoint": "FP_OTLP_ENDPOINT",
    "telemetry_url": "FP_TELEMETRY_URL",
}
_PORTED = r"(\w+://)?(\[[0-9a-fA-F:.]+\]|[^\s,:/\[\]]+):\d+"
FORMS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "kafka_bootstrap": (re.compile(rf"{_PORTED}(,{_PORTED})*"), "host:port[,host:port]"),
    "pg_dsn": (re.compile(r"postgres(ql)?://\S+"), "postgresql://user:password@host:port/database"),
    "redis_url": (re.compile(r"(rediss?|unix)://\S+"), "redis://user:password@host:port/0"),
}
"""How the address of a server looks: a pattern, and the form in words."""
STORES = ("evidence", "archive", "oracle")


@dataclass(frozen=True, slots=True)
class StackAddresses:
    """Addresses of one environment; `pg_dsn` is the owner's, services get `pg_dsn_as` their role.

    `telemetry_url`: where what goes to `otlp_endpoint` can be read back; None = nowhere.
    """

    kafka_bootstrap: str
    pg_dsn: str = field(repr=False)
    redis_url: str = field(repr=False)
    evidence_url: str
    archive_url: str
    oracle_url: str
    otlp_endpoint: str | None = None
    telemetry_url: str | None = None

    def pg_dsn_as(self, role: str, password: str) -> str:
        """The same database under another role."""
        parts = urlsplit(self.pg_dsn)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{quote(role, safe='')}:{quote(password, safe='')}@{host}"))

    def pg_dsn_for(self, database: str) -> str:
        """The same owner in another database."""
        return urlunsplit(urlsplit(self.pg_dsn)._replace(path=f"/{database}"))

    def environment(self) -> dict[str, str]:
        """The `FP_…` variables that hand these addresses to a process."""
        return {variable: value for name, variable in VARIABLES.items() if (value := getattr(self, name)) is not None}


def given_addresses(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The addresses set in the environment, by field name: what they name is used and not started."""
    return {name: environ[variable] for name, variable in VARIABLES.items() if environ.get(variable)}


def check_form(field: str, address: str) -> None:
    """UserError for what cannot be the address of that server; the text is not told, for it may hold a password."""
    pattern, form = FORMS[field]
    if not pattern.fullmatch(address):
        raise UserError(VARIABLES[field], "that is not the address of such a server", f"give {form}, or unset it")


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`$FP_STATE`, else `.fp` in the current folder."""
    return Path(environ.get("FP_STATE") or ".fp").absolute()


def store_url(state_dir: Path, store: str) -> str:
    """The file store of that name in the state folder."""
    return (state_dir / store).as_uri()
