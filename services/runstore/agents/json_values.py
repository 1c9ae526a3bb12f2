"""State values as JSON: what a graph holds in memory, as clients of an agent server expect to read it."""

import base64
import contextlib
import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from re import Pattern
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY

# PostgreSQL and many clients cannot hold the character.
_NUL, _REPLACEMENT = b"\\u0000", "\N{REPLACEMENT CHARACTER}".encode()
_ESCAPED_BACKSLASH = b"\\\\"


def to_json(value: Any) -> bytes:
    """`value` as one line of JSON in UTF-8.

    Times are ISO 8601, durations seconds, bytes base64, sets and tuples arrays, models, dataclasses and named
    tuples objects, decimals numbers, exceptions `{error, message}`. What is nothing of the kind is null, and
    so are NaN and infinities. NUL characters become U+FFFD, halves of characters a question mark, as in
    checkpoints.
    Raises TypeError for integers beyond 64 bits and for circular values.
    """
    try:
        text = orjson.dumps(value, default=_plain, option=_OPTIONS)
    except TypeError as error:
        if "surrogates" not in str(error):
            raise
        text = orjson.dumps(_with_whole_characters(value), default=_plain, option=_OPTIONS)
    return _without_nul(text) if _NUL in text else text


def from_json(text: bytes) -> Any:
    """What `text` says; None for no text at all."""
    return orjson.loads(text) if text else None


def _without_nul(text: bytes) -> bytes:
    # An even number of backslashes before the escape belongs to the text itself.
    parts = text.split(_ESCAPED_BACKSLASH)
    return _ESCAPED_BACKSLASH.join(part.replace(_NUL, _REPLACEMENT) for part in parts)


def _with_whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, BaseModel):
        return _with_whole_characters(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _with_whole_characters(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {_with_whole_characters(key): _with_whole_characters(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, AbstractSet)) and not hasattr(value, "_asdict"):
        return [_with_whole_characters(entry) for entry in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, (UUID, PurePath, IPv4Address, IPv6Address)):
        return str(value)
    return value.pattern if isinstance(value, Pattern) else _container(value)


def _container(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (AbstractSet, deque)) or (
        isinstance(value, Sequence) and not isinstance(value, str)
    ):
        return list(value)
    for convert in ("model_dump", "to_dict", "tolist"):
        method = getattr(value, convert, None)
        # Classes have the methods of their instances, and cannot call them.
        if callable(method) and not isinstance(value, type):
            with contextlib.suppress(Exception):
                return method()
    return None


def _number(value: Decimal) -> int | float:
    return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
