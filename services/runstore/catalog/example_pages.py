"""Pages of examples: what the database can decide is SQL, conditions on JSON are decided here, row by row."""

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Row, Select, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import dataset_tables as tables
from runstore.catalog.dataset_versions import visible
from runstore.catalog.keyed_pages import rows_of_page
from runstore.catalog.projects import contains
from runstore.catalog.texts import json_object
from runstore.domain.datasets import MAX_DATASET_PAGE
from runstore.domain.examples import ExampleFilter, ExampleOrder

_examples = tables.examples.c
_combinations = tables.split_combinations.c
# More of them than a statement should name are looked at row by row.
_MAX_COMBINATIONS: Final = 1_000
_SPLITS: Final = msgspec.json.Decoder(tuple[str, ...])
_Match = Callable[[Row[Any]], bool]


async def split_combinations(
    connection: AsyncConnection, dataset_id: str, *conditions: ColumnElement[bool]
) -> dict[str, tuple[str, ...]]:
    """The sets of splits that examples of the dataset have ever been in, by their text in the table."""
    query = select(_combinations.splits).where(_combinations.dataset_id == dataset_id, *conditions)
    return {text: _SPLITS.decode(text) for text in (await connection.execute(query)).scalars()}


def in_use(dataset_id: str, at_us: int | None) -> ColumnElement[bool]:
    """Whether an example of the version is in a set of splits."""
    has_it = _examples.splits == _combinations.splits
    return exists().where(_examples.dataset_id == dataset_id, has_it, visible(at_us))


async def read_page(
    connection: AsyncConnection, tenant_id: str, condition: ExampleFilter, at_us: int | None
) -> list[Row[Any]]:
    """The page's rows in order; `at_us` is the version, None the latest.

    That the dataset, if one is named, is the tenant's must be known before.
    Raises INVALID_ARGUMENT for metadata that is no JSON object.
    """
    query = select(tables.examples).where(visible(at_us))
    if condition.ids or condition.dataset_id is None:
        query = query.where(_examples.tenant_id == tenant_id)
    if condition.dataset_id is not None:
        query = query.where(_examples.dataset_id == condition.dataset_id)
    if condition.ids:
        query = query.where(_examples.id.in_(condition.ids))
    if condition.splits and condition.dataset_id is not None:
        combinations = await split_combinations(connection, condition.dataset_id)
        wanted = [text for text, names in combinations.items() if set(names) & set(condition.splits)]
        if len(wanted) <= _MAX_COMBINATIONS:
            query = query.where(_examples.splits.in_(wanted))
            condition = replace(condition, splits=())
    matches = _match(condition)
    if condition.order is ExampleOrder.RANDOM:
        return await _random_page(connection, query, condition, matches)
    query = _ordered(query, condition)
    limit = min(condition.limit, MAX_DATASET_PAGE)
    if matches is None and condition.dataset_id is not None:
        shown = select(tables.examples).where(_examples.tenant_id == tenant_id, visible(at_us))
        return await rows_of_page(connection, query, shown, _examples.id, condition.offset, limit)
    if matches is None:
        return list(await connection.execute(query.offset(condition.offset).limit(limit)))
    page: list[Row[Any]] = []
    passed = 0
    async with _matching(connection, query, matches) as rows:
        async for row in rows:
            if len(page) == limit:
                break
            passed += 1
            if passed > condition.offset:
                page.append(row)
    return page


def _ordered(query: Select[Any], condition: ExampleFilter) -> Select[Any]:
    keys: tuple[Any, ...] = {
        ExampleOrder.RECENT: (_examples.from_us, _examples.place),
        ExampleOrder.CREATED: (_examples.created_at_us, _examples.place),
        ExampleOrder.ID: (),
    }[condition.order]
    if not keys or condition.dataset_id is None:
        keys = (*keys, _examples.id)
    return query.order_by(*(key.desc() if condition.descending else key for key in keys))


async def _random_page(
    connection: AsyncConnection, query: Select[Any], condition: ExampleFilter, matches: _Match | None
) -> list[Row[Any]]:
    """The same mixture for the same seed, whatever is added later."""
    if matches is None:
        found = await connection.execute(query.with_only_columns(_examples.id))
        ids = list(found.scalars())
    else:
        async with _matching(connection, query, matches) as rows:
            ids = [row.id async for row in rows]
    seed = struct.pack("<d", condition.random_seed)
    ids.sort(key=lambda example_id: blake2b(example_id.encode(), key=seed, digest_size=8).digest())
    limit = min(condition.limit, MAX_DATASET_PAGE)
    page = ids[condition.offset : condition.offset + limit]
    rows_by_id = {row.id: row for row in await connection.execute(query.where(_examples.id.in_(page)))}
    return [rows_by_id[example_id] for example_id in page]


@asynccontextmanager
async def _matching(
    connection: AsyncConnection, query: Select[Any], matches: _Match
) -> AsyncIterator[AsyncIterator[Row[Any]]]:
    async with connection.stream(query) as rows:
        yield (row async for row in rows if matches(row))


def _match(condition: ExampleFilter) -> _Match | None:
    """What the database cannot decide; None when it can decide everything."""
    tests: list[_Match] = []
    if condition.metadata is not None:
        wanted = json_object("metadata", condition.metadata)
        tests.append(lambda row: contains(msgspec.json.decode(row.metadata), wanted))
    if condition.condition is not None:
        holds = condition.condition
        tests.append(lambda row: holds(msgspec.json.decode(row.metadata)))
    if condition.texts:
        # As JSON writes them between its quotes.
        texts = [msgspec.json.encode(text)[1:-1].decode().casefold() for text in condition.texts]
        tests.append(lambda row: _holds_texts(row, texts))
    if condition.splits:
        splits = set(condition.splits)
        tests.append(lambda row: not splits.isdisjoint(_SPLITS.decode(row.splits)))
    return (lambda row: all(test(row) for test in tests)) if tests else None


def _holds_texts(row: Row[Any], texts: list[str]) -> bool:
    content = b"\n".join((row.inputs, row.outputs or b"", row.metadata))
    folded = content.decode(errors="replace").casefold()
    return all(text in folded for text in texts)
