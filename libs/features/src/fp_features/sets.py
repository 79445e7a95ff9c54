"""Feature groups and feature sets: what a vector means, under one digest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from fp_contracts.canonical import digest_of
from fp_features.account import AccountState
from fp_features.merchant import MerchantState
from fp_features.payment import Payment

State = TypeVar("State", contravariant=True)


@dataclass(frozen=True, slots=True)
class FeatureGroup(Generic[State]):
    """Features of one entity under one window rule; a change of meaning is a new version."""

    name: str
    version: int
    entity: str
    window: str
    features: tuple[str, ...]
    compute: Callable[[Payment, State], tuple[float, ...]]

    def description(self) -> dict[str, Any]:
        """All that the digest covers: everything but the code."""
        return {
            "name": self.name,
            "version": self.version,
            "entity": self.entity,
            "window": self.window,
            "features": list(self.features),
        }

    @property
    def digest(self) -> str:
        """hex64 sha256 of the canonical description."""
        return digest_of(self.description())


@dataclass(frozen=True)
class FeatureSet:
    """Ordered groups: rtdl computes the snapshot part, df the account part; the vector is both in this order."""

    name: str
    snapshot_groups: tuple[FeatureGroup[MerchantState], ...]
    account_groups: tuple[FeatureGroup[AccountState], ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"feature set {self.name} has a name twice")

    @cached_property
    def snapshot_names(self) -> tuple[str, ...]:
        """Columns of the snapshot part."""
        return tuple(name for group in self.snapshot_groups for name in group.features)

    @cached_property
    def account_names(self) -> tuple[str, ...]:
        """Columns of the account part."""
        return tuple(name for group in self.account_groups for name in group.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Columns of the full vector."""
        return self.snapshot_names + self.account_names

    @cached_property
    def schema_digest(self) -> str:
        """hex64 sha256 of the canonical description of the set and its groups, in order."""
        return digest_of(
            {
                "name": self.name,
                "snapshot": [group.description() for group in self.snapshot_groups],
                "account": [group.description() for group in self.account_groups],
            }
        )

    def snapshot_values(self, payment: Payment, merchant: MerchantState) -> tuple[float, ...]:
        """The snapshot part of the vector."""
        values: tuple[float, ...] = ()
        for group in self.snapshot_groups:
            values += group.compute(payment, merchant)
        return values

    def account_values(self, payment: Payment, account: AccountState) -> tuple[float, ...]:
        """The account part of the vector; `account.update(payment, …)` comes first."""
        values: tuple[float, ...] = ()
        for group in self.account_groups:
            values += group.compute(payment, account)
        return values

    def without(self, *group_names: str) -> "FeatureSet":
        """The set for a world that lacks what these groups need: absent by schema, so another name and digest."""
        here = {group.name for group in self.snapshot_groups} | {group.name for group in self.account_groups}
        unknown = set(group_names) - here
        if unknown:
            raise ValueError(f"feature set {self.name} has no group {sorted(unknown)}")
        return FeatureSet(
            "-".join((self.name, *sorted(group_names))),
            tuple(group for group in self.snapshot_groups if group.name not in group_names),
            tuple(group for group in self.account_groups if group.name not in group_names),
        )
