"""Resolving required handles here: each is really asked for, and a fault says what is missing."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fp_contracts.topics import pinned
from fp_operator.authority import Handle
from fp_operator.stack import StackAddresses
from fp_operator.stack.state import StateFolder
from fp_runtime.bus import TopicState
from fp_runtime.errors import Unavailable, UserError
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_admin
from fp_runtime.postgres import connect
from fp_runtime.settings import RuntimeSettings


def resolve_all(
    handles: Sequence[Handle], state_dir: Path, addresses: StackAddresses, settings: RuntimeSettings
) -> dict[str, str | None]:
    """Handle -> None when it resolves, else the fault in one line."""
    checks: dict[str, Callable[[], str | None]] = {
        "postgres:roles": lambda: _roles(settings),
        "state:secrets.json": lambda: _secrets(state_dir),
        "kafka:topics": lambda: _topics(settings),
        "store:evidence": lambda: _store(addresses.evidence_url),
        "store:archive": lambda: _store(addresses.archive_url),
        "store:oracle": lambda: _store(addresses.oracle_url),
        "postgres:sr.run": lambda: _table(settings, "sr.run"),
        "postgres:ops.lease": lambda: _table(settings, "ops.lease"),
    }
    return {handle.name: _asked(checks.get(handle.local), handle.local) for handle in handles}


def _asked(check: Callable[[], str | None] | None, where: str) -> str | None:
    if check is None:
        return f"nothing here resolves {where}"
    try:
        return check()
    except (Unavailable, UserError, OSError) as error:
        return str(error)


def _roles(settings: RuntimeSettings) -> str | None:
    with connect(settings.pg_dsn, "fp-doctor") as conn:
        rows = conn.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'fp\\_%' AND rolcanlogin").fetchall()
    return None if len(rows) >= 2 else "the service roles are missing: run `fp up`"


def _secrets(state_dir: Path) -> str | None:
    path = state_dir / "secrets.json"
    if not path.is_file():
        return "secrets.json is missing: run `fp up`"
    return None if path.stat().st_mode & 0o077 == 0 else "secrets.json may be read by others: chmod 600 it"


def _topics(settings: RuntimeSettings) -> str | None:
    admin = open_admin(settings)
    try:
        found = admin.describe()
    finally:
        admin.close()
    missing = sorted(set(pinned(settings.profile)) - set(found))
    return f"topics missing: {', '.join(missing)}: run `fp up`" if missing else topic_drift(found, settings.profile)


def topic_drift(found: Mapping[str, TopicState], profile: str) -> str | None:
    """Topics that have another number of partitions than their profile says, in one line; None when there is none.

    They cannot be used: stages count on the profile's number, and the keys of older records lie by the other one.
    """
    wanted = {name: topic.partitions for name, topic in pinned(profile).items()}
    other = [f"{name} has {state.partitions} partitions, not {wanted[name]}" for name, state in sorted(found.items())
             if name in wanted and state.partitions != wanted[name]]  # fmt: skip
    if not other:
        return None
    more = f" and {len(other) - 1} more differ" if len(other) > 1 else ""
    return f"{other[0]}{more}: made for another number of lanes than profile {profile} has"


def _store(url: str) -> str | None:
    open_store(url).list("evidence/none")
    return None


def _table(settings: RuntimeSettings, name: str) -> str | None:
    with connect(settings.pg_dsn, "fp-doctor") as conn:
        row = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return None if row and row[0] else f"table {name} is missing: run `fp up`"


def lock_fault(state_dir: Path) -> str | None:
    """Whether the state folder can be locked (one `up` or `down` at a time)."""
    try:
        with StateFolder(state_dir).lock():
            return None
    except (UserError, OSError) as error:
        return str(error)


def month_spend(settings: RuntimeSettings) -> int | None:
    """Metered spend of this calendar month (UTC), micro-USD; None when it cannot be read."""
    try:
        with connect(settings.pg_dsn, "fp-doctor") as conn:
            row = conn.execute(
                "SELECT coalesce(sum(cost_microusd), 0)::bigint FROM ops.meter WHERE at >= date_trunc('month', now())"
            ).fetchone()
    except Unavailable:
        return None
    return int(row[0]) if row else None


def month_name() -> str:
    """The calendar month, UTC, YYYY-MM."""
    return time.strftime("%Y-%m", time.gmtime())
