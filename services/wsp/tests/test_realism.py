"""Realism: the fate of an event is (seed, event id) alone, at the declared rates, and each line breaks what it says."""

from collections import Counter
from collections.abc import Callable

import pytest

from fp_contracts.canonical import CanonicalError, parse_strict
from fp_contracts.envelope import Envelope, payload_hash
from fp_contracts.ingress import INGRESS_TYPES, TRUTH_FIELDS
from fp_contracts.reasons import LineClass
from fp_contracts.records import Pins
from fp_contracts.runconfig import Realism
from fp_wsp.expand import CONTEXT_PARTS, Event, expand, line_of
from fp_wsp.realism import EXPECTED, LINES_PER_PAYMENT, TEST_PAN, Chooser, Fate, expected_lines, write
from fp_wsp.world import Payment

POISONS = [fate for fate in Fate if fate.startswith("POISON")]


@pytest.fixture(scope="module")
def events(make_payments: Callable[..., list[Payment]], world_id: str) -> list[Event]:
    return [event for payment in make_payments(8_000) for event in expand(payment, world_id, 6)]


def test_the_declared_rates_hold(events: list[Event]) -> None:
    chooser = Chooser(Realism())
    count = Counter(chooser.fate(event) for event in events)
    context = sum(event.part in CONTEXT_PARTS for event in events)
    assert count[Fate.DUPLICATE] == pytest.approx(len(events) * 0.005, rel=0.25)
    assert count[Fate.MUTANT] == pytest.approx(len(events) * 0.001, rel=0.5)
    assert sum(count[fate] for fate in POISONS) == pytest.approx(len(events) * 0.001, rel=0.5)
    assert count[Fate.LATE] == pytest.approx(context * 0.003, rel=0.4)


def test_fate_depends_on_seed_and_id_alone(events: list[Event]) -> None:
    one, again, other = Chooser(Realism(seed=1)), Chooser(Realism(seed=1)), Chooser(Realism(seed=2))
    fates = [one.fate(event) for event in events]
    assert [again.fate(event) for event in reversed(events)] == fates[::-1]
    assert [other.fate(event) for event in events] != fates


def test_no_realism_is_plain(events: list[Event]) -> None:
    chooser = Chooser(Realism(duplicate_ppm=0, mutant_ppm=0, poison_ppm=0, late_context_ppm=0))
    assert {chooser.fate(event) for event in events} == {Fate.PLAIN}


def test_only_context_is_late_and_every_poison_occurs(events: list[Event], busy: Realism) -> None:
    chooser = Chooser(busy)
    found = {(chooser.fate(event), event.part) for event in events}
    assert {part for fate, part in found if fate is Fate.LATE} == set(CONTEXT_PARTS)
    assert {part for fate, part in found if fate is Fate.POISON_PAN} == {1, 2}
    assert {fate for fate, _ in found} == set(Fate)


def test_late_is_due_past_the_join_wait(events: list[Event]) -> None:
    chooser = Chooser(Realism())
    for event in events[:500]:
        assert chooser.due_us(event, Fate.LATE, 2_000_000) > event.payment.ts_us + 2_000_000
        assert chooser.due_us(event, Fate.DUPLICATE, 2_000_000) >= event.ts_us


def test_a_mutant_keeps_the_identity_and_the_contract_but_not_the_payload(events: list[Event], pins: Pins) -> None:
    for event in events[:5]:
        plain, mutant = parse_strict(line_of(event, pins)), parse_strict(write(event, Fate.MUTANT, pins))
        assert plain["event_id"] == mutant["event_id"]
        assert payload_hash(plain) != payload_hash(mutant)
        envelope = Envelope.model_validate(mutant)
        INGRESS_TYPES[envelope.event_type].model.model_validate(envelope.payload)


def test_copies_are_byte_equal(events: list[Event], pins: Pins) -> None:
    assert {write(events[0], fate, pins) for fate in (Fate.PLAIN, Fate.LATE, Fate.DUPLICATE)} == {
        line_of(events[0], pins)
    }


@pytest.mark.parametrize("fate", POISONS)
def test_each_poison_breaks_its_one_rule(fate: Fate, events: list[Event], pins: Pins) -> None:
    for event in events[1:3]:
        line = write(event, fate, pins)
        assert b"\n" not in line
        if fate is Fate.POISON_JSON:
            with pytest.raises(CanonicalError):
                parse_strict(line)
            continue
        doc, plain = parse_strict(line), parse_strict(line_of(event, pins))
        assert doc["event_id"] != plain["event_id"]
        changed = {name for name in doc if doc[name] != plain[name]} - {"event_id"}
        match fate:
            case Fate.POISON_TRUTH:
                assert set(doc["payload"]) & TRUTH_FIELDS
            case Fate.POISON_TYPE:
                assert doc["event_type"] not in INGRESS_TYPES
                assert changed == {"event_type"}
            case Fate.POISON_SCHEMA:
                assert set(doc["payload"]) - set(plain["payload"]) == {"unexpected"}
            case Fate.POISON_PIN:
                assert changed == {"run_config_digest"}
            case Fate.POISON_PAN:
                assert doc["payload"]["instrument_id"] == TEST_PAN
                assert changed == {"payload"}


def test_every_fate_has_an_expected_class() -> None:
    assert set(EXPECTED) == set(Fate)
    assert all((reason is None) == (kind is not LineClass.QUARANTINED) for kind, reason in EXPECTED.values())


def test_the_lines_of_a_world_are_known_beforehand_within_the_chance_of_their_disturbances(events: list[Event]) -> None:
    config = Realism()
    single = (Fate.PLAIN, Fate.LATE)
    chooser = Chooser(config)
    made = sum(1 if chooser.fate(event) in single else 2 for event in events)
    told = expected_lines(len(events) // LINES_PER_PAYMENT, config)
    assert len(events) < told
    assert abs(made - told) < 0.25 * (told - len(events))
