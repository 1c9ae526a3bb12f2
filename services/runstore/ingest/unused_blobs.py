"""Deletes blobs that nothing refers to: uploads that no operation named, and those of deleted projects.

A blob that may become unused is noted before it is put, or before its rows are deleted; so no crash leaves
one behind that is forgotten. A sweep looks the noted blobs up a day later, when every operation that could
name them is stored, and deletes those that are in no row.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from typing import Final, Protocol
from uuid import uuid4

import structlog

from runstore.domain.blob_refs import new_key
from runstore.domain.errors import RunstoreError
from runstore.ingest.sequence import ALL_TAKEN, sequence_at
from runstore.runtime.clock import Clock
from runstore.storage.blobs import BlobMissing, BlobStore
from runstore.storage.run_store import StoreUnavailable

# Longer than an upload's token lives, by more than any clock is wrong.
SUSPECT_AGE_S: Final = 24 * 3_600
# Far less than a note is older than what may name its blobs.
_LEAST_LAG_US: Final = 600 * 1_000_000
_SWEEP_INTERVAL_S: Final = 3_600
_NOTES: Final = "notes"
_NOTES_AT_ONCE: Final = 1_000
_DELETED_AT_ONCE: Final = 1_000
HOLDS: Final = "holds"
# Of one that was left behind by a crash. Those that are wanted are renewed long before.
_HOLD_AGE_S: Final = 6 * 3_600
_HOLD_RENEWAL_S: Final = 3_600

logger = structlog.get_logger()


class Rows(Protocol):
    """What the sweep asks the database."""

    async def blobs_in_use(self, tenant_id: str, keys: Collection[str], /) -> set[str]:
        """Those of the keys that a row or a waiting operation refers to."""
        ...


class AllRows:
    """Rows of several databases."""

    def __init__(self, *rows: Rows) -> None:
        self._rows = rows

    async def blobs_in_use(self, tenant_id: str, keys: Collection[str], /) -> set[str]:
        """Those of the keys that any of the rows refers to."""
        used: set[str] = set()
        for rows in self._rows:
            used |= await rows.blobs_in_use(tenant_id, [key for key in keys if key not in used])
        return used


class Visibility(Protocol):
    """Waits until operations are stored."""

    async def see_sequence(self, sequence: int) -> None:
        """Return once everything acknowledged so far, and up to this sequence number, is stored."""
        ...

    async def stored_everywhere(self) -> int:
        """Up to where everything that any store ever acknowledged is stored."""
        ...


class UnusedBlobs:
    """Notes blobs and deletes them."""

    def __init__(self, blobs: BlobStore, rows: Rows, visibility: Visibility, clock: Clock) -> None:
        self._blobs = blobs
        self._rows = rows
        self._visibility = visibility
        self._clock = clock

    async def suspect(self, tenant_id: str, keys: Sequence[str]) -> str:
        """Note blobs that may become unused; durable when this returns. The note's own key."""
        note = f"{_NOTES}/{new_key(tenant_id)}"
        await self._blobs.put(note, "\n".join(keys).encode())
        return note

    async def delete(self, note: str, keys: Sequence[str]) -> None:
        """Delete noted blobs that are certainly unused; the sweep does so while they are held."""
        if await self._are_held():
            return
        await self._blobs.delete(keys)
        await self._blobs.delete([note])

    async def delete_tenant(self, tenant_id: str) -> int:
        """Delete every blob of a tenant, which nothing refers to any more, and every note: how many blobs.

        Raises StoreUnavailable while they are held, with some of them deleted or none.
        """
        deleted = 0
        for folder in (tenant_id, f"{_NOTES}/{tenant_id}"):
            keys: list[str] = []
            async for key, _ in self._blobs.list(folder):
                keys.append(key)
                if len(keys) == _DELETED_AT_ONCE:
                    deleted += await self._delete_unheld(keys)
                    keys = []
            deleted += await self._delete_unheld(keys)
        return deleted

    async def _delete_unheld(self, keys: Sequence[str]) -> int:
        if not keys:
            return 0
        if await self._are_held():
            raise StoreUnavailable("a backup is being made, which may still copy blobs")
        await self._blobs.delete(keys)
        return sum(not key.startswith(f"{_NOTES}/") for key in keys)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """No store deletes a blob inside: one that a row names at the beginning is there to the end."""
        hold = f"{HOLDS}/{uuid4()}"
        await self._blobs.put(hold, b"")
        renewing = asyncio.create_task(self._renew(hold))
        try:
            yield
        finally:
            renewing.cancel()
            with suppress(StoreUnavailable):  # It ends by itself in some hours.
                await self._blobs.delete([hold])

    async def _renew(self, hold: str) -> None:
        while True:
            await asyncio.sleep(_HOLD_RENEWAL_S)
            with suppress(StoreUnavailable):
                await self._blobs.put(hold, b"")

    async def _are_held(self) -> bool:
        begin = self._ago(_HOLD_AGE_S)
        return any([time >= begin async for _, time in self._blobs.list(HOLDS)])

    def _ago(self, age_s: float) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC) - timedelta(seconds=age_s)

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                await self.sweep()
            except (StoreUnavailable, RunstoreError) as error:
                logger.warning("blob_sweep_postponed", error=str(error))
            await asyncio.sleep(_SWEEP_INTERVAL_S)

    async def sweep(self) -> int:
        """Delete what was noted more than a day ago and is in no row; how many blobs were.

        Raises StoreUnavailable; what is left is found by the next sweep.
        """
        noted_before = self._ago(SUSPECT_AGE_S)
        notes = [note async for note, time in self._blobs.list(_NOTES) if time < noted_before]
        if not notes:
            return 0
        await self._visibility.see_sequence(ALL_TAKEN)
        if await self._visibility.stored_everywhere() < sequence_at(self._clock.now_us() - _LEAST_LAG_US):
            raise StoreUnavailable("a store is away, whose log may name blobs")
        deleted = 0
        for tenant_id, of_tenant in groupby(sorted(notes), key=lambda note: note.split("/")[1]):
            while batch := list(islice(of_tenant, _NOTES_AT_ONCE)):
                deleted += await self._settle(tenant_id, batch)
        logger.info("blobs_swept", notes=len(notes), deleted=deleted)
        return deleted

    async def _settle(self, tenant_id: str, notes: Sequence[str]) -> int:
        keys: set[str] = set()
        for note in notes:
            try:
                text = b"".join([chunk async for chunk in self._blobs.read(note)])
            except BlobMissing:  # Another store was quicker.
                continue
            keys.update(text.decode().split())
        unused = keys - await self._rows.blobs_in_use(tenant_id, keys)
        # After that look: what a backup that begins from now on refers to is not among them.
        if await self._are_held():
            return 0
        await self._blobs.delete(sorted(unused))
        await self._blobs.delete(notes)
        return len(unused)
