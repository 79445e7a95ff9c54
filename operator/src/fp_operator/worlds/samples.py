"""The worlds that ship with the project (see sample/README.md): about 25,000 payments, and a tiny one of 500."""

from importlib import resources

from fp_operator.worlds.importer import import_world
from fp_operator.worlds.mapping import SHIPPED, Mapping, parse_mapping
from fp_wsp.world import WorldManifest

SAMPLE, TINY = SHIPPED


def sample_world(oracle_url: str, endpoint: str | None = None) -> WorldManifest:
    """Seal the sample world into an oracle store; the same fingerprint every time."""
    return _seal(SAMPLE, oracle_url, endpoint)


def tiny_world(oracle_url: str, endpoint: str | None = None) -> WorldManifest:
    """Seal the tiny world of the system tests; the same fingerprint every time."""
    return _seal(TINY, oracle_url, endpoint)


def sample_mapping(name: str) -> Mapping:
    """The mapping of a shipped world."""
    return parse_mapping(resources.files(__package__).joinpath(f"sample/{name}.toml").read_text(), f"mapping {name}")


def _seal(name: str, oracle_url: str, endpoint: str | None) -> WorldManifest:
    with resources.as_file(resources.files(__package__).joinpath(f"sample/{name}.parquet")) as path:
        return import_world(path, sample_mapping(name), oracle_url, endpoint=endpoint)
