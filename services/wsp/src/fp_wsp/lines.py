"""The lines of a run, put together from fragments: the five of a payment at once, since they share most of them. Pure.

A quarter of the cost of dictionaries; tests hold the bytes to `fp_wsp.expand.line_of`.
"""

from functools import lru_cache

import orjson

from fp_contracts.records import Pins
from fp_contracts.timestamps import US_PER_S, to_text
from fp_wsp.expand import PARTS, TRACED, VIRTUAL, Event, Flow, envelope_of, trace_start, ts_text
from fp_wsp.world import AUTH_REQUEST, AUTH_RESPONSE, FIRST_PART_LEAD_US, LAST_PART_LAG_US, Payment

_US_PER_MINUTE = 60 * US_PER_S
_US_PER_TENTH = US_PER_S // 10
_TENTHS = tuple(f"{tenth // 10:02}.{tenth % 10}" for tenth in range(600))  # of a minute
_SIXTIETHS = tuple(f"{minute:02}:" for minute in range(60))
_OFFSET_0, _OFFSET_1, _OFFSET_2, _OFFSET_3, _OFFSET_4 = (part.offset_us // _US_PER_TENTH for part in PARTS)
assert all(part.offset_us % _US_PER_TENTH == 0 for part in PARTS), "`_times` lets the parts share digits"
_NOBODY = Payment(0, "", "", 0, "", "", None, None, 0, "", "", None, None, None, None)


class LineWriter:
    """`line_of` for the events of one run. A payment's lines are made when the first of them is asked for."""

    def __init__(self, pins: Pins) -> None:
        around = [_around(number, pins) for number in range(len(PARTS))]
        self._start, _, self._trace, self._end = around[0]
        self._types = [before_payload for _, before_payload, _, _ in around]

    def line_of(self, event: Event) -> bytes:
        """See the function."""
        return self.lines_of(event.flow)[event.part]

    def lines_of(self, flow: Flow) -> list[bytes]:
        """The lines of all parts of a payment: `flow.lines` from now on."""
        if not flow.lines:
            flow.lines.extend(self._lines(flow))
        return flow.lines

    def _lines(self, flow: Flow) -> list[bytes]:
        """Keys in canonical order. Event ids, traces and times need no escapes."""
        flow_id, payment, (id_0, id_1, id_2, id_3, id_4), _ = flow
        (
            ts_us, _, merchant_id, seq, account_id, instrument_id, device_id, terminal_id, minor, currency_code,
            channel, mcc, country, _, result,
        ) = payment  # fmt: skip
        start, (type_0, type_1, type_2, type_3, type_4), end = self._start, self._types, self._end
        time_0, time_1, time_2, time_3, time_4 = _times(ts_us)
        trace = f"{self._trace}{flow_id[:16]}-"
        time = f'-{"01" if flow_id.endswith(TRACED) else "00"}","ts_utc":"'
        party = _text(account_id)
        account, instrument = f'"account_id":{party},', f'"instrument_id":{_text(instrument_id)},'
        merchant, shop = f'"merchant_id":{_text(merchant_id)}', _shop(channel, country, mcc)
        arrival, amount = f'"arrival_seq":{seq},', f'"amount_minor":{minor},'
        currency, of_flow = f'"currency":{_text(currency_code)},', f'"flow_id":"{flow_id}",'
        device = "" if device_id is None else f'"device_id":{_text(device_id)},'
        terminal = "" if terminal_id is None else f'"terminal_id":{_text(terminal_id)},'
        answer = "" if result is None else f'"auth_result":{_text(result)},'
        return [
            f'{start}{id_0}{type_0}{{{arrival}{shop}{merchant},{terminal}"tz":"UTC"}}'
            f"{trace}{id_0[:16]}{time}{time_0}{end}".encode(),
            f'{start}{id_1}{type_1}{{{account}{arrival}{device}{instrument}{merchant},"party_id":{party}}}'
            f"{trace}{id_1[:16]}{time}{time_1}{end}".encode(),
            f"{start}{id_2}{type_2}{{{account}{amount}{arrival}{currency}{of_flow}{instrument}{merchant}}}"
            f"{trace}{id_2[:16]}{time}{time_2}{end}".encode(),
            f'{start}{id_3}{type_3}{{{amount}{currency}"event_seq":1,{of_flow}"kind":"{AUTH_REQUEST}",{merchant}}}'
            f"{trace}{id_3[:16]}{time}{time_3}{end}".encode(),
            f'{start}{id_4}{type_4}{{{amount}{answer}{currency}"event_seq":2,{of_flow}"kind":"{AUTH_RESPONSE}",{merchant}}}'
            f"{trace}{id_4[:16]}{time}{time_4}{end}".encode(),
        ]


def _around(number: int, pins: Pins) -> tuple[str, str, str, str]:
    """A part's line around its event id, its payload, the end of its trace, and its time."""
    event = Event(0, 0, "@id", number, 0, Flow("@flow", _NOBODY, [], []))
    line = envelope_of(event, pins) | {"payload": "@payload", "traceparent": "@trace"}
    start, rest = orjson.dumps(line).decode().split("@id", 1)
    before_payload, rest = rest.split('"@payload"', 1)
    before_trace, rest = rest.split("@trace", 1)
    between, end = rest.split(ts_text(0), 1)
    assert between == '","ts_utc":"'
    return start, before_payload, before_trace + trace_start(pins.platform_run_id), end


@lru_cache(maxsize=65_536)
def _text(value: str) -> str:
    """A string as JSON: accounts, merchants, currencies come again."""
    return orjson.dumps(value).decode()


@lru_cache(maxsize=4_096)
def _shop(channel: str, country: str | None, mcc: str | None) -> str:
    """The fields of an arrival that say what kind of shop it is."""
    of_country = "" if country is None else f'"country":{_text(country)},'
    of_mcc = "" if mcc is None else f'"mcc":{_text(mcc)},'
    virtual = "true" if channel in VIRTUAL else "false"
    return f'"channel":{_text(channel)},{of_country}"is_virtual":{virtual},{of_mcc}'


def _times(ts_us: int) -> tuple[str, ...]:
    """`ts_text` of the five parts of a payment: nearly always of one minute, and alike behind the tenth."""
    minute, us = divmod(ts_us, _US_PER_MINUTE)
    if not FIRST_PART_LEAD_US <= us < _US_PER_MINUTE - LAST_PART_LAG_US:
        return tuple(ts_text(ts_us + part.offset_us) for part in PARTS)
    hour, minute = divmod(minute, 60)
    tenth, us = divmod(us, _US_PER_TENTH)
    head, tail = f"{_hour_text(hour)}{_SIXTIETHS[minute]}", f"{us:05}Z"
    return (
        f"{head}{_TENTHS[tenth + _OFFSET_0]}{tail}",
        f"{head}{_TENTHS[tenth + _OFFSET_1]}{tail}",
        f"{head}{_TENTHS[tenth + _OFFSET_2]}{tail}",
        f"{head}{_TENTHS[tenth + _OFFSET_3]}{tail}",
        f"{head}{_TENTHS[tenth + _OFFSET_4]}{tail}",
    )


@lru_cache(maxsize=1_024)
def _hour_text(hour: int) -> str:
    return to_text(hour * 60 * _US_PER_MINUTE)[:14]
