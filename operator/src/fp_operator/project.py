"""Where the project and its state are: found from the environment, the current folder or the installed source."""

import os
from pathlib import Path

import orjson

from fp_operator.stack import default_state_dir
from fp_runtime.errors import UserError

LATEST = "latest.json"


def root() -> Path:
    """The folder with docs/authority: FP_ROOT, the current folder, or the checkout this code runs from."""
    candidates = [Path(os.environ["FP_ROOT"])] if "FP_ROOT" in os.environ else []
    candidates += [Path.cwd(), *Path(__file__).resolve().parents]
    for folder in candidates:
        if (folder / "docs" / "authority").is_dir():
            return folder
    raise UserError("project", "docs/authority is not found from here", "run in the checkout, or set FP_ROOT to it")


def state_dir() -> Path:
    """The state folder: FP_STATE_DIR, FP_STATE or .fp in the current folder; absolute."""
    given = os.environ.get("FP_STATE_DIR")
    return Path(given).absolute() if given else default_state_dir().absolute()


def remember_latest(folder: Path, run: str, bundle: str) -> None:
    """Record the last run in latest.json, whole or not at all."""
    path = folder / LATEST
    part = path.with_suffix(".part")
    part.write_bytes(orjson.dumps({"platform_run_id": run, "bundle": bundle}))
    part.replace(path)


def latest(folder: Path) -> tuple[str, str] | None:
    """(run, bundle) of latest.json, None before the first run; the bundle is empty until one was exported."""
    path = folder / LATEST
    if not path.is_file():
        return None
    document = orjson.loads(path.read_bytes())
    return str(document["platform_run_id"]), str(document["bundle"])
