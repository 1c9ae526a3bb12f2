"""Checkpoints in one SQLite file, which all workers of a machine share."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from runstore.agents.checkpoints import (
    BUSY_TIMEOUT_S,
    DIFFERENCES_STAY,
    LATER_DIFFERENCES_STAY,
    CheckpointsUnavailable,
    WriteKey,
)
from runstore.domain.errors import ErrorReason, RunstoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run_writes (
  thread_id TEXT NOT NULL, run_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL, checkpoint_id TEXT NOT NULL,
  task_id TEXT NOT NULL, idx INTEGER NOT NULL,
  PRIMARY KEY (thread_id, run_id, checkpoint_ns, checkpoint_id, task_id, idx)
) WITHOUT ROWID
"""

# The saver stores metadata as bytes, which SQLite would take for its binary JSON.
_RUN = "json_extract(CAST(metadata AS TEXT), '$.run_id')"
_IS_DIFFERENCE = "json_extract(CAST(metadata AS TEXT), '$.counters_since_delta_snapshot') IS NOT NULL"

_DEPENDANTS_OF_RUN = f"""
SELECT 1 FROM checkpoints AS later
WHERE thread_id = :thread AND {_RUN} IS NOT :run AND {_IS_DIFFERENCE} AND EXISTS (
  SELECT 1 FROM checkpoints WHERE thread_id = :thread AND {_RUN} = :run
  AND checkpoint_ns = later.checkpoint_ns AND checkpoint_id = later.parent_checkpoint_id
) LIMIT 1
"""
_DIFFERENCES = f"SELECT 1 FROM checkpoints WHERE thread_id = :thread AND {_IS_DIFFERENCE} LIMIT 1"

_DELETE_RUN = (
    f"""
    DELETE FROM writes WHERE thread_id = :thread AND (checkpoint_ns, checkpoint_id) IN (
      SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = :thread AND {_RUN} = :run)
    """,
    """
    DELETE FROM writes WHERE thread_id = :thread AND (checkpoint_ns, checkpoint_id, task_id, idx) IN (
      SELECT checkpoint_ns, checkpoint_id, task_id, idx FROM run_writes
      WHERE thread_id = :thread AND run_id = :run)
    """,
    f"DELETE FROM checkpoints WHERE thread_id = :thread AND {_RUN} = :run",
    "DELETE FROM run_writes WHERE thread_id = :thread AND run_id = :run",
)

_DELETE_THREAD = tuple(
    f"DELETE FROM {table} WHERE thread_id = :thread" for table in ("checkpoints", "writes", "run_writes")
)

_COPY_THREAD = (
    """
    INSERT OR IGNORE INTO checkpoints
    SELECT :new, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM checkpoints WHERE thread_id = :thread
    """,
    """
    INSERT OR IGNORE INTO writes
      (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value)
    SELECT :new, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value
    FROM writes WHERE thread_id = :thread
    """,
)

# A subgraph's call has the id of its task in its namespace, after a colon, and belongs to the checkpoint it
# started from: kept with the latest one. Ids of checkpoints are in the order of time.
_KEPT = """
SELECT checkpoint_ns, max(checkpoint_id) AS checkpoint_id FROM checkpoints WHERE thread_id = :thread
GROUP BY checkpoint_ns HAVING instr(checkpoint_ns, ':') = 0 OR max(checkpoint_id) > (
  SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = :thread AND checkpoint_ns = '')
"""
_KEEP_LATEST = (
    f"""
    DELETE FROM writes WHERE thread_id = :thread AND (checkpoint_ns, checkpoint_id) NOT IN (
      SELECT checkpoint_ns, checkpoint_id FROM ({_KEPT}))
    """,
    f"""
    DELETE FROM checkpoints WHERE thread_id = :thread AND (checkpoint_ns, checkpoint_id) NOT IN (
      SELECT checkpoint_ns, checkpoint_id FROM ({_KEPT}))
    """,
    "UPDATE checkpoints SET parent_checkpoint_id = NULL WHERE thread_id = :thread",
    "DELETE FROM run_writes WHERE thread_id = :thread",
)


class SqliteCheckpoints:
    """`Checkpoints` on the connection of langgraph's saver, whose lock keeps their transactions apart."""

    unavailable_errors: tuple[type[Exception], ...] = (sqlite3.OperationalError,)

    def __init__(self, saver: AsyncSqliteSaver) -> None:
        self._saver = saver

    @property
    def saver(self) -> BaseCheckpointSaver[Any]:
        return self._saver

    async def note_writes(self, thread_id: str, run_id: str, writes: list[WriteKey], /) -> None:
        rows = [(thread_id, run_id, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx) for w in writes]
        async with self._transaction():
            await self._saver.conn.executemany(
                "INSERT OR IGNORE INTO run_writes VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    async def delete_run(self, thread_id: str, run_id: str, /) -> None:
        values = {"thread": thread_id, "run": run_id}
        async with self._transaction():
            if await self._finds(_DEPENDANTS_OF_RUN, values):
                raise RunstoreError(ErrorReason.CONFLICT, LATER_DIFFERENCES_STAY)
            await self._execute(_DELETE_RUN, values)

    async def delete_thread(self, thread_id: str, /) -> None:
        async with self._transaction():
            await self._execute(_DELETE_THREAD, {"thread": thread_id})

    async def copy_thread(self, thread_id: str, new_thread_id: str, /) -> None:
        async with self._transaction():
            await self._execute(_COPY_THREAD, {"thread": thread_id, "new": new_thread_id})

    async def keep_latest(self, thread_id: str, /) -> None:
        values = {"thread": thread_id}
        async with self._transaction():
            if await self._finds(_DIFFERENCES, values):
                raise RunstoreError(ErrorReason.CONFLICT, DIFFERENCES_STAY)
            await self._execute(_KEEP_LATEST, values)

    async def _finds(self, statement: str, values: dict[str, str]) -> bool:
        async with self._saver.conn.execute(statement, values) as cursor:
            return await cursor.fetchone() is not None

    async def _execute(self, statements: Sequence[str], values: dict[str, str]) -> None:
        for statement in statements:
            await self._saver.conn.execute(statement, values)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        connection = self._saver.conn
        async with self._saver.lock:
            try:
                await connection.execute("BEGIN IMMEDIATE")
                yield
                await connection.commit()
            except BaseException as error:
                await asyncio.shield(connection.rollback())
                if isinstance(error, self.unavailable_errors):
                    raise CheckpointsUnavailable(str(error)) from error
                raise


@asynccontextmanager
async def open_sqlite(path: str) -> AsyncIterator[SqliteCheckpoints]:
    """Opens or creates the file at `path`. Raises CheckpointsUnavailable when it cannot be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = await aiosqlite.connect(path, timeout=BUSY_TIMEOUT_S)
    except sqlite3.OperationalError as error:
        raise CheckpointsUnavailable(f"{path}: {error}") from error
    try:
        saver = AsyncSqliteSaver(connection)
        try:
            await saver.setup()
            await connection.execute(_SCHEMA)
            await connection.commit()
        except sqlite3.OperationalError as error:
            raise CheckpointsUnavailable(f"{path}: {error}") from error
        yield SqliteCheckpoints(saver)
    finally:
        await connection.close()
