"""Deletes checkpoints of threads where no worker can be asked to: those of a tenant that is deleted.

Imports nothing of langgraph: it is the store that deletes them.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

_TABLES: Final = ("checkpoints", "writes", "run_writes")
_BUSY_TIMEOUT_S: Final = 30.0


async def delete_checkpoints(location: str, thread_ids: Sequence[str]) -> None:
    """Delete everything of the threads at `location`, as `open_checkpoints` takes it; durable, and safe to
    repeat. Raises OSError when the database does not answer."""
    if not location.startswith("sqlite:///"):
        from runstore.agents import checkpoint_copies

        await checkpoint_copies.delete_threads(location, thread_ids)
        return
    path = Path(location.removeprefix("sqlite:///"))
    try:
        await asyncio.to_thread(_delete, path, thread_ids)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error


def _delete(path: Path, thread_ids: Sequence[str]) -> None:
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection, connection:
        there = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for table in _TABLES:
            if (table,) in there:
                statement = f"DELETE FROM {table} WHERE thread_id = ?"  # noqa: S608 - a name of ours
                connection.executemany(statement, [(thread_id,) for thread_id in thread_ids])
