"""Reads OTLP attributes: typed values into Python's, and flat indexed keys into lists of objects."""

import base64
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_MAX_DEPTH: Final = 32
"""Of nested values, and of the objects that indexed keys make; what lies deeper is left out."""

Attributes = dict[str, Any]


def value_of(value: AnyValue, depth: int = 0) -> Any:
    """An attribute's value as JSON can say it; bytes as base64."""
    kind = value.WhichOneof("value")
    if kind is None or depth > _MAX_DEPTH:
        return None
    if kind == "array_value":
        return [value_of(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: value_of(pair.value, depth + 1) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value" and not _is_finite(value.double_value):
        return str(value.double_value)  # JSON has no such number.
    return getattr(value, kind)


def attributes_of(pairs: Iterable[KeyValue]) -> Attributes:
    """Attributes by key; of one that is given twice the last holds."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def take_indexed(attributes: Attributes, prefix: str) -> list[Any]:
    """Takes the keys `<prefix>.<index>.<path>` out, and returns the objects that they describe, in order.

    `{"m.0.role": "user", "m.0.parts.0.text": "hi"}` → `[{"role": "user", "parts": [{"text": "hi"}]}]`.
    """
    start = f"{prefix}."
    tree: dict[str, Any] = {}
    for key in [key for key in attributes if key.startswith(start)]:
        steps = key[len(start) :].split(".")
        if not steps[0].isdigit() or len(steps) > _MAX_DEPTH:
            continue
        value = attributes.pop(key)
        node = tree
        for step in steps[:-1]:
            inner = node.get(step)
            if not isinstance(inner, dict):
                inner = node[step] = {}
            node = inner
        node[steps[-1]] = value
    found = _lists(tree)
    return found if isinstance(found, list) else []


def json_or_text(value: Any) -> Any:
    """What a string says that holds JSON; the string itself if it does not, and other values as they are."""
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value


def _lists(node: Any) -> Any:
    """Objects whose keys are all numbers are lists."""
    if not isinstance(node, dict):
        return node
    if node and all(key.isdigit() for key in node):
        return [_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _lists(value) for key, value in node.items()}


def _is_finite(number: float) -> bool:
    return number - number == 0
