"""Finds rows by what their JSON contains.

Containment is checked here, row by row: SQLite has no operator for it. Callers narrow the rows by other
columns first.
"""

from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog.projects import contains
from runstore.catalog.texts import json_object

Wanted = tuple[str, dict[str, object] | None]
"""Name of a column, and what the JSON object in it has to contain; None for whatever it has."""


async def page_containing(
    connection: AsyncConnection, query: Select[Any], wanted: Wanted, offset: int, limit: int
) -> list[Row[Any]]:
    """The page `offset`, `limit` of the rows of `query`."""
    column, part = wanted
    if part is None:
        return list(await connection.execute(query.offset(offset).limit(limit)))
    rows, _ = await _matching(connection, query, (column, part), offset, limit, counts=False)
    return rows


async def counted_page(
    connection: AsyncConnection, query: Select[Any], wanted: Wanted, offset: int, limit: int
) -> tuple[list[Row[Any]], int]:
    """As `page_containing`, with the number of rows on all pages together."""
    column, part = wanted
    if part is not None:
        return await _matching(connection, query, (column, part), offset, limit, counts=True)
    rows = list(await connection.execute(query.offset(offset).limit(limit))) if limit else []
    counting = select(func.count()).select_from(query.order_by(None).subquery())
    return rows, (await connection.execute(counting)).scalar_one()


async def _matching(
    connection: AsyncConnection,
    query: Select[Any],
    wanted: tuple[str, dict[str, object]],
    offset: int,
    limit: int,
    *,
    counts: bool,
) -> tuple[list[Row[Any]], int]:
    column, part = wanted
    page: list[Row[Any]] = []
    found = 0
    async with connection.stream(query) as rows:
        async for row in rows:
            if len(page) == limit and not counts:
                break
            if not contains(json_object(column, row._mapping[column]), part):
                continue
            found += 1
            if found > offset and len(page) < limit:
                page.append(row)
    return page, found
