"""Reads OTLP attributes: typed values into Python's, and dotted keys into the objects that they spell.

Whoever reads an attribute takes it out only if the run then says the same; all others stay, so nothing
is lost.
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_MAX_STEPS: Final = 32
"""Of a dotted key that is read as a path."""
_MAX_INDEX_DIGITS: Final = 9

Attributes = dict[str, Any]

T = TypeVar("T")


def value_of(value: AnyValue) -> Any:
    """An attribute's value as JSON can say it; bytes as base64.

    Nested as deep as the message is, which its parser bounds at 100.
    """
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value" and not math.isfinite(value.double_value):
        return str(value.double_value)  # JSON has no such number.
    return getattr(value, kind)


def attributes_of(pairs: Iterable[KeyValue]) -> Attributes:
    """Attributes by key; of one that is given twice, which the standard forbids, the last holds."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def take(attributes: Attributes, keys: Iterable[str]) -> Any:
    """Takes out the first of the keys that has a value; None when none has."""
    return take_as(attributes, keys, lambda value: value)


def take_as(attributes: Attributes, keys: Iterable[str], read: Callable[[Any], T | None]) -> T | None:
    """Takes out the first of the keys that `read` makes something of; None when it does of none."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and (found := read(value)) is not None:
            del attributes[key]
            return found
    return None


def take_prefixed(attributes: Attributes, prefix: str) -> Attributes:
    """Takes out the keys that begin with `prefix`, without it."""
    return {
        key.removeprefix(prefix): attributes.pop(key)
        for key in [key for key in attributes if key.startswith(prefix) and key != prefix]
    }


def take_indexed(attributes: Attributes, prefix: str) -> list[Any]:
    """Takes out the keys `<prefix>.<index>.<path>`, and returns the objects that they spell, in order.

    `{"m.0.role": "user", "m.0.parts.0.text": "hi"}` → `[{"role": "user", "parts": [{"text": "hi"}]}]`.
    """
    start = f"{prefix}."
    tree: dict[str, Any] = {}
    for key in [key for key in attributes if key.startswith(start)]:
        steps = key[len(start) :].split(".")
        if _is_index(steps[0]) and _put(tree, steps, attributes[key]):
            del attributes[key]
    return _lists(tree) if tree else []


def nested(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The object that dotted keys spell; a key that contradicts another stays dotted."""
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        if not _put(tree, key.split("."), value):
            tree[key] = value
    return {key: _lists(value) for key, value in tree.items()}


def unwrapped(told: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object with the one below `key` merged into it; what contradicts it stays there."""
    inner = told.get(key)
    if not isinstance(inner, Mapping):
        return dict(told)
    outer = {name: value for name, value in told.items() if name != key}
    contradictions = {name: value for name, value in inner.items() if outer.get(name, value) != value}
    return {**inner, **outer, **({key: contradictions} if contradictions else {})}


def json_or_text(value: Any) -> Any:
    """What a string says that holds a JSON object or array; every other value as it is."""
    return any_json_or_text(value) if isinstance(value, str) and value[:1] in ("{", "[") else value


def any_json_or_text(value: Any) -> Any:
    """What a string says that holds JSON; every other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value


def object_of(value: Any) -> dict[str, Any] | None:
    """The object that a value is, or holds as JSON; None for anything else."""
    told = json_or_text(value)
    return told if isinstance(told, dict) else None


def text_of(value: Any) -> str | None:
    """A value where conventions want text: strings as they are, anything else as JSON; None of nothing."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _put(tree: dict[str, Any], steps: list[str], value: Any) -> bool:
    """Whether the path was free and is taken now."""
    if len(steps) > _MAX_STEPS:
        return False
    node = tree
    for step in steps[:-1]:
        inner = node.setdefault(step, {})
        if not isinstance(inner, dict):
            return False
        node = inner
    if steps[-1] in node:
        return False
    node[steps[-1]] = value
    return True


def _lists(node: Any) -> Any:
    """Objects whose keys are all indexes are lists."""
    if not isinstance(node, dict):
        return node
    if node and all(_is_index(key) for key in node):
        return [_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _lists(value) for key, value in node.items()}


def _is_index(step: str) -> bool:
    return len(step) <= _MAX_INDEX_DIGITS and step.isascii() and step.isdigit()
