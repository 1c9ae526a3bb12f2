"""Removes deleted runs from the database: they are hidden already, and this makes it final."""

import asyncio
from typing import Final, Protocol

import structlog

from runstore.domain.deletions import PurgeStep
from runstore.storage.run_store import DeletionStore, StoreUnavailable

# Long enough for many deletions to share a step, whose price hardly depends on how many they are.
_INTERVAL_S: Final = 30.0

logger = structlog.get_logger()


class Suspects(Protocol):
    """Where blobs are noted that may have become unused."""

    async def suspect(self, tenant_id: str, keys: list[str]) -> str:
        """Note blobs; durable when this returns."""
        ...


class Purge:
    """Purges step by step, one at a time."""

    def __init__(self, store: DeletionStore, unused: Suspects) -> None:
        self._store = store
        self._unused = unused
        self._is_busy = asyncio.Lock()

    async def run(self) -> None:
        """Purge for ever."""
        while True:
            try:
                await self.purge_deleted()
            except StoreUnavailable as error:
                logger.warning("purge_postponed", error=str(error))
            except Exception:
                logger.exception("purge_failed")
            await asyncio.sleep(_INTERVAL_S)

    async def purge_deleted(self) -> None:
        """Return once nothing is left to purge. Raises StoreUnavailable."""
        async with self._is_busy:
            while (step := await self._store.next_purge()) is not None:
                await self._step(step)

    async def _step(self, step: PurgeStep) -> None:
        # Noted before the rows go, which are the last to know of them; the sweep deletes what is unused.
        if blobs := await self._store.deleted_blobs(step):
            await self._unused.suspect(step.tenant_id, list(blobs))
        await self._store.purge(step)
        logger.info("runs_purged", tenant_id=step.tenant_id, deletions=len(step.sequences), blobs=len(blobs))
