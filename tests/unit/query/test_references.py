"""Conditions on fields of the catalog: what they are replaced by, and how much that may be."""

import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest

from runstore.domain.conditions import AllOf, Always, Condition, Not, OneOf, ScalarField
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import RunField, RunQuery
from runstore.query.binding import parse_condition
from runstore.query.references import MAX_FOUND, References

TENANT, DATASET, TOKEN = (str(uuid.UUID(int=number)) for number in range(3))


class Named:
    """A catalog that finds the same for whatever is named, and notes what was."""

    def __init__(self, found: Sequence[str]) -> None:
        self._found = list(found)
        self.named: list[Sequence[str] | None] = []

    async def examples_of(self, tenant_id: str, dataset_ids: Sequence[str] | None, most: int) -> list[str]:
        assert tenant_id == TENANT
        self.named.append(dataset_ids)
        return self._found[:most]

    async def runs_of(self, tenant_id: str, tokens: Sequence[str] | None, most: int) -> list[str]:
        return await self.examples_of(tenant_id, tokens, most)


def query(**filters: str) -> RunQuery:
    conditions = {name: parse_condition(text, name) for name, text in filters.items()}
    return replace(RunQuery(TENANT, frozenset({RunField.ID})), **conditions)  # type: ignore[arg-type]


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(count)]


async def test_each_filter_is_replaced() -> None:
    """At any depth, by what is known to both; the rest stays."""
    examples, shares = Named(ids(2)), Named([])
    asked = query(
        filter=f'and(gt(latency, 1), not(eq(reference_dataset_id, "{DATASET}")))',
        trace_filter=f'in(share_token, ["{TOKEN}", "{DATASET}"])',
        tree_filter="exists(reference_dataset_id)",
    )
    found = await References(examples, shares).resolved(asked)
    latency = parse_condition("gt(latency, 1)")
    some: Condition = OneOf(ScalarField.REFERENCE_EXAMPLE_ID, tuple(map(uuid.UUID, ids(2))))
    assert latency is not None
    assert found.filter == AllOf((latency, Not(some)))
    assert (found.trace_filter, found.tree_filter) == (Always(value=False), some)
    assert (examples.named, shares.named) == ([[DATASET], None], [[TOKEN, DATASET]])


async def test_other_filters_ask_nobody() -> None:
    """The query is the same."""
    examples = Named([])
    asked = query(filter=f'or(eq(reference_example_id, "{DATASET}"), not(eq(name, "x")))')
    assert await References(examples, examples).resolved(asked) is asked
    assert not examples.named


async def test_too_much_is_refused() -> None:
    """What the conditions of a filter stand for is bounded, in sum."""
    once = f'eq(reference_dataset_id, "{DATASET}")'
    most = Named(ids(MAX_FOUND))
    found = await References(most, most).resolved(query(filter=once, tree_filter=once))
    assert found.filter is not None
    for catalog, text in ((Named(ids(MAX_FOUND + 1)), once), (most, f"or({once}, {once})")):
        with pytest.raises(RunstoreError, match="Invalid tree_filter: reference_dataset_id") as caught:
            await References(catalog, catalog).resolved(query(filter="exists(name)", tree_filter=text))
        assert (caught.value.reason, caught.value.field) == (ErrorReason.INVALID_FILTER, "tree_filter")
