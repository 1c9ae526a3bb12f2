"""Items of agents in the catalog."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import agent_tables as tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.texts import json_object
from runstore.domain.agent_items import (
    ANY_LABEL,
    MAX_ITEM_PAGE,
    AgentItem,
    ItemQuery,
    Namespace,
    NamespaceQuery,
    check_key,
    check_labels,
    check_namespace,
    check_size,
    matches,
    ttl_us,
)
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.clock import Clock

_items = tables.agent_items.c
_ATTEMPTS = 3


class AgentItemCatalog:
    """Reads and writes items, always inside one tenant.

    Every method raises RunstoreError INVALID_ARGUMENT for labels and keys under which nothing can be kept,
    and may raise UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def put(
        self, tenant_id: str, namespace: Namespace, key: str, value: bytes, ttl_minutes: float | None
    ) -> None:
        """Creates the item or replaces its value. Concurrent callers all succeed; the last one's value stays.

        Raises INVALID_ARGUMENT for a value that is no JSON object, TOO_LARGE for one above 16 MiB.
        """
        item = _is(tenant_id, namespace, key)
        check_size(value)
        json_object("value", value)
        ttl = ttl_us(ttl_minutes)
        now_us = self._clock.now_us()
        content = {
            "value": value,
            "ttl_us": ttl,
            "expires_at_us": None if ttl is None else now_us + ttl,
            "updated_at_us": now_us,
        }
        identity = {
            "tenant_id": tenant_id,
            "namespace": _stored(namespace),
            "key": key,
            "created_at_us": now_us,
        }
        for _ in range(_ATTEMPTS):
            try:
                async with self._database.write() as connection:
                    # What has outlived its time does not come back with its old time of creation.
                    dead = delete(tables.agent_items).where(item, _items.expires_at_us <= now_us)
                    await connection.execute(dead)
                    changing = update(tables.agent_items).where(item).values(content)
                    if not (await connection.execute(changing)).rowcount:
                        await connection.execute(insert(tables.agent_items).values({**identity, **content}))
            except Conflict:  # Somebody else has just created it.
                continue
            return
        raise RunstoreError(ErrorReason.UNAVAILABLE, "the item is created and deleted too often")

    async def get(
        self, tenant_id: str, namespace: Namespace, key: str, *, refreshes_ttl: bool
    ) -> AgentItem | None:
        """The item, or None. `refreshes_ttl`: its time to live begins anew."""
        query = self._living(tenant_id).where(_is(tenant_id, namespace, key))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        if refreshes_ttl:
            await self._refresh(tenant_id, rows)
        return _item(rows[0]) if rows else None

    async def delete(self, tenant_id: str, namespace: Namespace, key: str) -> None:
        """Removes the item, if there is one."""
        async with self._database.write() as connection:
            await connection.execute(delete(tables.agent_items).where(_is(tenant_id, namespace, key)))

    async def search(self, tenant_id: str, query: ItemQuery) -> list[AgentItem]:
        """A page of the items that are meant, the last changed first; [] beyond the end."""
        limit = min(query.limit, MAX_ITEM_PAGE)
        statement = (
            self._living(tenant_id)
            .where(_is_within(check_labels("namespace_prefix", query.namespace_prefix)))
            .order_by(_items.updated_at_us.desc(), _items.namespace, _items.key)
        )
        async with self._database.read() as connection:
            if query.filter:
                rows = await _filtered(connection, statement, query, limit)
            else:
                page = await connection.execute(statement.offset(query.offset).limit(limit))
                rows = list(page)
        if query.refreshes_ttl:
            await self._refresh(tenant_id, rows)
        return [_item(row) for row in rows]

    async def namespaces(self, tenant_id: str, query: NamespaceQuery) -> list[Namespace]:
        """A page of the namespaces that hold items, each once, ordered by their labels; [] beyond the end."""
        known = check_labels("prefix", query.prefix)
        check_labels("suffix", query.suffix)
        if ANY_LABEL in known:
            known = known[: known.index(ANY_LABEL)]
        statement = (
            select(_items.namespace)
            .distinct()
            .where(_items.tenant_id == tenant_id, self._is_alive(), _is_within(known))
        )
        async with self._database.read() as connection:
            stored = (await connection.execute(statement)).scalars().all()
        answers = {answer for each in stored if (answer := query.answer(_labels(each))) is not None}
        return sorted(answers)[query.offset :][: min(query.limit, MAX_ITEM_PAGE)]

    async def forget_expired(self) -> int:
        """Removes the items of all tenants that have outlived their time; answers how many."""
        statement = delete(tables.agent_items).where(_items.expires_at_us <= self._clock.now_us())
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount

    def _living(self, tenant_id: str) -> Select[Any]:
        return select(tables.agent_items).where(_items.tenant_id == tenant_id, self._is_alive())

    def _is_alive(self) -> ColumnElement[bool]:
        return or_(_items.expires_at_us.is_(None), _items.expires_at_us > self._clock.now_us())

    async def _refresh(self, tenant_id: str, rows: Iterable[Row[Any]]) -> None:
        # In one order for all, so that no two readers wait for each other.
        mortal = sorted(
            (row for row in rows if row.ttl_us is not None), key=lambda row: (row.namespace, row.key)
        )
        if not mortal:
            return
        now_us = self._clock.now_us()
        async with self._database.write() as connection:
            for row in mortal:
                item = and_(
                    _items.tenant_id == tenant_id,
                    _items.namespace == row.namespace,
                    _items.key == row.key,
                    # Unless it was put again meanwhile.
                    _items.expires_at_us == row.expires_at_us,
                )
                renewed = update(tables.agent_items).where(item).values(expires_at_us=now_us + row.ttl_us)
                await connection.execute(renewed)


async def _filtered(
    connection: AsyncConnection, statement: Select[Any], query: ItemQuery, limit: int
) -> list[Row[Any]]:
    """Documents are compared here, row by row: the databases' JSON operators differ."""
    page: list[Row[Any]] = []
    offset = query.offset
    async with connection.stream(statement) as rows:
        async for row in rows:
            if len(page) == limit:
                break
            if not matches(json_object("value", row.value), query.filter or {}):
                continue
            if offset:
                offset -= 1
            else:
                page.append(row)
    return page


def _is(tenant_id: str, namespace: Namespace, key: str) -> Any:
    stored = _stored(check_namespace("namespace", namespace))
    return and_(_items.tenant_id == tenant_id, _items.namespace == stored, _items.key == check_key(key))


def _is_within(prefix: Namespace) -> ColumnElement[bool]:
    start = _stored(prefix)
    # A dot ends every label, and a slash is what follows the dot: no pattern, one range of the index.
    return and_(_items.namespace >= start, *([_items.namespace < start[:-1] + b"/"] if prefix else []))


def _stored(namespace: Namespace) -> bytes:
    """As bytes, which both databases compare as bytes; texts would follow the order of some language."""
    return b"".join(label.encode() + b"." for label in namespace)


def _labels(stored: bytes) -> Namespace:
    return tuple(bytes(stored).decode().split(".")[:-1])


def _item(row: Row[Any]) -> AgentItem:
    return AgentItem(
        namespace=_labels(row.namespace),
        key=row.key,
        value=bytes(row.value),
        created_at_us=row.created_at_us,
        updated_at_us=row.updated_at_us,
    )
