"""Tenants that are deleted: shut at once, then removed from every table that there is."""

import uuid
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, LargeBinary, String, Table, func, insert, select
from tests.manual_clock import ManualClock

from runstore.catalog import Catalog, tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.tenant_deletions import OWNED, TenantDeletionCatalog, belonging
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID, TenantDeletion

NOBODYS = {"organizations", "tenants", "secrets", "stores", "leases"}
"""Tables without rows of tenants; `tenants` has the tenants themselves."""

Made = dict[str, list[dict[str, Any]]]


class Died(Exception):
    """The process was killed."""


class Mortal(TenantDeletionCatalog):
    """Dies when it comes to a table of which rows are left."""

    lives = 0

    async def _remove(self, table: Table, batch: Any) -> int:
        if (removed := await super()._remove(table, batch)) and not self.lives:
            raise Died
        self.lives -= removed > 0
        return removed


def value(column: "Column[Any]", tenant_id: str, made: Made) -> Any:
    """Something that fits: of a row that belongs to the tenant where another row is meant."""
    for key in column.foreign_keys:
        if key.column.table is tables.tenants:
            return tenant_id
        if (rows := made.get(key.column.table.name)) is not None:
            return rows[-1][key.column.name]
    if column.foreign_keys:  # To an organisation.
        return None
    if column.name == "tenant_id":
        return tenant_id
    if isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, LargeBinary):
        return uuid.uuid4().bytes
    if isinstance(column.type, String):
        return str(uuid.uuid4())[: column.type.length]
    assert column.type.python_type in (int, float), column
    return uuid.uuid4().int % 1_000_000


async def fill(catalog: Catalog, name: str) -> str:
    """A tenant with one row or two in every table: its id."""
    tenant_id = (await catalog.keys.create_tenant(name)).id
    made: Made = {}
    for table in reversed(OWNED):
        for _ in range(2):
            if table is tables.tenant_deletions:
                continue
            row = {column.name: value(column, tenant_id, made) for column in table.columns}
            try:
                async with catalog._database.write() as connection:
                    await connection.execute(insert(table).values(row))
            except Conflict:  # One for each tenant.
                assert made[table.name]
                continue
            made.setdefault(table.name, []).append(row)
    return tenant_id


async def count(database: Database, tenant_id: str) -> dict[str, int]:
    """Rows of a tenant by table."""
    counts = {}
    async with database.read() as connection:
        for table in tables.metadata.sorted_tables:
            is_theirs = tables.tenants.c.id == tenant_id if table is tables.tenants else None
            if table.name not in NOBODYS:
                is_theirs = belonging(table, tenant_id)
                assert is_theirs is not None, f"whose are the rows of {table.name}?"
            if is_theirs is not None:
                query = select(func.count()).select_from(table).where(is_theirs)
                counts[table.name] = (await connection.execute(query)).scalar_one()
    return counts


async def test_nothing_is_left_of_a_tenant(catalog: Catalog, clock: ManualClock) -> None:
    """In whatever table, however often the process is killed meanwhile; another tenant keeps everything."""
    database = catalog._database
    doomed, other = await fill(catalog, "doomed"), await fill(catalog, "other")
    before = await count(database, other)
    assert {table for table, rows in before.items() if not rows} == {"tenant_deletions"}
    deletions = Mortal(database, catalog.keys, clock, rows_at_once=1)
    await deletions.begin(doomed, "doomed")
    deaths = 0
    while True:
        deletions.lives = 1
        try:
            await deletions.purge(doomed)
        except Died:
            deaths += 1
            continue
        break
    assert deaths > 10
    left = {table for table, rows in (await count(database, doomed)).items() if rows}
    assert left == {"tenants", "tenant_deletions", "agent_threads"}
    assert not await deletions.finish(doomed)
    threads = await deletions.threads(doomed, 100)
    assert len(threads) == 2
    await deletions.forget_threads(threads)
    assert await deletions.finish(doomed)
    assert set((await count(database, doomed)).values()) == {0}
    assert await count(database, other) == before
    assert await deletions.pending() == []


async def test_shut_at_once(catalog: Catalog, other: Catalog, clock: ManualClock) -> None:
    """Keys, tokens and shares open nothing, here at once and elsewhere in three seconds; the name is free."""
    doomed = await fill(catalog, "doomed")
    _, secret = await catalog.keys.create_key(doomed, "ci")
    assert await catalog.keys.authenticate(secret)
    assert await other.keys.authenticate(secret)
    assert await other.keys.find_tenant(doomed)
    deletion = await catalog.tenant_deletions.begin(doomed, "doomed")
    assert deletion == TenantDeletion(tenant_id=doomed, name="doomed", deleted_at_us=clock.now_us())
    assert await catalog.keys.authenticate(secret) is None
    clock.advance(3)
    assert await other.keys.authenticate(secret) is None
    assert await other.keys.find_tenant(doomed) is None
    rows = await count(catalog._database, doomed)
    doors = ("api_keys", "run_shares", "dataset_shares", "feedback_tokens", "tenant_handles")
    assert [rows[door] for door in (*doors, "agent_crons", "webhook_outbox")] == [0] * 7
    async with catalog._database.read() as connection:
        public = select(tables.prompts.c.id).where(tables.prompts.c.is_public)
        assert (await connection.execute(public)).all() == []
    assert (await catalog.keys.create_tenant("doomed")).id != doomed
    for refused in (
        catalog.keys.create_key(doomed, "late"),
        catalog.keys.move_tenant(doomed, None),
        catalog.tenant_handles.tenant(doomed),
    ):
        with pytest.raises(RunstoreError) as error:
            await refused
        assert error.value.reason is ErrorReason.NOT_FOUND


async def test_a_tenant_named_like_the_id_of_another(catalog: Catalog) -> None:
    """Keeps that one from giving its own name away: said, not tried for ever."""
    tenant = await catalog.keys.create_tenant("research")
    namesake = await catalog.keys.create_tenant(tenant.id)
    with pytest.raises(RunstoreError) as error:
        await catalog.tenant_deletions.begin(tenant.id, "research")
    assert error.value.reason is ErrorReason.INCONSISTENT
    await catalog.tenant_deletions.begin(namesake.id, tenant.id)
    assert (await catalog.tenant_deletions.begin(tenant.id, "research")).name == "research"


async def test_what_is_not_deleted(catalog: Catalog) -> None:
    """By a slip of the name, twice, or the tenant that every deployment has."""
    tenant = await catalog.keys.create_tenant("research")
    begin = catalog.tenant_deletions.begin
    refused = {
        (tenant.id, "marketing"): ErrorReason.INVALID_ARGUMENT,
        (str(uuid.uuid4()), "research"): ErrorReason.NOT_FOUND,
        (DEFAULT_TENANT_ID, "default"): ErrorReason.INCONSISTENT,
    }
    for (tenant_id, name), reason in refused.items():
        with pytest.raises(RunstoreError) as error:
            await begin(tenant_id, name)
        assert error.value.reason is reason
    assert await catalog.tenant_deletions.pending() == []
    first = await begin(tenant.id, "research")
    await catalog.tenant_deletions.note(tenant.id, rows=2, blobs=1, waits_for="x")
    await catalog.tenant_deletions.note(tenant.id, rows=3, waits_for="y")
    again = await begin(tenant.id, "research")
    assert (again.deleted_at_us, again.rows, again.blobs, again.waits_for) == (first.deleted_at_us, 5, 1, "y")


def test_every_table_is_somebodys() -> None:
    """A table that comes later is removed with its tenant, or named here as nobody's."""
    assert {table.name for table in OWNED} == set(tables.metadata.tables) - NOBODYS
