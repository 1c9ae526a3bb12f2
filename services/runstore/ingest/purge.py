"""Removes deleted runs from the database: they are hidden already, and this makes it final."""

import asyncio
from typing import Final, Protocol

import structlog

from runstore.domain.deletions import PurgeStep
from runstore.domain.errors import RunstoreError
from runstore.storage.run_store import DeletionStore, StoreUnavailable

# Long enough for many deletions to share a step, whose price hardly depends on how many they are.
_INTERVAL_S: Final = 30.0

logger = structlog.get_logger()


class Suspects(Protocol):
    """Where blobs are noted that may have become unused."""

    async def suspect(self, tenant_id: str, keys: list[str]) -> str:
        """Note blobs; durable when this returns."""
        ...


class Peers(Protocol):
    """The stores that share the engine."""

    async def stored_everywhere(self) -> int:
        """Up to where everything that any of them ever acknowledged is stored."""
        ...


class Purge:
    """Purges step by step, one at a time. Any number of stores may do so on one engine."""

    def __init__(self, store: DeletionStore, unused: Suspects, peers: Peers) -> None:
        self._store = store
        self._unused = unused
        self._peers = peers
        self._is_busy = asyncio.Lock()

    async def run(self) -> None:
        """Purge for ever."""
        while True:
            try:
                await self.purge_deleted()
            except (StoreUnavailable, RunstoreError) as error:
                logger.warning("purge_postponed", error=str(error))
            except Exception:
                logger.exception("purge_failed")
            await asyncio.sleep(_INTERVAL_S)

    async def purge_deleted(self) -> None:
        """Return once no rows of deleted runs are left. Raises StoreUnavailable, RunstoreError UNAVAILABLE.

        That they are deleted is forgotten once every store has stored what it accepted before: the log of one
        that is away may bring such rows back until then, and the next call removes them.
        """
        async with self._is_busy:
            settled = await self._peers.stored_everywhere()
            for step in await self._store.purge_steps():
                await self._step(step, is_last=max(step.sequences) <= settled)

    async def _step(self, step: PurgeStep, *, is_last: bool) -> None:
        # Noted before the rows go, which are the last to know of them; the sweep deletes what is unused.
        if blobs := await self._store.deleted_blobs(step):
            await self._unused.suspect(step.tenant_id, list(blobs))
        await self._store.purge(step)
        if is_last:
            await self._store.forget_deletions(step)
            logger.info(
                "runs_purged", tenant_id=step.tenant_id, deletions=len(step.sequences), blobs=len(blobs)
            )
