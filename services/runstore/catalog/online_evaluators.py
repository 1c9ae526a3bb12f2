"""Definitions of evaluators in the catalog."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update

from runstore.catalog.database import Database
from runstore.catalog.management_tables import online_evaluators
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_name, json_object
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.online_evaluators import (
    MAX_DEFINITION_BYTES,
    MAX_EVALUATOR_PAGE,
    EvaluatorFilter,
    EvaluatorOrder,
    EvaluatorType,
    OnlineEvaluator,
)
from runstore.runtime.clock import Clock

_evaluators = online_evaluators.c
_ORDERS: Final[dict[EvaluatorOrder, ColumnElement[Any]]] = {
    EvaluatorOrder.CREATED: _evaluators.created_at_us,
    EvaluatorOrder.UPDATED: _evaluators.updated_at_us,
    EvaluatorOrder.NAME: func.lower(_evaluators.name),
}


class OnlineEvaluatorCatalog:
    """Reads and writes evaluators, always inside one tenant.

    Ids are canonical UUID text. Every method may raise RunstoreError UNAVAILABLE when the database does not
    answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, evaluator: OnlineEvaluator) -> None:
        """Stores `evaluator` as given. Raises INVALID_ARGUMENT for what cannot be stored."""
        check_name("name", evaluator.name)
        _check_definition(evaluator.definition)
        async with self._database.write() as connection:
            await connection.execute(insert(online_evaluators).values(dataclasses.asdict(evaluator)))

    async def get(self, tenant_id: str, evaluator_id: str) -> OnlineEvaluator:
        """Raises NOT_FOUND when the tenant has no such evaluator."""
        async with self._database.read() as connection:
            query = select(online_evaluators).where(_is(tenant_id, evaluator_id))
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _not_found(evaluator_id)
        return _evaluator(row)

    async def delete(self, tenant_id: str, evaluator_ids: Sequence[str]) -> list[str]:
        """Removes evaluators; the ids of those that were there."""
        here = and_(_evaluators.tenant_id == tenant_id, _evaluators.id.in_(evaluator_ids))
        async with self._database.write() as connection:
            found = [row.id for row in await connection.execute(select(_evaluators.id).where(here))]
            await connection.execute(delete(online_evaluators).where(here))
        return found

    async def list(self, tenant_id: str, condition: EvaluatorFilter) -> tuple[list[OnlineEvaluator], int]:
        """The page `offset`, `limit` of the evaluators that meet `condition`, and how many do."""
        meets = [_evaluators.tenant_id == tenant_id]
        if condition.name_contains is not None:
            meets.append(has_part(_evaluators.name, condition.name_contains))
        if condition.type is not None:
            meets.append(_evaluators.type == condition.type)
        order = [_ORDERS[condition.order], _evaluators.id]
        page = (
            select(online_evaluators)
            .where(*meets)
            .order_by(*([each.desc() for each in order] if condition.descending else order))
            .offset(condition.offset)
            .limit(min(condition.limit, MAX_EVALUATOR_PAGE))
        )
        async with self._database.read() as connection:
            found = [_evaluator(row) for row in await connection.execute(page)]
            counting = select(func.count()).select_from(online_evaluators).where(*meets)
            count = (await connection.execute(counting)).scalar_one()
        return found, count

    async def update(
        self,
        tenant_id: str,
        evaluator_id: str,
        *,
        name: str | None = None,
        definition: tuple[EvaluatorType, bytes] | None = None,
    ) -> OnlineEvaluator:
        """Changes the name and the keys that `definition` has, and returns the result.

        Raises NOT_FOUND; INVALID_ARGUMENT for a definition of another type, and like `create`.
        """
        if name is not None:
            check_name("name", name)
        async with self._database.write() as connection:
            query = select(online_evaluators).where(_is(tenant_id, evaluator_id)).with_for_update()
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise _not_found(evaluator_id)
            changed = dataclasses.replace(_evaluator(row), updated_at_us=self._clock.now_us())
            if name is not None:
                changed = dataclasses.replace(changed, name=name)
            if definition is not None:
                changed = dataclasses.replace(changed, definition=_merged(changed, *definition))
            statement = update(online_evaluators).where(_is(tenant_id, evaluator_id))
            await connection.execute(statement.values(dataclasses.asdict(changed)))
        return changed


def _is(tenant_id: str, evaluator_id: str) -> Any:
    return and_(_evaluators.tenant_id == tenant_id, _evaluators.id == evaluator_id)


def _merged(evaluator: OnlineEvaluator, kind: EvaluatorType, changes: bytes) -> bytes:
    if kind is not evaluator.type:
        raise invalid("definition", f"the evaluator is of type {evaluator.type}, not {kind}")
    old = json_object("definition", evaluator.definition)
    merged = msgspec.json.encode({**old, **json_object("definition", changes)})
    _check_definition(merged)
    return merged


def _check_definition(definition: bytes) -> None:
    if len(definition) > MAX_DEFINITION_BYTES:
        raise invalid("definition", f"more than {MAX_DEFINITION_BYTES} bytes")
    json_object("definition", definition)


def _evaluator(row: Row[Any]) -> OnlineEvaluator:
    return OnlineEvaluator(**{**row._mapping, "type": EvaluatorType(row.type)})


def _not_found(evaluator_id: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"no evaluator with id {evaluator_id}", field="id")
