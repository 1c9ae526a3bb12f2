"""Copies of a whole catalog: one SQLite file, out of either database and into either.

Needs nothing but the database: the store that uses it goes on.
"""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import delete, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import agent_tables, dataset_tables, management_tables  # noqa: F401 - of `metadata`
from runstore.catalog.database import Database, open_database
from runstore.catalog.migrations import migrate
from runstore.catalog.tables import metadata, stores
from runstore.storage.sqlite_copy import copy_sqlite, settle_sqlite

_SQLITE: Final = "sqlite:///"
_ROWS_AT_ONCE: Final = 1_000


async def copy_out(url: str, file: Path) -> None:
    """Copy the catalog at `url` as it is at one moment; durable when this returns.

    Raises RunstoreError UNAVAILABLE when its database does not answer, OSError or sqlite3.Error when the file
    cannot be written.
    """
    if url.startswith(_SQLITE):
        await asyncio.to_thread(copy_sqlite, Path(url.removeprefix(_SQLITE)), file)
        return
    async with open_database(url) as source, open_database(f"{_SQLITE}{file}") as target:
        await migrate(target)
        await _copy_rows(source, target)
    await asyncio.to_thread(settle_sqlite, file)


async def copy_in(file: Path, url: str) -> None:
    """Make the catalog at `url`, which is empty, of a copy, and bring it to this version's schema.

    The copy is migrated where it lies. Raises SchemaTooNew, and RunstoreError UNAVAILABLE.
    """
    async with open_database(f"{_SQLITE}{file}") as source:
        await migrate(source)
        async with source.write() as connection:
            # Their logs are not in the copy, so nobody has to wait for them.
            await connection.execute(delete(stores))
        if not url.startswith(_SQLITE):
            async with open_database(url) as target:
                await migrate(target)
                await _copy_rows(source, target)
    await asyncio.to_thread(settle_sqlite, file)
    if url.startswith(_SQLITE):
        await asyncio.to_thread(_place, file, Path(url.removeprefix(_SQLITE)))


async def is_empty(url: str) -> bool:
    """Whether there is no catalog at `url`. Raises RunstoreError UNAVAILABLE."""
    if url.startswith(_SQLITE):
        return not await asyncio.to_thread(Path(url.removeprefix(_SQLITE)).exists)
    async with open_database(url) as database, database.read() as connection:
        return not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version"))


async def remove(url: str) -> None:
    """Remove the catalog at `url`, for a copy that was broken off. Raises RunstoreError UNAVAILABLE."""
    if url.startswith(_SQLITE):
        await asyncio.to_thread(_unlink, Path(url.removeprefix(_SQLITE)))
        return
    async with open_database(url) as database, database.exclusive() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def schema_version(file: Path) -> str:
    """The schema of a copy. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        [version] = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(version)


def _unlink(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def _place(file: Path, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(file, path)
    settle_sqlite(path)


async def _copy_rows(source: Database, target: Database) -> None:
    """All rows of all tables, in one transaction on either side; those that are referred to come first."""
    async with source.read() as reading, target.write() as writing:
        for table in metadata.sorted_tables:
            # Stores register by themselves; those of another catalog never come.
            if table.name != "stores":
                await _copy_table(reading, writing, table.name)


async def _copy_table(reading: AsyncConnection, writing: AsyncConnection, name: str) -> None:
    table = metadata.tables[name]
    async with reading.stream(select(table)) as rows:
        async for some in rows.mappings().partitions(_ROWS_AT_ONCE):
            await writing.execute(insert(table), [dict(row) for row in some])
