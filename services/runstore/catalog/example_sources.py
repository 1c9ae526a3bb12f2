"""How examples and runs refer to each other: what readers of runs want to know of datasets."""

from collections.abc import Sequence

from sqlalchemy import select

from runstore.catalog import dataset_tables as tables
from runstore.catalog.database import Database
from runstore.domain.expiring import ExpiringMap
from runstore.runtime.clock import Clock

_MAX_TENANTS = 10_000
# What another store writes (several stores on one PostgreSQL) shows in lists of runs within this time.
_CACHE_TTL_S = 3.0

_examples = tables.examples.c
_current = _examples.until_us == tables.FOREVER_US


class ExampleSources:
    """Reads of which datasets examples are, and of which runs examples were made.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._without: ExpiringMap[str, bool] = ExpiringMap(
            clock, max_entries=_MAX_TENANTS, ttl_s=_CACHE_TTL_S, name="tenants_without_sources"
        )

    async def datasets_of(self, tenant_id: str, example_ids: Sequence[str]) -> dict[str, str]:
        """The datasets of those of the examples that exist, or existed in an older version."""
        query = select(_examples.id, _examples.dataset_id).where(
            _examples.tenant_id == tenant_id, _examples.id.in_(example_ids)
        )
        async with self._database.read() as connection:
            return {row.id: row.dataset_id for row in await connection.execute(query)}

    async def examples_of(self, tenant_id: str, dataset_ids: Sequence[str] | None, most: int) -> list[str]:
        """At most so many of the examples that the datasets have, or had in an older version; of all datasets
        for None."""
        query = select(_examples.id).distinct().where(_examples.tenant_id == tenant_id).limit(most)
        if dataset_ids is not None:
            query = query.where(_examples.dataset_id.in_(dataset_ids))
        async with self._database.read() as connection:
            return [row.id for row in await connection.execute(query)]

    async def runs_in_datasets(self, tenant_id: str, run_ids: Sequence[str]) -> set[str]:
        """Those of the runs that examples were made of. Costs nothing in a tenant without such examples."""
        if not run_ids or self._without.get(tenant_id):
            return set()
        ticket = self._without.ticket()
        made = (_examples.tenant_id == tenant_id, _current)
        any_made = select(_examples.id).where(*made, _examples.source_run_id.is_not(None)).limit(1)
        async with self._database.read() as connection:
            if (await connection.execute(any_made)).one_or_none() is None:
                self._without.put(tenant_id, value=True, ticket=ticket)
                return set()
            query = select(_examples.source_run_id).where(*made, _examples.source_run_id.in_(run_ids))
            return {row.source_run_id for row in await connection.execute(query)}

    def forget(self, tenant_id: str) -> None:
        """An example was made of a run."""
        self._without.forget(tenant_id)
