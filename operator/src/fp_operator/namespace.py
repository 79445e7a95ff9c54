"""What one environment occupies: the thing that a teardown ends and a residual scan looks through."""

import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from fp_contracts.scratch import Scratch, scratch_run

_FOLDER = "rehearsals"


@dataclass(frozen=True, slots=True)
class Namespace:
    """Processes bear the mark of `state_dir` and listen on `ports`. `scratch` = topics, database and keys that go with
    it; None = the platform's own, which stay.
    """

    state_dir: Path
    ports: Mapping[str, int]
    scratch: Scratch | None = None


def new_scratch(main: Path, port: int) -> Namespace:
    """A scratch namespace, noted in the state folder `main` before anything of it exists: whatever happens, it is
    found again. Its own folder lies elsewhere: the path of a supervisor's socket must be short.
    """
    run = scratch_run(time.strftime("platform_%Y%m%dT%H%M%SZ", time.gmtime()), secrets.token_hex(6))
    scratch = Scratch(run)
    space = Namespace(Path(tempfile.mkdtemp(prefix=f"fp-{scratch.tag}-")), {"actuator": port}, scratch)
    note = note_of(main, scratch)
    note.parent.mkdir(exist_ok=True)
    part = note.with_suffix(".part")
    part.write_bytes(orjson.dumps({"state_dir": str(space.state_dir), "ports": dict(space.ports), "run": run}))
    part.replace(note)
    return space


def note_of(main: Path, scratch: Scratch) -> Path:
    """Where a scratch namespace is noted."""
    return main / _FOLDER / f"{scratch.tag}.json"


def read(note: Path) -> Namespace:
    """The scratch namespace of a note."""
    document = orjson.loads(note.read_bytes())
    return Namespace(Path(document["state_dir"]), document["ports"], Scratch(document["run"]))


def noted(main: Path) -> list[Namespace]:
    """Scratch namespaces that nobody has torn down to the end."""
    return [read(note) for note in sorted((main / _FOLDER).glob("*.json"))]
