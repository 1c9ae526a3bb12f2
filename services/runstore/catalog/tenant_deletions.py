"""Tenants that are deleted: shut at once, and removed row by row until nothing is left.

What belongs to a tenant follows from the tables: a `tenant_id`, or a foreign key to a row that belongs to it.
So no table that comes later can be forgotten.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from sqlalchemy import ColumnElement, Select, Table, delete, insert, select, tuple_, update

from runstore.catalog import (
    agent_tables,
    dataset_tables,
    management_tables,  # noqa: F401 - its tables belong to tenants
    retention_tables,  # noqa: F401 - likewise
    tables,
)
from runstore.catalog.database import Conflict, Database
from runstore.catalog.keys import KeyCatalog
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.principals import DEFAULT_TENANT_ID, TenantDeletion
from runstore.runtime.clock import Clock

# Other writers take their turns between two batches.
_ROWS_AT_ONCE: Final = 1_000

_tenants = tables.tenants.c
_deletions = tables.tenant_deletions.c
_threads = agent_tables.agent_threads.c

_DOORS: Final = (
    tables.api_keys,
    tables.run_shares,
    dataset_tables.dataset_shares,
    tables.feedback_tokens,
    tables.tenant_handles,
    agent_tables.agent_crons,
    agent_tables.webhook_outbox,
)
"""By which somebody comes in without a call of the tenant's own, or the tenant acts by itself."""


def belonging(table: Table, tenant_id: str) -> ColumnElement[bool] | None:
    """Whether a row is the tenant's; None for a table whose rows are nobody's."""
    if "tenant_id" in table.c:
        return table.c.tenant_id == tenant_id
    for key in sorted(table.foreign_keys, key=lambda key: key.target_fullname):
        is_parents = belonging(key.column.table, tenant_id)
        if is_parents is not None:
            return key.parent.in_(select(key.column).where(is_parents))
    return None


OWNED: Final = tuple(
    table for table in reversed(tables.metadata.sorted_tables) if belonging(table, "") is not None
)
"""Every table with rows of tenants, those that refer to others first."""

_LAST: Final = (agent_tables.agent_threads, tables.tenant_deletions)
"""Threads lead to their checkpoints, and the deletion to everything."""


class TenantDeletionCatalog:
    """Shuts tenants and removes them. Every method may raise UNAVAILABLE, and is safe to repeat."""

    def __init__(
        self, database: Database, keys: KeyCatalog, clock: Clock, *, rows_at_once: int = _ROWS_AT_ONCE
    ) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock
        self._rows_at_once = rows_at_once

    async def begin(self, tenant_id: str, name: str) -> TenantDeletion:
        """Shut the tenant: nothing opens it any more, in this process at once, in others in three seconds.

        Another one may have its name from now on. Raises NOT_FOUND, INVALID_ARGUMENT unless `name` is the
        tenant's, INCONSISTENT for the default tenant, which every deployment has.
        """
        if tenant_id == DEFAULT_TENANT_ID:
            raise RunstoreError(ErrorReason.INCONSISTENT, "the default tenant cannot be deleted")
        try:
            await self._shut(tenant_id, name)
        finally:
            self._keys.forget_all()
        for deletion in await self._where(_deletions.tenant_id == tenant_id):
            return deletion
        raise RunstoreError(ErrorReason.NOT_FOUND, "there is no such tenant", field="tenant_id")

    async def _shut(self, tenant_id: str, name: str) -> None:
        for _ in range(2):  # After a conflict, what another process has done is seen.
            with suppress(Conflict):
                return await self._try_to_shut(tenant_id, name)
        raise RunstoreError(ErrorReason.INCONSISTENT, "another tenant is named like the id of this one")

    async def _try_to_shut(self, tenant_id: str, name: str) -> None:
        async with self._database.write() as connection:
            names = select(_deletions.name).where(_deletions.tenant_id == tenant_id)
            known = (await connection.execute(names)).scalar_one_or_none()
            current = known
            if known is None:
                of_tenant = select(_tenants.name).where(_tenants.id == tenant_id)
                current = (await connection.execute(of_tenant)).scalar_one_or_none()
            if current is None:
                raise RunstoreError(ErrorReason.NOT_FOUND, "there is no such tenant", field="tenant_id")
            if current != name:
                raise invalid("name", "is not the name of the tenant")
            if known is not None:
                return
            now_us = self._clock.now_us()
            deletion = TenantDeletion(tenant_id=tenant_id, name=name, deleted_at_us=now_us)
            await connection.execute(insert(tables.tenant_deletions).values(asdict(deletion)))
            # No tenant is named like the id of another.
            changes = {"name": tenant_id, "organization_id": None}
            await connection.execute(update(tables.tenants).where(_tenants.id == tenant_id).values(changes))
            for table in _DOORS:
                await connection.execute(delete(table).where(table.c.tenant_id == tenant_id))
            prompts = tables.prompts
            await connection.execute(
                update(prompts).where(prompts.c.tenant_id == tenant_id).values(is_public=False)
            )

    async def pending(self) -> list[TenantDeletion]:
        """Those that are not over, the oldest first."""
        return await self._where()

    async def _where(self, *conditions: ColumnElement[bool]) -> list[TenantDeletion]:
        query = select(tables.tenant_deletions).where(*conditions)
        query = query.order_by(_deletions.deleted_at_us, _deletions.tenant_id)
        async with self._database.read() as connection:
            return [TenantDeletion(**row._mapping) for row in await connection.execute(query)]

    async def note(self, tenant_id: str, *, rows: int = 0, blobs: int = 0, waits_for: str) -> None:
        """Count what was removed; say what the purge waits for."""
        statement = (
            update(tables.tenant_deletions)
            .where(_deletions.tenant_id == tenant_id)
            .values(rows=_deletions.rows + rows, blobs=_deletions.blobs + blobs, waits_for=waits_for)
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def purge(self, tenant_id: str) -> int:
        """Remove every row of a deleted tenant but its threads and itself: how many there were."""
        removed = 0
        for table in OWNED:
            is_theirs = belonging(table, tenant_id)
            if table in _LAST or is_theirs is None:
                continue
            keys = list(table.primary_key.columns)
            removed += await self._remove(table, select(*keys).where(is_theirs).limit(self._rows_at_once))
        return removed

    async def _remove(self, table: Table, batch: Select[tuple[object, ...]]) -> int:
        statement = delete(table).where(tuple_(*table.primary_key.columns).in_(batch))
        removed = 0
        while True:
            async with self._database.write() as connection:
                count = (await connection.execute(statement)).rowcount
            removed += count
            if count < self._rows_at_once:
                return removed

    async def threads(self, tenant_id: str, limit: int) -> list[str]:
        """Ids of some threads of the tenant's agents."""
        query = select(_threads.thread_id).where(_threads.tenant_id == tenant_id).limit(limit)
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def forget_threads(self, thread_ids: Sequence[str]) -> None:
        """Remove threads, whose checkpoints are gone."""
        async with self._database.write() as connection:
            await connection.execute(
                delete(agent_tables.agent_threads).where(_threads.thread_id.in_(thread_ids))
            )

    async def finish(self, tenant_id: str) -> bool:
        """Forget the tenant, unless something of it is left: whether it is forgotten."""
        try:
            async with self._database.write() as connection:
                await connection.execute(
                    delete(tables.tenant_deletions).where(_deletions.tenant_id == tenant_id)
                )
                # Every row of a tenant refers to it, or to one that does.
                await connection.execute(delete(tables.tenants).where(_tenants.id == tenant_id))
        except Conflict:
            return False
        return True
