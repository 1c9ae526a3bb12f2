"""Checkpoints in one SQLite file, which all workers of a machine share.

The file is used from one thread, with langgraph's synchronous saver: an operation is one trip to that thread.
Commits survive the end of the process at once, and the loss of power from `make_durable` on; a run needs that
once, in the end, and fsync takes longer than all the rest of a step.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.sqlite import SqliteSaver

from runstore.agents.checkpoints import (
    BUSY_TIMEOUT_S,
    DIFFERENCES_STAY,
    LATER_DIFFERENCES_STAY,
    CheckpointsUnavailable,
    WriteKey,
)
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.sqlite_wal import use_wal

_T = TypeVar("_T")

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


class _ThreadSaver(BaseCheckpointSaver[str]):
    """langgraph's synchronous saver, called in its thread."""

    def __init__(self, saver: SqliteSaver, thread: concurrent.futures.Executor) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._thread = thread

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self._saver.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._call(lambda: self._saver.get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - named by langgraph
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        saver = self._saver
        for found in await self._call(
            lambda: list(saver.list(config, filter=filter, before=before, limit=limit))
        ):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._call(lambda: self._saver.put(config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await self._call(lambda: self._saver.put_writes(config, writes, task_id, task_path))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        saver = self._saver
        return await self._call(lambda: saver.get_delta_channel_history(config=config, channels=channels))

    async def _call(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


class SqliteCheckpoints:
    """`Checkpoints` in the thread and on the connection of the saver."""

    unavailable_errors: tuple[type[Exception], ...] = (sqlite3.OperationalError,)

    def __init__(self, path: Path, thread: concurrent.futures.Executor) -> None:
        self._path = path
        self._thread = thread
        # Opened in one thread and used in another, never in two at once.
        self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        use_wal(self._connection, BUSY_TIMEOUT_S)
        saver = SqliteSaver(self._connection)
        saver.setup()
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(_SCHEMA)
        self._connection.commit()
        self._saver = _ThreadSaver(saver, thread)

    @property
    def saver(self) -> BaseCheckpointSaver[Any]:
        return self._saver

    async def make_durable(self) -> None:
        await self._call(self._sync)

    def _sync(self) -> None:
        # A log that is copied into the file is synced by SQLite itself, and the file too.
        with contextlib.suppress(FileNotFoundError):
            log = os.open(f"{self._path}-wal", os.O_RDWR)
            try:
                os.fsync(log)
            finally:
                os.close(log)

    async def note_writes(self, thread_id: str, run_id: str, writes: list[WriteKey], /) -> None:
        rows = [(thread_id, run_id, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx) for w in writes]

        def note() -> None:
            with self._transaction():
                self._connection.executemany(
                    "INSERT OR IGNORE INTO run_writes VALUES (?, ?, ?, ?, ?, ?)", rows
                )

        await self._call(note)

    async def delete_run(self, thread_id: str, run_id: str, /) -> None:
        values = {"thread": thread_id, "run": run_id}
        await self._change(_DELETE_RUN, values, refused_by=_DEPENDANTS_OF_RUN, message=LATER_DIFFERENCES_STAY)

    async def delete_thread(self, thread_id: str, /) -> None:
        await self._change(_DELETE_THREAD, {"thread": thread_id})

    async def copy_thread(self, thread_id: str, new_thread_id: str, /) -> None:
        await self._change(_COPY_THREAD, {"thread": thread_id, "new": new_thread_id})

    async def keep_latest(self, thread_id: str, /) -> None:
        await self._change(
            _KEEP_LATEST, {"thread": thread_id}, refused_by=_DIFFERENCES, message=DIFFERENCES_STAY
        )

    async def _change(
        self, statements: Sequence[str], values: dict[str, str], *, refused_by: str = "", message: str = ""
    ) -> None:
        """Executes `statements` in one durable transaction, unless the query `refused_by` finds something."""

        def change() -> None:
            with self._transaction():
                if refused_by and self._connection.execute(refused_by, values).fetchone() is not None:
                    raise RunstoreError(ErrorReason.CONFLICT, message)
                for statement in statements:
                    self._connection.execute(statement, values)
            self._sync()

        await self._call(change)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    async def _call(self, function: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except self.unavailable_errors as error:
            raise CheckpointsUnavailable(str(error)) from error

    def close(self) -> None:
        """Closes the connection; the thread must be done."""
        self._connection.close()


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[SqliteCheckpoints]:
    """Opens or creates the file at `path`. Raises CheckpointsUnavailable when it cannot be."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoints") as thread:
        checkpoints = await asyncio.get_running_loop().run_in_executor(thread, _open, path, thread)
        try:
            yield checkpoints
        finally:
            await asyncio.get_running_loop().run_in_executor(thread, checkpoints.close)


def _open(path: Path, thread: concurrent.futures.Executor) -> SqliteCheckpoints:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return SqliteCheckpoints(path, thread)
    except (OSError, sqlite3.OperationalError) as error:
        raise CheckpointsUnavailable(f"{path}: {error}") from error
