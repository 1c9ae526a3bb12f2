"""Checkpoints in PostgreSQL, which workers of any machine share."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, LiteralString

import psycopg
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from runstore.agents.checkpoints import (
    BUSY_TIMEOUT_S,
    DIFFERENCES_STAY,
    LATER_DIFFERENCES_STAY,
    CheckpointsUnavailable,
    WriteKey,
)
from runstore.domain.errors import ErrorReason, RunstoreError

_MAX_CONNECTIONS: Final = 10
_OPEN_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.1
# Of workers that start together, one makes the tables.
_SETUP_LOCK: Final = 0x72756E73

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS checkpoint_run_writes (
  thread_id TEXT NOT NULL, run_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL, checkpoint_id TEXT NOT NULL,
  task_id TEXT NOT NULL, idx INTEGER NOT NULL,
  PRIMARY KEY (thread_id, run_id, checkpoint_ns, checkpoint_id, task_id, idx)
)
"""

_NOTE_WRITE: Final = """
INSERT INTO checkpoint_run_writes VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""

_DEPENDANTS_OF_RUN: Final = """
SELECT 1 FROM checkpoints later
WHERE thread_id = %(thread)s AND metadata ->> 'run_id' IS DISTINCT FROM %(run)s
AND metadata ? 'counters_since_delta_snapshot' AND EXISTS (
  SELECT 1 FROM checkpoints c WHERE c.thread_id = %(thread)s AND c.metadata ->> 'run_id' = %(run)s
  AND c.checkpoint_ns = later.checkpoint_ns AND c.checkpoint_id = later.parent_checkpoint_id
) LIMIT 1
"""

_DELETE_RUN: Final[tuple[LiteralString, ...]] = (
    """
    DELETE FROM checkpoint_writes w USING checkpoints c
    WHERE w.thread_id = %(thread)s AND c.thread_id = %(thread)s AND c.metadata ->> 'run_id' = %(run)s
    AND c.checkpoint_ns = w.checkpoint_ns AND c.checkpoint_id = w.checkpoint_id
    """,
    """
    DELETE FROM checkpoint_writes w USING checkpoint_run_writes n
    WHERE w.thread_id = %(thread)s AND n.thread_id = %(thread)s AND n.run_id = %(run)s
    AND n.checkpoint_ns = w.checkpoint_ns AND n.checkpoint_id = w.checkpoint_id
    AND n.task_id = w.task_id AND n.idx = w.idx
    """,
    # Values are shared by the checkpoints that name their version; all parts see the same state.
    """
    WITH gone AS (
      DELETE FROM checkpoints WHERE thread_id = %(thread)s AND metadata ->> 'run_id' = %(run)s
      RETURNING checkpoint_ns, checkpoint
    ), freed AS (
      SELECT DISTINCT gone.checkpoint_ns, version.key, version.value
      FROM gone, jsonb_each_text(gone.checkpoint -> 'channel_versions') version
    )
    DELETE FROM checkpoint_blobs b USING freed f
    WHERE b.thread_id = %(thread)s AND b.checkpoint_ns = f.checkpoint_ns
    AND b.channel = f.key AND b.version = f.value AND NOT EXISTS (
      SELECT 1 FROM checkpoints c WHERE c.thread_id = %(thread)s AND c.checkpoint_ns = f.checkpoint_ns
      AND c.metadata ->> 'run_id' IS DISTINCT FROM %(run)s
      AND c.checkpoint -> 'channel_versions' ->> f.key = f.value
    )
    """,
    "DELETE FROM checkpoint_run_writes WHERE thread_id = %(thread)s AND run_id = %(run)s",
)

_DELETE_THREAD: Final[tuple[LiteralString, ...]] = (
    "DELETE FROM checkpoints WHERE thread_id = %(thread)s",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s",
    "DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s",
    "DELETE FROM checkpoint_run_writes WHERE thread_id = %(thread)s",
)

_COPY_THREAD: Final[tuple[LiteralString, ...]] = (
    """
    INSERT INTO checkpoints
      (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT %(new)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM checkpoints WHERE thread_id = %(thread)s ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(new)s, checkpoint_ns, channel, version, type, blob
    FROM checkpoint_blobs WHERE thread_id = %(thread)s ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO checkpoint_writes
      (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(new)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %(thread)s ON CONFLICT DO NOTHING
    """,
)


class PostgresCheckpoints:
    """`Checkpoints` on the connections of langgraph's saver."""

    unavailable_errors: tuple[type[Exception], ...] = (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        PoolTimeout,
    )

    def __init__(
        self, saver: AsyncPostgresSaver, pool: "AsyncConnectionPool[AsyncConnection[DictRow]]"
    ) -> None:
        self._saver = saver
        self._pool = pool

    @property
    def saver(self) -> BaseCheckpointSaver[Any]:
        return self._saver

    async def make_durable(self) -> None:
        """Nothing: each commit is."""

    async def note_writes(self, thread_id: str, run_id: str, writes: list[WriteKey], /) -> None:
        rows = [(thread_id, run_id, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx) for w in writes]
        async with self._transaction() as connection, connection.cursor() as cursor:
            await cursor.executemany(_NOTE_WRITE, rows)

    async def delete_run(self, thread_id: str, run_id: str, /) -> None:
        values = {"thread": thread_id, "run": run_id}
        async with self._transaction() as connection:
            if await (await connection.execute(_DEPENDANTS_OF_RUN, values)).fetchone():
                raise RunstoreError(ErrorReason.CONFLICT, LATER_DIFFERENCES_STAY)
            await _execute(connection, _DELETE_RUN, values)

    async def delete_thread(self, thread_id: str, /) -> None:
        async with self._transaction() as connection:
            await _execute(connection, _DELETE_THREAD, {"thread": thread_id})

    async def copy_thread(self, thread_id: str, new_thread_id: str, /) -> None:
        async with self._transaction() as connection:
            await _execute(connection, _COPY_THREAD, {"thread": thread_id, "new": new_thread_id})

    async def keep_latest(self, thread_id: str, /) -> None:
        try:
            await self._saver.aprune([thread_id], strategy="keep_latest")
        except NotImplementedError as error:  # The library prunes no thread that is stored as differences.
            raise RunstoreError(ErrorReason.CONFLICT, DIFFERENCES_STAY) from error
        except self.unavailable_errors as error:
            raise CheckpointsUnavailable(str(error)) from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        try:
            async with self._pool.connection() as connection, connection.transaction():
                yield connection
        except self.unavailable_errors as error:
            raise CheckpointsUnavailable(str(error)) from error


async def _execute(
    connection: AsyncConnection[DictRow], statements: Sequence[LiteralString], values: dict[str, str]
) -> None:
    for statement in statements:
        await connection.execute(statement, values)


@asynccontextmanager
async def open_postgres(url: str) -> AsyncIterator[PostgresCheckpoints]:
    """Connects to the database at `url`. Raises CheckpointsUnavailable when it cannot be reached."""
    pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
        url,
        min_size=1,
        max_size=_MAX_CONNECTIONS,
        timeout=BUSY_TIMEOUT_S,
        open=False,
        kwargs={
            "autocommit": True,
            "prepare_threshold": 0,
            "row_factory": dict_row,
            "options": f"-c statement_timeout={BUSY_TIMEOUT_S * 1000:.0f}",
        },
        check=AsyncConnectionPool.check_connection,
    )
    try:
        try:
            await pool.open(wait=True, timeout=_OPEN_TIMEOUT_S)
            saver = AsyncPostgresSaver(pool)
            await _make_tables(pool, saver)
        except (psycopg.Error, PoolTimeout, TimeoutError) as error:
            raise CheckpointsUnavailable(str(error)) from error
        yield PostgresCheckpoints(saver, pool)
    finally:
        await pool.close()


async def _make_tables(
    pool: "AsyncConnectionPool[AsyncConnection[DictRow]]", saver: AsyncPostgresSaver
) -> None:
    async with pool.connection() as connection:
        # Asking again, not waiting: an index that is made concurrently waits for statements that wait.
        async with asyncio.timeout(_OPEN_TIMEOUT_S):
            while not await _try_lock(connection):  # noqa: ASYNC110 - the one to wait for is another process
                await asyncio.sleep(_POLL_S)
        try:
            await saver.setup()
            await connection.execute(_SCHEMA)
        finally:
            await connection.execute("SELECT pg_advisory_unlock(%s)", (_SETUP_LOCK,))


async def _try_lock(connection: AsyncConnection[DictRow]) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s) AS locked", (_SETUP_LOCK,))
    row = await cursor.fetchone()
    return row is not None and row["locked"]
