"""Opening a catalog: migrated once, refused when too new, errors that say what to do."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from runstore.catalog import SchemaTooNew, open_catalog, tables
from runstore.catalog.database import open_database
from runstore.catalog.migrations import migrate
from runstore.domain.errors import ErrorReason, RunstoreError


async def test_processes_that_open_a_fresh_catalog_together_agree(empty_url: str) -> None:
    """Server and command line may start at once: one schema, one default tenant, one secret."""

    async def open_one() -> tuple[bytes, int]:
        async with open_catalog(empty_url) as catalog:
            return await catalog.secret("cursors"), len(await catalog.keys.list_tenants())

    answers = await asyncio.gather(*(open_one() for _ in range(4)))
    assert len(set(answers)) == 1
    secret, tenants = answers[0]
    assert len(secret) == 32
    assert tenants == 1


async def test_secrets_differ_by_name_and_stay(url: str) -> None:
    """A secret is the same after a restart, and different from every other."""
    async with open_catalog(url) as catalog:
        first = await catalog.secret("cursors")
        assert await catalog.secret("cursors") == first
        assert await catalog.secret("shares") != first
    async with open_catalog(url) as catalog:
        assert await catalog.secret("cursors") == first


async def test_newer_schema_is_refused(empty_url: str) -> None:
    """A database migrated by a later version is left alone, with a message that says so."""
    async with open_catalog(empty_url):
        pass
    async with open_database(empty_url) as database, database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew, match="9999"):
        async with open_catalog(empty_url):
            pytest.fail("opened")


async def test_migrations_lead_to_the_tables_that_the_code_describes(empty_url: str) -> None:
    """Neither `tables.py` nor the migrations can change alone; the newest one is SCHEMA_VERSION."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    async with open_database(empty_url) as database:
        await migrate(database)
        async with database.read() as connection:
            differences = await connection.run_sync(
                lambda sync: compare_metadata(MigrationContext.configure(sync), tables.metadata)
            )
            version = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    assert differences == []
    assert version == tables.SCHEMA_VERSION


async def test_failed_migration_leaves_nothing(empty_url: str, monkeypatch) -> None:
    """A migration is applied as a whole or not at all, so that starting again is safe."""
    from alembic.runtime.migration import HeadMaintainer

    def fail(*_: object) -> None:
        raise RuntimeError("power cut")

    async with open_database(empty_url) as database:
        with monkeypatch.context() as patched:
            patched.setattr(HeadMaintainer, "update_to_step", fail)
            with pytest.raises(RuntimeError, match="power cut"):
                await migrate(database)
        async with database.read() as connection:
            assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
        await migrate(database)


async def test_connection_is_durable_and_checked(sqlite_url: str) -> None:
    """Commits survive a power cut, foreign keys hold, writers wait for each other."""
    async with open_database(sqlite_url) as database, database.read() as connection:

        async def pragma(name: str) -> object:
            return (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()

        assert await pragma("journal_mode") == "wal"
        assert await pragma("synchronous") == 2
        assert await pragma("foreign_keys") == 1
        assert await pragma("busy_timeout") == 10_000


@pytest.mark.parametrize(
    ("bad_url", "message"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://h/d", "mysql"),
        ("sqlite://", "names no file"),
    ],
)
async def test_unusable_url_is_explained(bad_url: str, message: str) -> None:
    """A mistake in the URL is a sentence about the URL, which is not repeated (it may hold a password)."""
    with pytest.raises(RunstoreError, match=message) as refused:
        async with open_catalog(bad_url):
            pytest.fail("opened")
    assert refused.value.reason is ErrorReason.INVALID_ARGUMENT


async def test_unreachable_database_is_unavailable(tmp_path: Path) -> None:
    """A database that cannot be opened is a domain error that names it, not a driver's."""
    (tmp_path / "catalog.sqlite").mkdir()
    with pytest.raises(RunstoreError, match=r"catalog\.sqlite cannot be opened") as refused:
        async with open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}"):
            pytest.fail("opened")
    assert refused.value.reason is ErrorReason.UNAVAILABLE
