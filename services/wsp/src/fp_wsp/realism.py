"""Declared disturbances of a stream: duplicates, mutants, poison, late context; chosen by (seed, event id). Pure."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import orjson

from fp_contracts.canonical import trusted_bytes
from fp_contracts.ids import h32
from fp_contracts.reasons import LineClass, Quarantine
from fp_contracts.records import Pins
from fp_contracts.runconfig import Realism
from fp_wsp.expand import CONTEXT_PARTS, Event, envelope_of, line_of

PPM = 1_000_000
LINES_PER_PAYMENT = 5
COPY_DELAY_US = 5_000_000
LATE_DELAY_US = 30_000_000
TEST_PAN = "4111111111111111"
_ANCHOR_PARTS = (1, 2)  # the events that carry account and instrument ids
_MASK = 2**64 - 1
_DRAWS = struct.Struct(">Q8x")  # of event ids, of 16 bytes each: the number that `fate` draws, without a parse each


class Fate(StrEnum):
    """What becomes of an event: it is sent as it is, late, or followed in its lane by a second line made from it."""

    PLAIN = "PLAIN"
    LATE = "LATE"
    DUPLICATE = "DUPLICATE"
    MUTANT = "MUTANT"
    POISON_JSON = "POISON_JSON"
    POISON_TRUTH = "POISON_TRUTH"
    POISON_TYPE = "POISON_TYPE"
    POISON_SCHEMA = "POISON_SCHEMA"
    POISON_PIN = "POISON_PIN"
    POISON_PAN = "POISON_PAN"


# What the gateway must make of a line of each fate: the plan is compared with what it really said.
EXPECTED: Mapping[Fate, tuple[LineClass, Quarantine | None]] = MappingProxyType(
    {
        Fate.PLAIN: (LineClass.ADMITTED, None),
        Fate.LATE: (LineClass.ADMITTED, None),
        Fate.DUPLICATE: (LineClass.DUPLICATE, None),
        Fate.MUTANT: (LineClass.QUARANTINED, Quarantine.PAYLOAD_HASH_MISMATCH),
        Fate.POISON_JSON: (LineClass.QUARANTINED, Quarantine.NOT_JSON),
        Fate.POISON_TRUTH: (LineClass.QUARANTINED, Quarantine.TRUTH_FIELD),
        Fate.POISON_TYPE: (LineClass.QUARANTINED, Quarantine.UNKNOWN_TYPE),
        Fate.POISON_SCHEMA: (LineClass.QUARANTINED, Quarantine.SCHEMA_BROKEN),
        Fate.POISON_PIN: (LineClass.QUARANTINED, Quarantine.PIN_MISMATCH),
        Fate.POISON_PAN: (LineClass.QUARANTINED, Quarantine.PAN_REFUSED),
    }
)
ADMITTED_FATES = frozenset(fate for fate, (line_class, _) in EXPECTED.items() if line_class is LineClass.ADMITTED)
AS_IT_IS = frozenset({Fate.PLAIN, Fate.LATE, Fate.DUPLICATE})  # fates whose line is the event's own
_POISONS = (Fate.POISON_JSON, Fate.POISON_TRUTH, Fate.POISON_TYPE, Fate.POISON_SCHEMA, Fate.POISON_PIN)
_POISONS_WITH_IDS = (*_POISONS, Fate.POISON_PAN)


class Chooser:
    """The fate of every event under one pinned Realism: a function of (seed, event id) alone, never of batching."""

    __slots__ = ("_config", "_disturbed_ppm", "_salt")

    def __init__(self, config: Realism) -> None:
        self._config = config
        self._salt = int.from_bytes(hashlib.sha256(f"realism|{config.seed}".encode()).digest()[:8], "big")
        self._disturbed_ppm = config.duplicate_ppm + config.mutant_ppm + config.poison_ppm + config.late_context_ppm

    def fate(self, event: Event) -> Fate:
        """PLAIN for most. Event ids are hashes, so their digits with the seed mixed in are a uniform draw."""
        draw = (int(event.event_id[:16], 16) ^ self._salt) % PPM
        return Fate.PLAIN if draw >= self._disturbed_ppm else self._disturbance(event, draw)

    def disturbed(self, events: Iterable[tuple[int, int, str, *tuple[Any, ...]]]) -> list[bool]:
        """Of each event whether its fate may be another than PLAIN."""
        salt, below_ppm = self._salt, self._disturbed_ppm
        draws = _DRAWS.iter_unpack(bytes.fromhex("".join([event[2] for event in events])))
        return [(draw ^ salt) % PPM < below_ppm for (draw,) in draws]

    def _disturbance(self, event: Event, draw: int) -> Fate:
        config = self._config
        if draw < config.duplicate_ppm:
            return Fate.DUPLICATE
        draw -= config.duplicate_ppm
        if draw < config.mutant_ppm:
            return Fate.MUTANT
        draw -= config.mutant_ppm
        if draw < config.poison_ppm:
            kinds = _POISONS_WITH_IDS if event.part in _ANCHOR_PARTS else _POISONS
            return kinds[self._second_draw(event) % len(kinds)]
        return Fate.LATE if event.part in CONTEXT_PARTS else Fate.PLAIN

    def due_us(self, event: Event, fate: Fate, join_wait_us: int) -> int:
        """Event time after which the second (or late) line goes out, behind the lane's first event at or past it.

        Late context is due past the deadline of its payment's join, so that its snapshot is DEGRADED.
        """
        jitter = self._second_draw(event) >> 8
        if fate is Fate.LATE:
            return event.payment.ts_us + join_wait_us + 1 + jitter % LATE_DELAY_US
        return event.ts_us + jitter % COPY_DELAY_US

    def _second_draw(self, event: Event) -> int:
        return (int(event.event_id[16:], 16) + self._salt) & _MASK


def expected_lines(payments: int, config: Realism) -> int:
    """About how many lines a world of so many payments becomes: each disturbance but lateness adds one."""
    added_ppm = config.duplicate_ppm + config.mutant_ppm + config.poison_ppm
    return LINES_PER_PAYMENT * payments * (PPM + added_ppm) // PPM


def write(event: Event, fate: Fate, pins: Pins) -> bytes:
    """The line of an event under a fate (no newline). PLAIN, LATE and DUPLICATE write the same bytes."""
    if fate in AS_IT_IS:
        return line_of(event, pins)
    match fate:
        case Fate.MUTANT:
            return _mutant(event, pins)
        case Fate.POISON_JSON:
            line = line_of(event, pins)
            return line[: len(line) // 2]
        case _:
            return _poison(event, fate, pins)


def _mutant(event: Event, pins: Pins) -> bytes:
    """The same event id with another payload."""
    envelope = envelope_of(event, pins)
    payload = envelope["payload"]
    if "amount_minor" in payload:
        payload["amount_minor"] += 1
    elif "is_virtual" in payload:
        payload["is_virtual"] = not payload["is_virtual"]
    else:
        payload["session_id"] = h32("mutant", event.event_id)
    return trusted_bytes(envelope)


def _poison(event: Event, fate: Fate, pins: Pins) -> bytes:
    """A well-formed line that breaks exactly one rule, under an event id of its own."""
    envelope: dict[str, Any] = envelope_of(event, pins)
    envelope["event_id"] = h32("poison", event.event_id)
    payload = envelope["payload"]
    match fate:
        case Fate.POISON_TRUTH:
            payload["is_fraud"] = False
        case Fate.POISON_TYPE:
            envelope["event_type"] = "loyalty_points"
        case Fate.POISON_SCHEMA:
            payload["unexpected"] = "field"
        case Fate.POISON_PIN:
            envelope["run_config_digest"] = hashlib.sha256(pins.run_config_digest.encode()).hexdigest()
        case Fate.POISON_PAN:
            payload["instrument_id"] = TEST_PAN
        case _:
            raise ValueError(f"{fate} is no poison")
    return orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS)
