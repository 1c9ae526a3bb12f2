"""Which items match a filter."""

from typing import Any

import pytest

from runstore.domain.agent_items import (
    NamespaceQuery,
    check_filter,
    check_key,
    check_labels,
    check_namespace,
    matches,
    ttl_us,
)
from runstore.domain.errors import RunstoreError

VALUE: dict[str, Any] = {
    "n": 5,
    "text": "b",
    "flag": True,
    "none": None,
    "list": [1, 2],
    "deep": {"a": 1, "b": {"c": "x"}},
}


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"n": 5},
        {"n": 5.0, "text": "b"},
        {"n": {"$gt": 4, "$lte": 5}},
        {"n": {"$gte": 5, "$lt": 5.5}},
        {"text": {"$gt": "a", "$ne": "c"}},
        {"n": {"$eq": 5}},
        {"flag": True},
        {"none": None},
        {"missing": None},
        {"missing": {"$ne": 1}},
        {"list": [1, 2]},
        {"deep": {"a": 1}},
        {"deep": {"b": {"c": {"$ne": "y"}}}},
    ],
)
def test_what_a_filter_finds(condition: dict[str, Any]) -> None:
    """Equality, comparisons of numbers and of texts, and parts of objects."""
    check_filter(condition)
    assert matches(VALUE, condition)


@pytest.mark.parametrize(
    "condition",
    [
        {"n": 6},
        {"n": "5"},
        {"n": True},
        {"flag": 1},
        {"n": {"$gt": 5}},
        {"n": {"$gt": "4"}},
        {"text": {"$lt": 9}},
        {"flag": {"$gt": 0}},
        {"none": {"$lt": 1}},
        {"missing": 1},
        {"missing": {"$gt": 1}},
        {"list": [1]},
        {"list": {"a": 1}},
        {"deep": {"a": 2}},
        {"n": {"a": 1}},
        {"n": 5, "text": "c"},
    ],
)
def test_what_a_filter_leaves_out(condition: dict[str, Any]) -> None:
    """Other values, other types, and what has no order."""
    check_filter(condition)
    assert not matches(VALUE, condition)


@pytest.mark.parametrize(
    "condition", [{"n": {"$in": [5]}}, {"deep": {"a": {"$or": 1}}}, {"n": {"$gt": 1, "x": 2}}]
)
def test_unknown_operators_are_refused(condition: dict[str, Any]) -> None:
    """An operator that does not exist is no part of an object either."""
    with pytest.raises(RunstoreError):
        check_filter(condition)


@pytest.mark.parametrize(
    "labels",
    [[], [""], ["a", ""], ["a.b"], ["a\0"], ["langgraph", "x"], ["a" * 1_001], ["é" * 501], ["\ud800"]],
)
def test_namespaces_that_cannot_be(labels: list[str]) -> None:
    """No path, empty labels, dots, NUL, the reserved root, and what an index cannot hold."""
    with pytest.raises(RunstoreError) as refusal:
        check_namespace("namespace", labels)
    assert refusal.value.field == "namespace"


def test_labels_to_look_for_may_be_none_at_all() -> None:
    """A search may be everywhere, also below the reserved root, where there is nothing."""
    assert check_labels("prefix", []) == ()
    assert check_labels("prefix", ["langgraph"]) == ("langgraph",)


@pytest.mark.parametrize("key", ["", "\0", "k" * 1_001])
def test_keys_that_cannot_be(key: str) -> None:
    """Empty, with NUL, too long."""
    with pytest.raises(RunstoreError):
        check_key(key)


def test_time_to_live_in_minutes() -> None:
    """Parts of minutes count; nothing, endless and less than nothing are refused."""
    assert ttl_us(None) is None
    assert ttl_us(0.5) == 30_000_000
    for minutes in (0, -1, float("nan"), float("inf"), 1e300):
        with pytest.raises(RunstoreError):
            ttl_us(minutes)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (NamespaceQuery(), ("a", "b", "c")),
        (NamespaceQuery(max_depth=2), ("a", "b")),
        (NamespaceQuery(prefix=("a", "*")), ("a", "b", "c")),
        (NamespaceQuery(suffix=("*", "c"), max_depth=1), ("a",)),
        (NamespaceQuery(prefix=("b",)), None),
        (NamespaceQuery(suffix=("b",)), None),
        (NamespaceQuery(prefix=("a", "b", "c", "*")), None),
        (NamespaceQuery(suffix=("*", "a", "b", "c")), None),
    ],
)
def test_namespaces_by_both_ends(query: NamespaceQuery, answer: tuple[str, ...] | None) -> None:
    """Labels of both ends, any of them by `*`, and no more labels than asked for."""
    assert query.answer(("a", "b", "c")) == answer
