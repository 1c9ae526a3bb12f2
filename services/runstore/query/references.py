"""Conditions on what only the catalog knows of runs: turned into conditions that an engine can look up."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

from runstore.domain.conditions import (
    AllOf,
    Always,
    AnyOf,
    CatalogField,
    Compare,
    Condition,
    Not,
    OneOf,
    Present,
    Scalar,
    ScalarField,
)
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import RunQuery
from runstore.domain.threads import ThreadQuery

MAX_FOUND = 10_000
"""Most examples and runs that the conditions of one filter may stand for together."""

_Query = TypeVar("_Query", RunQuery, ThreadQuery)


class Examples(Protocol):
    """What is needed of the catalog's examples."""

    async def examples_of(self, tenant_id: str, dataset_ids: Sequence[str] | None, most: int) -> list[str]:
        """The examples that datasets have, or had in an older version; None for all datasets."""
        ...


class Shares(Protocol):
    """What is needed of the catalog's shares."""

    async def runs_of(self, tenant_id: str, tokens: Sequence[str] | None, most: int) -> list[str]:
        """The runs that are shared by tokens; None for all tokens."""
        ...


class References:
    """Asks the catalog, for conditions on a `CatalogField` alone."""

    def __init__(self, examples: Examples, shares: Shares) -> None:
        self._examples = examples
        self._shares = shares

    async def resolved(self, query: _Query) -> _Query:
        """The query with conditions that mean the same now. Raises INVALID_FILTER when those of one filter
        stand for more than `MAX_FOUND`, UNAVAILABLE."""
        changed: dict[str, Any] = {}
        for name in ("filter", "trace_filter", "tree_filter"):
            condition: Condition | None = getattr(query, name)
            if condition is not None and _asks_the_catalog(condition):
                changed[name] = await _Resolution(self._examples, self._shares, query.tenant_id, name).of(
                    condition
                )
        return replace(query, **changed) if changed else query


class _Resolution:
    """Of one filter."""

    def __init__(self, examples: Examples, shares: Shares, tenant_id: str, filter_name: str) -> None:
        self._examples = examples
        self._shares = shares
        self._tenant_id = tenant_id
        self._filter_name = filter_name
        self._left = MAX_FOUND

    async def of(self, condition: Condition) -> Condition:
        match condition:
            case Compare(CatalogField() as field, _, value):
                return await self._found(field, [value])
            case OneOf(CatalogField() as field, values):
                return await self._found(field, values)
            case Present(CatalogField() as field):
                return await self._found(field, None)
            case AllOf(parts) | AnyOf(parts):
                return replace(condition, conditions=tuple([await self.of(part) for part in parts]))
            case Not(part):
                return Not(await self.of(part))
            case _:
                return condition

    async def _found(self, field: CatalogField, values: Iterable[Scalar] | None) -> Condition:
        ids = None if values is None else [str(value) for value in values]
        if field is CatalogField.REFERENCE_DATASET_ID:
            operand = ScalarField.REFERENCE_EXAMPLE_ID
            found = await self._examples.examples_of(self._tenant_id, ids, self._left + 1)
        else:
            operand = ScalarField.RUN_ID
            found = await self._shares.runs_of(self._tenant_id, ids, self._left + 1)
        self._left -= len(found)
        if self._left < 0:
            raise RunstoreError(
                ErrorReason.INVALID_FILTER,
                f"Invalid {self._filter_name}: {field} stands for too much: all such conditions together for "
                f"more than {MAX_FOUND} examples and runs",
                field=self._filter_name,
            )
        return OneOf(operand, tuple(map(UUID, found))) if found else Always(value=False)


def _asks_the_catalog(condition: Condition) -> bool:
    match condition:
        case Compare(operand) | OneOf(operand) | Present(operand):
            return isinstance(operand, CatalogField)
        case AllOf(parts) | AnyOf(parts):
            return any(map(_asks_the_catalog, parts))
        case Not(part):
            return _asks_the_catalog(part)
        case _:
            return False
