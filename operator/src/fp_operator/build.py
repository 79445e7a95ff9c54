"""P(-1): what was built. In the local profile the image is the source tree that runs; the manifest says so."""

import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fp_contracts.canonical import digest_of, sha256_hex
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_contracts.services import REQUIRED
from fp_runtime.builds import JOBS, LOCK, build_digest, job_digest

FAILED, MISSING = PHASES["P(-1)"].blockers
REVISION = "FP_REVISION"


@dataclass(frozen=True, slots=True)
class Revision:
    """What the source was made from; None with the reason and the way out when nobody knows."""

    text: str | None
    why: str = ""
    fix: str = ""


def find_revision(root: Path) -> Revision:
    """The revision of the checkout, marked when it was changed; FP_REVISION where git cannot say."""
    order = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    given, say = os.environ.get(REVISION), f"or say by {REVISION}=… what this source is"
    try:
        done = subprocess.run(order, capture_output=True, text=True, timeout=10, env={**os.environ, "LC_ALL": "C"})
    except (OSError, subprocess.SubprocessError):
        return Revision(given, "git does not run here", f"install git, {say}")
    words = done.stderr.strip().splitlines() or ["git says nothing"]
    if done.returncode == 0 and done.stdout.strip():
        return Revision(done.stdout.strip())
    if "dubious ownership" in done.stderr:
        why = f"{root} belongs to another user, so git does not read it"
        return Revision(given, why, f"git config --global --add safe.directory {root}, {say}")
    if "not a git repository" in done.stderr:
        return Revision(given, f"{root} is no git checkout", f"work in a clone, {say}")
    return Revision(given, words[0], f"mend the checkout, {say}")


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """What the build found: digest of each service and job, revision, lock, components of the lock; None = not had."""

    digests: Mapping[str, str]
    revision: str | None
    lock: bytes | None
    components: tuple[tuple[str, str], ...]
    jobs: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None


def gather(root: Path | None, revision: str | None) -> BuildFacts:
    """Facts of the build that runs here; `root` is the folder with uv.lock, None for an installed wheel set."""
    lock = None if root is None or not (root / LOCK).is_file() else (root / LOCK).read_bytes()
    try:
        digests = {service: build_digest(service) for service in REQUIRED}
        jobs = {package: job_digest(package) for package in JOBS}
    except (ModuleNotFoundError, OSError) as error:
        return BuildFacts({}, revision, lock, (), fault=str(error))
    return BuildFacts(digests, revision, lock, _components(lock), jobs)


def manifest(facts: BuildFacts) -> dict[str, Any]:
    """The digest manifest: its own digest is pinned in every run's configuration."""
    lock = None if facts.lock is None else sha256_hex(facts.lock)
    return {
        "kind": "source", "services": dict(facts.digests), "jobs": dict(facts.jobs), "environment_lock": lock,
    }  # fmt: skip


def evaluate(facts: BuildFacts) -> Evaluation:
    """P(-1): every service and job has a digest, the lock and its components are known."""
    missing = [service for service in REQUIRED if service not in facts.digests]
    missing += [package for package in JOBS if package not in facts.jobs]
    lock = None if facts.lock is None else sha256_hex(facts.lock)
    document = manifest(facts)
    return Evaluation(
        (
            Predicate("build", facts.fault or "complete", "complete", facts.fault is None, FAILED, final=True),
            Predicate("digests of services and jobs", ", ".join(missing) or "all", "none missing", not missing, MISSING,
                      final=True),
            Predicate("source revision", facts.revision or "none", "pinned", facts.revision is not None, MISSING,
                      final=True),
            Predicate("lock and components", f"{len(facts.components)} components", "lock present, at least 1",
                      lock is not None and bool(facts.components), MISSING, final=True),
        ),
        {
            "digest_manifest": document,
            "sbom": {
                "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
                "components": [
                    {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
                    for name, version in facts.components
                ],
            },
            "provenance": {
                "_type": "https://in-toto.io/Statement/v1",
                "predicateType": "https://slsa.dev/provenance/v1",
                "subject": [
                    {"name": f"fp-{service}", "digest": {"sha256": digest}}
                    for service, digest in sorted(facts.digests.items())
                ],
                "predicate": {"revision": facts.revision, "lock_sha256": lock, "builder": "source tree in place"},
            },
            "release_receipt": {
                "manifest_digest": digest_of(document), "revision": facts.revision, "lock_sha256": lock,
            },
        },
    )  # fmt: skip


def _components(lock: bytes | None) -> tuple[tuple[str, str], ...]:
    if lock is None:
        return ()
    packages = tomllib.loads(lock.decode()).get("package", [])
    return tuple(sorted((p["name"], p.get("version", "0")) for p in packages if "version" in p))
