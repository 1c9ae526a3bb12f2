"""Schedules of runs in the catalog."""

import dataclasses
from typing import Any

from sqlalchemy import Row, Select, and_, delete, insert, select, update

from runstore.catalog import agent_tables as tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.json_matching import counted_page
from runstore.catalog.texts import json_object
from runstore.domain.crons import MAX_CRON_PAGE, Cron, CronFilter
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.clock import Clock

_crons = tables.agent_crons.c


class CronCatalog:
    """Reads and writes crons. Ids are canonical UUID text; crons go with their assistant and their thread.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, cron: Cron) -> None:
        """Stores `cron` as given. Raises NOT_FOUND without its assistant or its thread."""
        json_object("metadata", cron.metadata)
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.agent_crons).values(dataclasses.asdict(cron)))
        except Conflict as error:
            raise RunstoreError(ErrorReason.NOT_FOUND, "no such assistant, or no such thread") from error

    async def get(self, tenant_id: str, cron_id: str) -> Cron:
        """Raises NOT_FOUND when the tenant has no such cron."""
        query = select(tables.agent_crons).where(_is(tenant_id, cron_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _not_found(cron_id)
        return _cron(row)

    async def replace(self, before: Cron, after: Cron) -> Cron:
        """Changes a cron from what was read to `after`, and answers that with its new time of change.

        Raises NOT_FOUND; CONFLICT when somebody else has changed it since: read it again.
        """
        json_object("metadata", after.metadata)
        # Always later, so that no two changes look alike.
        now_us = max(self._clock.now_us(), before.updated_at_us + 1)
        after = dataclasses.replace(after, updated_at_us=now_us)
        unchanged = and_(_is(before.tenant_id, before.id), _crons.updated_at_us == before.updated_at_us)
        statement = update(tables.agent_crons).where(unchanged).values(dataclasses.asdict(after))
        async with self._database.write() as connection:
            changed = (await connection.execute(statement)).rowcount
        if not changed:
            await self.get(before.tenant_id, before.id)
            raise RunstoreError(ErrorReason.CONFLICT, "the cron is being changed by others, too")
        return after

    async def delete(self, tenant_id: str, cron_id: str) -> None:
        """Removes the cron. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            statement = delete(tables.agent_crons).where(_is(tenant_id, cron_id))
            if not (await connection.execute(statement)).rowcount:
                raise _not_found(cron_id)

    async def search(self, tenant_id: str, condition: CronFilter) -> tuple[list[Cron], int]:
        """The page `offset`, `limit` of the crons that meet `condition`, and how many do."""
        column = tables.agent_crons.c[condition.order.value]
        query = _listing(tenant_id, condition)
        query = (
            query.order_by(column.asc().nulls_first(), _crons.id)
            if condition.ascending
            else query.order_by(column.desc().nulls_last(), _crons.id.desc())
        )
        limit = min(condition.limit, MAX_CRON_PAGE)
        async with self._database.read() as connection:
            rows, total = await counted_page(
                connection, query, ("metadata", condition.metadata), condition.offset, limit
            )
        return [_cron(row) for row in rows], total

    async def due(self, limit: int) -> list[Cron]:
        """Crons of all tenants whose next run is due, those that have waited longest first."""
        query = (
            select(tables.agent_crons)
            .where(_crons.next_run_at_us <= self._clock.now_us())
            .order_by(_crons.next_run_at_us, _crons.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [_cron(row) for row in await connection.execute(query)]

    async def advance(self, cron: Cron, next_run_at_us: int | None) -> None:
        """Notes that the run that was due is made; nothing happens when another store has done so."""
        is_due = and_(
            _is(cron.tenant_id, cron.id),
            _crons.next_run_at_us == cron.next_run_at_us,
            _crons.updated_at_us == cron.updated_at_us,
        )
        statement = update(tables.agent_crons).where(is_due).values(next_run_at_us=next_run_at_us)
        async with self._database.write() as connection:
            await connection.execute(statement)


def _is(tenant_id: str, cron_id: str) -> Any:
    return and_(_crons.tenant_id == tenant_id, _crons.id == cron_id)


def _listing(tenant_id: str, condition: CronFilter) -> Select[Any]:
    query = select(tables.agent_crons).where(_crons.tenant_id == tenant_id)
    if condition.assistant_id is not None:
        query = query.where(_crons.assistant_id == condition.assistant_id)
    if condition.thread_id is not None:
        query = query.where(_crons.thread_id == condition.thread_id)
    if condition.enabled is not None:
        query = query.where(_crons.enabled == condition.enabled)
    return query


def _cron(row: Row[Any]) -> Cron:
    return Cron(**row._mapping)


def _not_found(cron_id: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"no cron with id {cron_id}", field="cron_id")
