"""What the system refuses about files, folders and disks, as one line: what, why, the fix."""

import errno
import os
import pwd
from pathlib import Path

from fp_operator.stack.server import Away
from fp_runtime.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)
_ANOTHER = "name another one (the state folder: FP_STATE_DIR=…)"


def refused(error: OSError, state_folder: Path | None = None) -> UserError:
    """The refusal of the state folder, else of what the error names; Away where only the machine can be mended."""
    path = str(state_folder or error.filename or "a file")
    what = f"the state folder {path}" if state_folder else path
    if error.errno in _FULL:
        return Away(f"cannot write {what}", "its disk is full", "free 1 GB there, then try again")
    if error.errno == errno.EROFS:
        return Away(f"cannot write {what}", "its disk is read-only", f"mount it for writing, or {_ANOTHER}")
    if error.errno in _FORBIDDEN and (owner := _owner(Path(path))) not in (None, os.geteuid()):
        why = f"it belongs to {_name(owner)}, and this runs as {_name(os.geteuid())}"
        return UserError(f"cannot use {what}", why, f"run as {_name(owner)}, or {_ANOTHER}")
    if error.errno in _NO_FOLDER:
        return UserError(f"cannot use {what}", "a file is where a folder is needed", _ANOTHER)
    return UserError(f"cannot use {what}", error.strerror or str(error), _ANOTHER)


def full_disk(text: str) -> bool:
    """Whether a server's words tell of a full disk."""
    return os.strerror(errno.ENOSPC).lower() in text.lower()


def _owner(path: Path) -> int | None:
    """Who owns the path, or the nearest folder above that can be asked."""
    for place in (path, *path.parents):
        try:
            return place.stat().st_uid
        except OSError:
            continue
    return None


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return f"user {uid}"
