"""The add-a-feature guide is true: its files exist, its names exist, its example does what it says."""

import re
from pathlib import Path
from typing import Any

import fp_features
from fp_features import CORE_V1, AccountState, FeatureSet, Payment
from fp_features.account import _MAGIC as ACCOUNT_MAGIC
from fp_features.merchant import _MAGIC as MERCHANT_MAGIC

ROOT = Path(__file__).resolve().parents[4]
GUIDE = (ROOT / "docs/how-to/add-a-feature.md").read_text()


def test_every_file_the_guide_names_exists() -> None:
    files = re.findall(r"^\| `([^`]+)` \|", GUIDE, re.MULTILINE)
    assert len(files) == 8
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert (ROOT / "bench/handbook_parity.py").is_file()


def test_every_name_the_guide_uses_exists() -> None:
    for owner, name in re.findall(r"`(AccountState|MerchantState)\.(\w+)`", GUIDE):
        assert callable(getattr(getattr(fp_features, owner), name))
    assert ACCOUNT_MAGIC != MERCHANT_MAGIC
    assert re.search(r"^unit:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_example_adds_one_column_and_changes_the_digest() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)
    added: FeatureSet = names["CORE_V2"]
    assert added.names == (*CORE_V1.names, "round_amount")
    assert added.schema_digest != CORE_V1.schema_digest
    account, payment = AccountState(), Payment(0, 20_000, "ECOM", "m")
    account.update(payment, 0)
    assert added.account_values(payment, account) == (*CORE_V1.account_values(payment, account), 1.0)
