"""What the learning triggers know of a run's learning events. Pure; P12–P15 are not closed here yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

LEARNING_PHASES = ("P12", "P13", "P14", "P15")


@dataclass(frozen=True, slots=True)
class Seen:
    """How many learning events were read, by topic."""

    events: Mapping[str, int] = field(default_factory=dict)

    def note(self, topic: str) -> "Seen":
        """One more event of a topic."""
        return replace(self, events={**self.events, topic: self.events.get(topic, 0) + 1})

    def metrics(self) -> dict[str, int]:
        """Counts for the heartbeat, keyed by the topic's lane: ofs, mf, registry."""
        return {f"{topic.split('.')[3]}_events": count for topic, count in self.events.items()}
