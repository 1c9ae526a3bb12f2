"""What the literals of a filter mean to the fields they are compared with (filter-language.md §1).

Every function raises ValueError with a message that completes "<field> expects …".
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Context, Decimal
from typing import NoReturn
from uuid import UUID

from runstore.domain.conditions import Instant, JsonContainer, JsonLeaf, JsonShape
from runstore.domain.times import EPOCH, MICROSECOND, NAIVE_EPOCH
from runstore.query.filters import MAX_FILTER_DEPTH, exact_number

_MAX_SHOWN_LENGTH = 40

# uuid.UUID accepts much more: braces, URNs, underscores, digits of other scripts.
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")

# fromisoformat alone would let pass any separator, and letters in the fraction.
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)

_DURATION = re.compile(r"\s*(?P<number>-?[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>ms|s|m|h|)\s*")
_UNIT_SECONDS = {
    "": Decimal(1),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_EXACT = Context(prec=120)
"""Enough for any number of a filter times any unit; the default context would round at 28 digits."""

_LIKE_BACKSLASH = re.compile(r"\\([%_\\])?")


def shown(text: str) -> str:
    """The text as an error message quotes it: on one line, cut where it is long."""
    cut = text if len(text) <= _MAX_SHOWN_LENGTH else text[:_MAX_SHOWN_LENGTH] + "…"
    return repr(cut)


def parse_uuid(text: str) -> UUID:
    """A UUID in hexadecimal, with or without hyphens."""
    if not _UUID.fullmatch(text):
        raise ValueError(f"a UUID, not {shown(text)}")
    return UUID(text)


def parse_instant(text: str) -> Instant:
    """An ISO 8601 date or time; without an offset it is UTC. Digits below 1 µs are dropped.

    Unlike the times of runs it may have any year: people write 9999 for "no end".
    """
    normal = text.strip().upper()
    try:
        if not _MOMENT.fullmatch(normal):
            raise ValueError(text)
        moment = datetime.fromisoformat(normal)
    except ValueError:
        raise ValueError(f"an ISO 8601 time such as 2023-07-15T12:34:56Z, not {shown(text)}") from None
    epoch = NAIVE_EPOCH if moment.tzinfo is None else EPOCH
    return Instant((moment - epoch) // MICROSECOND)


def parse_seconds(text: str) -> Decimal:
    """A duration in seconds: `5s`, `250ms`, `1.5m`, `2h`; without a unit, seconds."""
    duration = _DURATION.fullmatch(text)
    number = exact_number(duration["number"]) if duration else None
    if duration is None or number is None:
        raise ValueError(f'seconds, as a number or text such as "5s" or "250ms", not {shown(text)}')
    return _EXACT.multiply(number, _UNIT_SECONDS[duration["unit"]])


def parse_boolean(text: str) -> bool:
    """A boolean that somebody put in quotes."""
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError:
        raise ValueError(f"true or false, not {shown(text)}") from None


def like_pattern(text: str) -> str:
    """The pattern with every backslash doubled that does not escape `%`, `_` or a backslash.

    People write paths and regular expressions into patterns; engines refuse a dangling backslash.
    """
    return _LIKE_BACKSLASH.sub(lambda match: match.group() if match[1] else r"\\", text)


def parse_json_object(text: str) -> tuple[JsonLeaf, ...]:
    """The leaves of a JSON object, its containers' shapes among them: what `has` looks for."""
    try:
        document = json.loads(
            text, parse_int=_json_number, parse_float=_json_number, parse_constant=_refuse_constant
        )
        leaves = tuple(_leaves(document, ()))[1:]  # The first is the object itself.
        _check_encodable(leaves)
    except (ValueError, RecursionError):
        raise ValueError(f"a JSON object in quotes, not {shown(text)}") from None
    if not isinstance(document, dict):
        raise ValueError(f"a JSON object in quotes, not {shown(text)}")  # noqa: TRY004 - the caller's text is wrong
    return leaves


def _json_number(text: str) -> Decimal:
    value = exact_number(text)
    if value is None:
        raise ValueError(text)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which json accepts and JSON does not have.


def _leaves(value: object, path: tuple[str | int, ...]) -> Iterator[JsonLeaf]:
    if len(path) > MAX_FILTER_DEPTH:
        raise ValueError("too deep")
    match value:
        case dict():
            yield JsonLeaf(path, JsonShape(JsonContainer.OBJECT, len(value)))
            for key, child in value.items():
                yield from _leaves(child, (*path, key))
        case list():
            yield JsonLeaf(path, JsonShape(JsonContainer.ARRAY, len(value)))
            for index, child in enumerate(value):
                yield from _leaves(child, (*path, index))
        case str() | bool() | Decimal() | None:
            yield JsonLeaf(path, value)
        case _:
            raise ValueError(type(value).__name__)


def _check_encodable(leaves: tuple[JsonLeaf, ...]) -> None:
    """Refuse halves of surrogate pairs, which JSON can spell and no engine can store."""
    for leaf in leaves:
        for part in (*leaf.path, leaf.value):
            if isinstance(part, str):
                part.encode()
