"""Removes what has outlived its time; that nobody sees it any more is not the sweeper's doing."""

import asyncio
from typing import Final, Protocol

import structlog

from runstore.domain.agent_runs import AgentThread
from runstore.domain.errors import ErrorReason, RunstoreError

_EVERY_S: Final = 60.0
_THREADS_AT_ONCE: Final = 100

_log = structlog.get_logger(__name__)


class Items(Protocol):
    """Where the items are."""

    async def forget_expired(self) -> int:
        """Removes those that have outlived their time; answers how many."""
        ...


class Threads(Protocol):
    """Where the threads are."""

    async def expired(self, limit: int) -> list[AgentThread]:
        """Threads that nothing has changed for their time, and that are not busy."""
        ...

    async def restart_time(self, thread_id: str) -> None:
        """A thread's time begins again."""
        ...


class Prune(Protocol):
    """How a thread is deleted, or its checkpoints but the latest."""

    async def __call__(self, thread: AgentThread, *, keep_latest: bool) -> None:
        """Raises UNAVAILABLE when no worker can be asked, NOT_FOUND when the thread is gone."""
        ...


class Sweeper:
    """Looks once a minute. Any number of stores may do so on one catalog."""

    def __init__(self, items: Items, threads: Threads, prune: Prune) -> None:
        self._items = items
        self._threads = threads
        self._prune = prune

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> None:
        """Removes what has expired by now; what cannot be removed is left to the next time."""
        try:
            if count := await self._items.forget_expired():
                _log.info("items_expired", count=count)
            for thread in await self._threads.expired(_THREADS_AT_ONCE):
                await self._expire(thread)
        except RunstoreError as error:
            _log.warning("not_swept", reason=error.reason.name)

    async def _expire(self, thread: AgentThread) -> None:
        keep_latest = thread.ttl_strategy == "keep_latest"
        try:
            await self._prune(thread, keep_latest=keep_latest)
        except RunstoreError as error:
            if error.reason is ErrorReason.NOT_FOUND:  # Another store was first, or its owner.
                return
            raise
        if keep_latest:
            await self._threads.restart_time(thread.thread_id)
        _log.info("thread_expired", thread_id=thread.thread_id, keep_latest=keep_latest)
