"""The broker's jars: a committed lock (`g:a:v sha256` a line), fetched once into the cache and checked by hash."""

import hashlib
import os
import urllib.request
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType

from fp_runtime.errors import UserError

KAFKA_VERSION = "4.4.0"
LOCK_NAME = "kafka-jars.lock"
_BROKER = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
_LOGGING = "org.slf4j:slf4j-simple:1.7.36"  # without a binding the broker is silent
_THREADS = 8
_TIMEOUT_S = 60
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned jar of Maven's coordinates."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def url(self, repository: str) -> str:
        return f"{repository}/{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.file_name}"

    def line(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version} {self.sha256}"


def cache_root() -> Path:
    """`$FP_CACHE`, else `~/.cache/fp`: everything in it can be made again."""
    return Path(os.environ.get("FP_CACHE") or Path.home() / ".cache" / "fp").absolute()


def parse_lock(text: str) -> tuple[Jar, ...]:
    """Jars of a lock text, sorted by file name as the class path needs it; `#` starts a comment."""
    jars = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        coordinates, _, digest = line.partition(" ")
        parts = coordinates.split(":")
        if len(parts) != 3 or not all(parts) or not _is_sha256(digest):
            raise ValueError(f"{LOCK_NAME} line {number}: expected 'group:artifact:version sha256', got {raw!r}")
        jars.append(Jar(parts[0], parts[1], parts[2], digest))
    names = [jar.file_name for jar in jars]
    if len(set(names)) != len(names):
        raise ValueError(f"{LOCK_NAME}: two jars share a file name")
    return tuple(sorted(jars, key=lambda jar: jar.file_name))


def _is_sha256(digest: str) -> bool:
    return len(digest) == 64 and all(c in "0123456789abcdef" for c in digest)


def lock_text() -> str:
    """The committed lock."""
    return (resources.files(__package__) / LOCK_NAME).read_text(encoding="utf-8")


def fetch_jars(folder: Path, jars: Sequence[Jar]) -> tuple[Path, ...]:
    """Paths of all jars in `folder`, in the order given; what is missing or damaged is fetched (8 threads)."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(not (folder / jar.file_name).exists() for jar in jars):
        _jgo()  # once, before the threads: the warning filter is global
    with ThreadPoolExecutor(_THREADS) as pool:
        return tuple(pool.map(lambda jar: _ensure(folder, jar), jars))


def _ensure(folder: Path, jar: Jar) -> Path:
    path = folder / jar.file_name
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256:
        return path
    body = _download(jar)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(body)
    part.replace(path)
    return path


def _download(jar: Jar) -> bytes:
    url, why = jar.url(_jgo().MAVEN_CENTRAL_URL), ""
    for _ in range(_ATTEMPTS):
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:
                body: bytes = reply.read()
        except OSError as error:
            why = str(error)
            continue
        digest = hashlib.sha256(body).hexdigest()
        if digest == jar.sha256:
            return body
        why = f"its sha256 is {digest[:12]}…, the lock says {jar.sha256[:12]}…"
    raise UserError(
        what=f"cannot fetch {jar.file_name}",
        why=why,
        fix="check the network (HTTPS_PROXY is honoured), or give a running broker in FP_KAFKA_BOOTSTRAP",
    )


def make_lock() -> str:
    """A new lock text from Maven's metadata: the broker's class path as jgo resolves it, and the log binding."""
    jgo = _jgo()
    found = [*jgo.resolve(_BROKER), *jgo.resolve(_LOGGING)]
    coordinates = sorted({(a.groupId, a.artifactId, a.version) for a in found})
    unhashed = [Jar(group, artifact, version, sha256="") for group, artifact, version in coordinates]
    with ThreadPoolExecutor(_THREADS) as pool:
        bodies = pool.map(lambda jar: _read(jar.url(jgo.MAVEN_CENTRAL_URL)), unhashed)
        digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    lines = [Jar(j.group, j.artifact, j.version, d).line() for j, d in zip(unhashed, digests, strict=True)]
    head = f"# Class path of Apache Kafka {KAFKA_VERSION}; made by `python -m fp_operator.stack.kafka_jars`\n"
    return head + "\n".join(lines) + "\n"


def _jgo() -> ModuleType:
    """Half a second to import, and it warns where there is no login session: so only when something is fetched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jgo
    return jgo


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:
        body: bytes = reply.read()
    return body


if __name__ == "__main__":
    Path(__file__).with_name(LOCK_NAME).write_text(make_lock(), encoding="utf-8")
