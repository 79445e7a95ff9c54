"""Aliases in MLflow: real client, a folder as its store; a server that is down is said, quickly."""

import time
from pathlib import Path

import pytest

from fp_contracts.bundle import BundleRef
from fp_contracts.control import EvidenceRef
from fp_ofs_trigger.aliases import AliasesDown, MlflowAliases, NoAliases, open_aliases

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def bundle(n: int) -> BundleRef:
    manifest = EvidenceRef(key=f"bundles/{n}/bundle.json", sha256="0" * 64, size=1)
    return BundleRef(bundle_id=f"{n:032x}", model_digest=f"{n:064x}", manifest=manifest)


def test_without_a_tracker_nothing_follows() -> None:
    aliases = open_aliases("")
    aliases.check()
    assert isinstance(aliases, NoAliases)
    assert aliases.follow("payment_fraud", bundle(1), None) == {}


def test_aliases_follow_what_is_active_and_before(tmp_path: Path) -> None:
    aliases = open_aliases(tmp_path.as_uri())
    aliases.check()
    assert aliases.follow("payment_fraud", bundle(1), None) == {"champion": bundle(1).bundle_id}
    found = aliases.follow("payment_fraud", bundle(2), bundle(1))
    assert found == {"champion": bundle(2).bundle_id, "previous": bundle(1).bundle_id}
    assert aliases.follow("payment_fraud", bundle(2), bundle(1)) == found
    assert isinstance(aliases, MlflowAliases)
    assert len(aliases._client.search_model_versions("name = 'payment_fraud'")) == 2


def test_a_server_that_is_down_is_said_within_seconds() -> None:
    aliases = open_aliases("http://127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(AliasesDown, match="MLflow"):
        aliases.check()
    with pytest.raises(AliasesDown, match="MLflow"):
        aliases.follow("payment_fraud", bundle(1), None)
    assert time.monotonic() - began < 30
