"""Checkpoints in PostgreSQL without a worker: copies, a file of comma-separated values for each table, and
the end of threads.

Imports nothing of langgraph until a copy is put back: the store makes copies, and has no other use for it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, IsolationLevel, sql

_TABLES: Final = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_run_writes")
_MADE_BY_SETUP: Final = "checkpoint_migrations"
_READ_BYTES: Final = 1024 * 1024


class CopyFailed(OSError):
    """The database cannot be reached, or has refused; the text says why."""


async def copy_out(url: str, folder: Path) -> None:
    """Write every table, as all are at one moment, to `checkpoints.TABLE.csv`. Raises CopyFailed, OSError."""
    async with _connected(url) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        for table in await _tables(connection):
            statement = sql.SQL("COPY {} TO STDOUT (FORMAT csv, HEADER)").format(sql.Identifier(table))
            with _file(folder, table).open("wb") as file:
                async with connection.cursor().copy(statement) as copy:
                    async for data in copy:
                        file.write(data)


async def copy_in(folder: Path, url: str) -> None:
    """Make the tables at `url`, which have no rows, of files of `copy_out`; all or none.

    Raises CopyFailed, OSError.
    """
    from runstore.agents.checkpoints import CheckpointsUnavailable
    from runstore.agents.checkpoints_postgres import open_postgres

    try:
        async with open_postgres(url):  # Makes the tables.
            pass
    except CheckpointsUnavailable as error:
        raise CopyFailed(str(error)) from error
    async with _connected(url) as connection:
        for table in _TABLES:
            if _file(folder, table).is_file():
                await _fill(connection, table, _file(folder, table))


async def is_empty(url: str) -> bool:
    """Whether there are no checkpoints at `url`, not even tables for them. Raises CopyFailed."""
    async with _connected(url) as connection:
        return not await _tables(connection)


async def remove(url: str) -> None:
    """Remove all checkpoints at `url`, for a copy that was broken off. Raises CopyFailed."""
    async with _connected(url) as connection:
        for table in (*_TABLES, _MADE_BY_SETUP):
            await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(table)))


async def delete_threads(url: str, thread_ids: Sequence[str]) -> None:
    """Delete everything of some threads at `url`, all or nothing. Raises CopyFailed."""
    async with _connected(url) as connection:
        for table in await _tables(connection):
            statement = sql.SQL("DELETE FROM {} WHERE thread_id = ANY(%s)").format(sql.Identifier(table))
            await connection.execute(statement, (list(thread_ids),))


def _file(folder: Path, table: str) -> Path:
    return folder / f"checkpoints.{table}.csv"


async def _fill(connection: AsyncConnection[Any], table: str, path: Path) -> None:
    with path.open("rb") as file:
        # The columns of that time; those that came later have defaults.
        names = file.readline().decode().strip().split(",")
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(table), columns)
        async with connection.cursor().copy(statement) as copy:
            while data := file.read(_READ_BYTES):
                await copy.write(data)


async def _tables(connection: AsyncConnection[Any]) -> list[str]:
    """Those that there are."""
    found = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL", (list(_TABLES),)
    )
    return [name for (name,) in await found.fetchall()]


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection with one transaction, which is committed at the end."""
    try:
        async with await AsyncConnection.connect(url) as connection:
            yield connection
    except psycopg.Error as error:
        raise CopyFailed(f"the database of agent_checkpoint_url: {error}") from error
