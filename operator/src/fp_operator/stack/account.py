"""The unprivileged account for servers that refuse root, and folders which that account can reach."""

import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from fp_runtime.errors import UserError

_ROOT_FOLDER = Path("/var/tmp/fp-root")


@dataclass(frozen=True, slots=True)
class Account:
    """Numeric ids to drop to."""

    uid: int
    gid: int


def unprivileged() -> Account | None:
    """The account `nobody` when this process is root, else none: then servers run as we do."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise UserError(
            "cannot start PostgreSQL as root", "there is no account 'nobody' to run it as", "run fp as an ordinary user"
        ) from error
    return Account(entry.pw_uid, entry.pw_gid)


def reachable(path: Path, account: Account | None) -> bool:
    """Whether `account` may enter `path`: the folder and every parent that exists must be open to others."""
    if account is None:
        return True
    existing = [p for p in (path, *path.parents) if p.exists()]
    return all(_may_enter(p.stat(), account) for p in existing)


def _may_enter(info: os.stat_result, account: Account) -> bool:
    if info.st_uid == account.uid:
        return bool(info.st_mode & stat.S_IXUSR)
    if info.st_gid == account.gid:
        return bool(info.st_mode & stat.S_IXGRP)
    return bool(info.st_mode & stat.S_IXOTH)


def reachable_folder(preferred: Path, account: Account | None) -> Path:
    """`preferred`, or where `account` cannot enter it (say, below /root) a folder of its own below /var/tmp.

    That one is made, open to read for all; nothing secret belongs into it itself.
    """
    if reachable(preferred, account):
        return preferred
    if not _ROOT_FOLDER.exists():
        _ROOT_FOLDER.mkdir()
        _ROOT_FOLDER.chmod(0o755)
    info = _ROOT_FOLDER.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(
            f"cannot use {_ROOT_FOLDER}", "it belongs to somebody else", "remove it, or run fp as an ordinary user"
        )
    key = hashlib.sha256(str(preferred).encode()).hexdigest()[:12]
    folder = _ROOT_FOLDER / f"{preferred.name}-{key}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    return folder
