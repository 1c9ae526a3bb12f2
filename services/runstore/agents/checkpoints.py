"""Where graphs keep their checkpoints, and what an agent server needs beyond reading and writing them.

langgraph's own savers write. Deleting one run's checkpoints and copying a thread are missing there, and are
in `checkpoints_sqlite` and `checkpoints_postgres`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver

BUSY_TIMEOUT_S = 8.0
"""How long a write waits for other writers; well within the margin of a lease."""

LATER_DIFFERENCES_STAY = "Later states of the thread are stored as differences from this run's."
DIFFERENCES_STAY = "The states of the thread are stored as differences, which need each other."


@dataclass(frozen=True, slots=True)
class WriteKey:
    """One pending write of a task, as the savers key it."""

    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    idx: int


class CheckpointsUnavailable(Exception):
    """The checkpoint database cannot be reached, or did not answer in time; worth another attempt."""


class Checkpoints(Protocol):
    """One database of checkpoints.

    What `saver` and `note_writes` write survives the end of the process, and the loss of power after
    `make_durable`. What the other methods do is atomic, and durable when they return.

    All raise CheckpointsUnavailable when the database does not answer.
    """

    @property
    def saver(self) -> BaseCheckpointSaver[Any]:
        """langgraph's saver for this database, unfenced."""
        ...

    @property
    def unavailable_errors(self) -> tuple[type[Exception], ...]:
        """What `saver` raises when the database does not answer."""
        ...

    async def make_durable(self) -> None:
        """Returns once everything written so far survives the loss of power."""
        ...

    async def note_writes(self, thread_id: str, run_id: str, writes: list[WriteKey], /) -> None:
        """Remembers that `run_id` is about to store `writes` with a checkpoint of another run."""
        ...

    async def delete_run(self, thread_id: str, run_id: str, /) -> None:
        """Deletes the run's checkpoints, and the writes noted for it: the thread is as it was before.

        Deleting again changes nothing. Raises CONFLICT when later checkpoints of the thread are
        stored as differences from one of these.
        """
        ...

    async def delete_thread(self, thread_id: str, /) -> None:
        """Deletes everything of a thread. Deleting again changes nothing."""
        ...

    async def copy_thread(self, thread_id: str, new_thread_id: str, /) -> None:
        """Gives a new thread the checkpoints and pending writes of another. Copying again changes nothing."""
        ...

    async def keep_latest(self, thread_id: str, /) -> None:
        """Deletes all but the latest state of a thread. Raises CONFLICT where states are differences."""
        ...


@asynccontextmanager
async def open_checkpoints(location: str) -> AsyncIterator[Checkpoints]:
    """Opens `sqlite:///absolute/path` or `postgresql://…` on the running event loop, and makes its tables.

    Raises CheckpointsUnavailable when it cannot be reached.
    """
    if location.startswith("sqlite:///"):
        from runstore.agents.checkpoints_sqlite import open_sqlite

        async with open_sqlite(Path(location.removeprefix("sqlite:///"))) as sqlite:
            yield sqlite
    else:
        from runstore.agents.checkpoints_postgres import open_postgres

        async with open_postgres(location) as postgres:
            yield postgres
