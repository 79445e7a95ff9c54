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
    assert aliases.follow("payment_fraud", bundle(1), None, bundle(3)) == {}


def test_aliases_follow_what_is_active_and_before(tmp_path: Path) -> None:
    aliases = open_aliases(tmp_path.as_uri())
    aliases.check()
    assert aliases.follow("payment_fraud", bundle(1), None, None) == {"champion": bundle(1).bundle_id}
    found = aliases.follow("payment_fraud", bundle(2), bundle(1), None)
    assert found == {"champion": bundle(2).bundle_id, "previous": bundle(1).bundle_id}
    assert aliases.follow("payment_fraud", bundle(2), bundle(1), None) == found
    assert isinstance(aliases, MlflowAliases)
    assert len(aliases._client.search_model_versions("name = 'payment_fraud'")) == 2


def test_the_challengers_alias_comes_moves_and_goes(tmp_path: Path) -> None:
    aliases = open_aliases(tmp_path.as_uri())
    for challenger in (bundle(2), bundle(3)):
        found = aliases.follow("payment_fraud", bundle(1), None, challenger)
        assert found == {"champion": bundle(1).bundle_id, "challenger": challenger.bundle_id}
    assert aliases.follow("payment_fraud", bundle(1), None, None) == {"champion": bundle(1).bundle_id}
    assert isinstance(aliases, MlflowAliases)
    assert "challenger" not in aliases._client.get_registered_model("payment_fraud").aliases
    assert aliases.follow("payment_fraud", bundle(1), None, None) == {"champion": bundle(1).bundle_id}


def test_a_server_that_is_down_is_said_within_seconds() -> None:
    aliases = open_aliases("http://127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(AliasesDown, match="MLflow"):
        aliases.check()
    with pytest.raises(AliasesDown, match="MLflow"):
        aliases.follow("payment_fraud", bundle(1), None, None)
    assert time.monotonic() - began < 30
