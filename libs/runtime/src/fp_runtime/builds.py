"""What code a process runs: a digest over the files of its packages, read by the process itself (gates.md P2)."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("fp_contracts", "fp_features", "fp_runtime")
# ofs_trigger runs the jobs; what they are made of is part of what it runs.
MORE_OF = {
    "verdict": ("fp_verify",),
    "df": ("fp_models",),
    "actions": ("fp_models",),
    "ofs_trigger": ("fp_ofs", "fp_mf", "fp_models"),
}
JOBS = {"fp_ofs": (), "fp_mf": ("fp_models",)}
"""The learning jobs, and what of ours each runs beside the libraries and itself."""
PACKAGE_OF = {"archive": "fp_rtdl", "actions": "fp_df"}
LOCK = "uv.lock"
_CODE = {".py", ".sql", ".json", ".html", ".toml", ".lock"}


def package_of(service: str) -> str:
    """The package that a service runs; two services are second processes of another's package."""
    return PACKAGE_OF.get(service, f"fp_{service}")


def package_files(package: str) -> list[tuple[str, bytes]]:
    """(name, bytes) of the code and data files of an installed package, sorted by name."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    root = Path(spec.origin).parent
    found = (path for path in root.rglob("*") if path.suffix in _CODE and path.is_file())
    return sorted((f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()) for path in found)


def build_digest(service: str) -> str:
    """hex64 over names and bytes of everything of ours that a service runs."""
    return _digest(*LIBRARIES, *MORE_OF.get(service, ()), package_of(service))


def job_digest(package: str) -> str:
    """hex64 over names and bytes of everything of ours that a learning job runs; KeyError for no job."""
    return _digest(*LIBRARIES, *JOBS[package], package)


def lock_file() -> Path | None:
    """The `uv.lock` above this code, in a source tree or above the environment that it is installed in."""
    found = (folder / LOCK for folder in Path(__file__).resolve().parents)
    return next((path for path in found if path.is_file()), None)


def _digest(*packages: str) -> str:
    total = hashlib.sha256()
    for package in packages:
        for name, body in package_files(package):
            total.update(f"{name}\0{hashlib.sha256(body).hexdigest()}\n".encode())
    return total.hexdigest()
