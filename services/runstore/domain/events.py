"""Derives from a run's `events` when its first token came."""

from typing import Final

import msgspec

from runstore.domain import json_text
from runstore.domain.errors import RunstoreError
from runstore.domain.times import parse_time

_ABSENT: Final = msgspec.Raw()
_NEW_TOKEN: Final = msgspec.Raw(b'"new_token"')
# Lists with more than this are not looked through: each event would become an object.
_MAX_COMMAS: Final = 1_000_000


class _Event(msgspec.Struct):
    name: msgspec.Raw = _ABSENT
    time: msgspec.Raw = _ABSENT


_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_EVENT: Final = msgspec.json.Decoder(_Event)
_STRING: Final = msgspec.json.Decoder(str)


def first_token_time(raw: bytes) -> int | None:
    """Microseconds since the epoch at which the first `new_token` event of `events` (JSON) happened.

    None without such an event, or when its `time` is not an ISO 8601 string. Raises
    `invalid("events", ...)` for malformed JSON. Source: contract runs-v1, section 9.
    """
    json_text.check("events", raw)
    found = raw.find(b"new_token")
    if found < 0:
        return None
    raw = json_text.replace_lone_surrogates(raw)
    # A long stream has thousands of events, and the first token is near the front. A beginning that
    # is a list once it is closed has the same first items as the whole.
    leading = raw[: raw.find(b"}", found) + 1] + b"]"
    event = _first_new_token(leading)
    if event is None and raw.count(b",") <= _MAX_COMMAS:
        event = _first_new_token(raw)
    return None if event is None else _time_us(event)


def _first_new_token(raw: bytes) -> _Event | None:
    for item in json_text.decode_part(_ITEMS, raw) or ():
        event = json_text.decode_part(_EVENT, item)
        if event is not None and event.name == _NEW_TOKEN:
            return event
    return None


def _time_us(event: _Event) -> int | None:
    text = None if event.time is _ABSENT else json_text.decode_part(_STRING, event.time)
    if text is None:
        return None
    try:
        return parse_time("events", text)
    except RunstoreError:
        return None
