"""Alert rules over samples of progress and heartbeats. Each fires once when crossed, again after it cleared. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fp_contracts.control import AlertFired

STALL_US = 2_000_000
SILENCE_US = 30_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: position and records not yet released per ingress partition, last heartbeat and epoch per instance.

    An epoch counts the owners that a partition had in this run: above 1, a member was started again or taken over.
    """

    at_us: int
    positions: Mapping[int, int]
    lags: Mapping[int, int]
    heartbeats: Mapping[str, int]
    epochs: Mapping[str, int]


@dataclass
class Watch:
    """The rules of one run; `members` = how many rtdl members share the partitions."""

    members: int
    _moved: dict[int, tuple[int, int]] = field(default_factory=dict)
    _active: set[tuple[str, str]] = field(default_factory=set)
    _epochs: dict[str, int] = field(default_factory=dict)

    def observe(self, sample: Sample) -> list[AlertFired]:
        """Alerts that fire with this sample."""
        stalled: dict[str, int] = {}
        for part, position in sample.positions.items():
            before, since_us = self._moved.get(part, (-1, sample.at_us))
            if before != position or sample.lags.get(part, 0) <= 0:
                since_us = sample.at_us
            self._moved[part] = (position, since_us)
            owner = f"rtdl-{part % self.members}"
            stalled[owner] = max(stalled.get(owner, 0), sample.at_us - since_us)
        silent = {name: sample.at_us - seen_us for name, seen_us in sample.heartbeats.items()}
        return [
            *self._crossed("rtdl_stalled", stalled, STALL_US, sample.at_us),
            *self._crossed("heartbeat_silent", silent, SILENCE_US, sample.at_us),
            *self._restarts(sample),
        ]

    def _restarts(self, sample: Sample) -> list[AlertFired]:
        """A member that owns its partitions anew; each further restart fires again."""
        fired = []
        for instance, epoch in sample.epochs.items():
            if epoch > self._epochs.get(instance, 1):
                self._epochs[instance] = epoch
                fired.append(
                    AlertFired(
                        rule="member_restarted", instance=instance, observed=epoch, threshold=2, at_us=sample.at_us
                    )
                )
        return fired

    def _crossed(self, rule: str, values: Mapping[str, int], threshold_us: int, at_us: int) -> list[AlertFired]:
        fired = []
        for instance, value in values.items():
            if value < threshold_us:
                self._active.discard((rule, instance))
            elif (rule, instance) not in self._active:
                self._active.add((rule, instance))
                fired.append(
                    AlertFired(rule=rule, instance=instance, observed=value, threshold=threshold_us, at_us=at_us)
                )
        return fired
