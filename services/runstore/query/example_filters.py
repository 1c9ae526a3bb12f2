"""Filters of examples: conditions on the metadata (contract filter-language, section 9).

`exists(metadata, "k")`, `has(metadata, '{"k": "v"}')`, `metadata.k` with every comparison, and/or/not.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec

from runstore.domain.errors import RunstoreError
from runstore.query import filters
from runstore.query.filters import Function, invalid_filter

MetadataTest: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""Whether decoded metadata satisfies a filter."""

_FIELD: Final = "metadata"
_ABSENT: Final = object()
_ORDERS: Final[dict[Function, Callable[[Any, Any], bool]]] = {
    Function.GT: lambda value, wanted: value > wanted,
    Function.GTE: lambda value, wanted: value >= wanted,
    Function.LT: lambda value, wanted: value < wanted,
    Function.LTE: lambda value, wanted: value <= wanted,
}


def parse_example_filter(text: str) -> MetadataTest | None:
    """The filter as a test; None when it is empty or blank. Raises RunstoreError INVALID_FILTER."""
    tree = filters.parse(text)
    return None if tree is None else _test(tree)


def _test(tree: filters.Filter) -> MetadataTest:
    match tree:
        case filters.And(operands):
            every = [_test(operand) for operand in operands]
            return lambda metadata: all(test(metadata) for test in every)
        case filters.Or(operands):
            some = [_test(operand) for operand in operands]
            return lambda metadata: any(test(metadata) for test in some)
        case filters.Not(operand):
            inner = _test(operand)
            return lambda metadata: not inner(metadata)
        case filters.Comparison():
            return _comparison(tree)


def _comparison(tree: filters.Comparison) -> MetadataTest:
    attribute = tree.attribute
    if attribute is None:
        raise _wrong("search needs a field; examples are filtered by their metadata alone", tree)
    head, *path = attribute.path
    if head != _FIELD:
        raise _wrong(f"{head} is not a field of an example that can be filtered; metadata is", tree)
    if tree.function is Function.EXISTS:
        if isinstance(tree.value, filters.Text):
            path.append(tree.value.value)
        return lambda metadata: _at(metadata, path) not in (_ABSENT, None)
    if tree.function is Function.HAS:
        return _containment(tree, path)
    if not path:
        raise _wrong(f"{tree.function} needs a key of the metadata, such as metadata.key", tree)
    return _on_value(tree, path)


def _containment(tree: filters.Comparison, path: list[str]) -> MetadataTest:
    """`has(metadata, '{…}')`: every key with its value. `has(metadata.key, "x")`: an element of an array."""
    if not isinstance(tree.value, filters.Text):
        raise _wrong("has needs text", tree)
    text = tree.value.value
    if path:
        return lambda metadata: _has_element(_at(metadata, path), text)
    try:
        wanted = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise _wrong("has(metadata, …) needs a JSON object in quotes", tree) from error
    return lambda metadata: all(
        key in metadata and _equal(metadata[key], value) for key, value in wanted.items()
    )


def _on_value(tree: filters.Comparison, path: list[str]) -> MetadataTest:
    function, value = tree.function, tree.value
    if function is Function.IN:
        if not isinstance(value, filters.Items):
            raise _wrong("in needs a list", tree)
        wanted_any = [_plain(item, tree) for item in value.values]
        return lambda metadata: any(_equal(_at(metadata, path), wanted) for wanted in wanted_any)
    wanted = _plain(value, tree)
    if function is Function.EQ:
        return lambda metadata: _equal(_at(metadata, path), wanted)
    if function is Function.NEQ:
        return lambda metadata: not _equal(_at(metadata, path), wanted)
    if function in _ORDERS:
        holds = _ORDERS[function]
        return lambda metadata: _ordered(_at(metadata, path), wanted, holds)
    if function in (Function.LIKE, Function.NOTLIKE, Function.SEARCH) and isinstance(wanted, str):
        pattern = _pattern(wanted if function is not Function.SEARCH else f"%{wanted}%")
        negative = function is Function.NOTLIKE

        def is_like(metadata: Mapping[str, Any]) -> bool:
            found = _at(metadata, path)
            return (isinstance(found, str) and pattern.fullmatch(found) is not None) is not negative

        return is_like
    raise _wrong(f"{function} does not take this value", tree)


def _plain(value: filters.Literal | None, tree: filters.Comparison) -> Any:
    match value:
        case filters.Text(text):
            return text
        case filters.Number(number):
            return number
        case filters.Boolean(truth):
            return truth
        case filters.Null():
            return None
        case _:
            raise _wrong(f"{tree.function} does not take this value", tree)


def _at(metadata: Any, path: list[str]) -> Any:
    """The value at a path of keys; a key may itself have dots."""
    if not path:
        return metadata
    if not isinstance(metadata, Mapping):
        return _ABSENT
    whole = ".".join(path)
    if whole in metadata:
        return metadata[whole]
    return _at(metadata[path[0]], path[1:]) if path[0] in metadata else _ABSENT


def _equal(found: Any, wanted: Any) -> bool:
    if wanted is None:
        return found is None or found is _ABSENT
    # In Python True equals 1, in JSON it does not.
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return bool(_comparable(found) == wanted)


def _comparable(found: Any) -> Any:
    return Decimal(str(found)) if isinstance(found, float) else found


def _ordered(found: Any, wanted: Any, holds: Callable[[Any, Any], bool]) -> bool:
    is_text = isinstance(found, str) and isinstance(wanted, str)
    is_number = isinstance(found, int | float) and isinstance(wanted, Decimal)
    if not (is_text or is_number) or isinstance(found, bool):
        return False
    return holds(_comparable(found), wanted)


def _has_element(found: Any, text: str) -> bool:
    return text in found if isinstance(found, list) else found == text


def _pattern(text: str) -> "re.Pattern[str]":
    """SQL's `%` and `_`, in any case."""
    first, *others = (
        "".join("." if character == "_" else re.escape(character) for character in piece)
        for piece in text.split("%")
    )
    if not others:
        return re.compile(first, re.IGNORECASE | re.DOTALL)
    # The leftmost place of a piece is as good as any: atomic groups never look for another one.
    between = "".join(f"(?>.*?{piece})" for piece in others[:-1])
    return re.compile(f"{first}{between}.*{others[-1]}", re.IGNORECASE | re.DOTALL)


def _wrong(reason: str, tree: filters.Comparison) -> RunstoreError:
    return invalid_filter(reason, tree.offset, "filter")
