"""What agents remember across threads: JSON documents under a path and a key."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

from runstore.domain.errors import ErrorReason, RunstoreError, invalid

MAX_ITEM_PAGE: Final = 1_000

# An entry of PostgreSQL's indexes holds 2,704 bytes: a tenant, a namespace and a key.
_MAX_NAMESPACE_BYTES: Final = 1_000
_MAX_KEY_BYTES: Final = 1_000
_MAX_VALUE_BYTES: Final = 16 * 1024 * 1024
# A century: beyond it, "for ever" is meant.
_MAX_TTL_MINUTES: Final = 60 * 24 * 365 * 100
_RESERVED_ROOT: Final = "langgraph"

ANY_LABEL: Final = "*"
"""In the prefix or suffix of a namespace: whatever the label is."""

Namespace = tuple[str, ...]

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": eq,
    "$ne": ne,
    "$gt": gt,
    "$gte": ge,
    "$lt": lt,
    "$lte": le,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentItem:
    """A document."""

    namespace: Namespace
    key: str
    value: bytes
    """JSON object."""
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemQuery:
    """Which items to find."""

    namespace_prefix: Namespace = ()
    filter: Mapping[str, Any] | None = None
    """Decoded JSON; `check_filter` has accepted it."""
    offset: int = 0
    limit: int = 10
    refreshes_ttl: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceQuery:
    """Which namespaces to list."""

    prefix: Namespace = ()
    suffix: Namespace = ()
    max_depth: int | None = None
    offset: int = 0
    limit: int = 100

    def answer(self, namespace: Namespace) -> Namespace | None:
        """What to list for a namespace with items: itself, cut to `max_depth`; None when it is not meant."""
        if not _fits(self.prefix, namespace[: len(self.prefix)]):
            return None
        if self.suffix and not _fits(self.suffix, namespace[-len(self.suffix) :]):
            return None
        return namespace[: self.max_depth]


def _fits(pattern: Namespace, labels: Namespace) -> bool:
    return len(pattern) == len(labels) and all(
        wanted in (ANY_LABEL, label) for wanted, label in zip(pattern, labels, strict=True)
    )


def check_namespace(field: str, namespace: Sequence[str]) -> Namespace:
    """The labels under which an item may be kept. Raises INVALID_ARGUMENT."""
    if not namespace:
        raise invalid(field, f"{field} is empty")
    if namespace[0] == _RESERVED_ROOT:
        raise invalid(field, f"the first label of {field} must not be {_RESERVED_ROOT}")
    return check_labels(field, namespace)


def check_labels(field: str, labels: Sequence[str]) -> Namespace:
    """Labels to look for, or none at all. Raises INVALID_ARGUMENT."""
    for label in labels:
        if not label or "." in label or "\0" in label:
            raise invalid(field, f"a label of {field} is empty, or holds a dot or NUL")
    if _utf8_length(field, ".".join(labels)) > _MAX_NAMESPACE_BYTES:
        raise invalid(field, f"{field} has more than {_MAX_NAMESPACE_BYTES} bytes")
    return tuple(labels)


def check_key(key: str) -> str:
    """Raises INVALID_ARGUMENT for what cannot be a key."""
    if not key or "\0" in key or _utf8_length("key", key) > _MAX_KEY_BYTES:
        raise invalid("key", f"key has not 1 to {_MAX_KEY_BYTES} bytes, or holds NUL")
    return key


def check_size(value: bytes) -> None:
    """Raises TOO_LARGE for a value above 16 MiB."""
    if len(value) > _MAX_VALUE_BYTES:
        raise RunstoreError(
            ErrorReason.TOO_LARGE, f"value has more than {_MAX_VALUE_BYTES} bytes", field="value"
        )


def ttl_us(minutes: float | None) -> int | None:
    """A time to live in microseconds. Raises INVALID_ARGUMENT unless it is above 0 and below a century."""
    if minutes is None:
        return None
    if not 0 < minutes <= _MAX_TTL_MINUTES:  # Also refuses NaN.
        raise invalid("ttl", f"ttl is not above 0, up to {_MAX_TTL_MINUTES} minutes")
    return max(1, round(minutes * 60_000_000))


def check_filter(condition: Mapping[str, Any]) -> None:
    """Raises INVALID_ARGUMENT for an operator that does not exist."""
    for wanted in condition.values():
        if not isinstance(wanted, dict):
            continue
        if _is_comparison(wanted):
            unknown = next((name for name in wanted if name not in _OPERATORS), None)
            if unknown is not None:
                raise invalid("filter", f"{unknown[:20]} is not one of {', '.join(_OPERATORS)}")
        else:
            check_filter(wanted)


def matches(value: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether a document meets every condition; objects within it may have more keys than those asked for."""
    return all(_meets(value.get(key), wanted) for key, wanted in condition.items())


def _meets(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return _equal(value, wanted)
    if _is_comparison(wanted):
        return all(_compares(name, value, operand) for name, operand in wanted.items())
    return isinstance(value, dict) and matches(value, wanted)


def _is_comparison(wanted: Mapping[str, Any]) -> bool:
    return any(key.startswith("$") for key in wanted)


def _compares(operator: str, value: Any, operand: Any) -> bool:
    if operator == "$eq":
        return _equal(value, operand)
    if operator == "$ne":
        return not _equal(value, operand)
    if (_is_number(value) and _is_number(operand)) or (isinstance(value, str) and isinstance(operand, str)):
        return _OPERATORS[operator](value, operand)
    return False


def _equal(value: Any, wanted: Any) -> bool:
    # In Python True equals 1, in JSON it does not.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _utf8_length(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise invalid(field, f"{field} holds half of a surrogate pair") from error
