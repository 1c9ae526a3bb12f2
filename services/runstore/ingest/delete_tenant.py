"""Deletes tenants: shut at once, removed from everywhere in the background.

A tenant that is shut writes nothing more, but for calls that are under way and what lies in logs. So the
purge begins at once, and is repeated until nothing can come any more; only then is the tenant forgotten.
Every step can be repeated, and what a crash has cut short is (docs/decisions/0019-deleting-tenants.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from runstore.domain.errors import RunstoreError
from runstore.domain.principals import TenantDeletion
from runstore.ingest.sequence import ALL_TAKEN, sequence_at
from runstore.runtime.clock import Clock
from runstore.storage.run_store import StoreUnavailable, TenantStore

SETTLE_S: Final = 40.0
"""Longer than stores remember a credential, than a worker holds on to a run, and than a call takes."""
_INTERVAL_S: Final = 10.0
# Beside other stores: how soon one ends the streams of a tenant that another has shut.
_SHARED_INTERVAL_S: Final = 2.0
_LEASE: Final = "tenants"
_LEASE_S: Final = 900.0
_THREADS_AT_ONCE: Final = 500

logger = structlog.get_logger()


class Deletions(Protocol):
    """The tenants in the catalog; `TenantDeletionCatalog` describes its methods."""

    async def begin(self, tenant_id: str, name: str) -> TenantDeletion: ...
    async def pending(self) -> list[TenantDeletion]: ...
    async def note(self, tenant_id: str, *, rows: int = 0, blobs: int = 0, waits_for: str) -> None: ...
    async def purge(self, tenant_id: str) -> int: ...
    async def threads(self, tenant_id: str, limit: int) -> list[str]: ...
    async def forget_threads(self, thread_ids: Sequence[str]) -> None: ...
    async def finish(self, tenant_id: str) -> bool: ...


class Leases(Protocol):
    """Keeps several stores from doing the same."""

    async def take(self, name: str, seconds: float) -> bool: ...
    async def give_back(self, name: str) -> None: ...


class Peers(Protocol):
    """This store and those that share the engine."""

    async def see_sequence(self, sequence: int) -> None:
        """Return once all that this store has taken so far is stored."""
        ...

    async def stored_everywhere(self) -> int:
        """Up to where everything that any other store ever acknowledged is stored."""
        ...


class Blobs(Protocol):
    """The blobs of tenants."""

    async def delete_tenant(self, tenant_id: str) -> int:
        """Delete all of a tenant: how many there were. Raises StoreUnavailable."""
        ...


class DeleteTenants:
    """Shuts tenants, and purges those that are shut. Any number of stores may do so."""

    def __init__(
        self,
        deletions: Deletions,
        store: TenantStore,
        blobs: Blobs,
        delete_checkpoints: Callable[[Sequence[str]], Awaitable[None]],
        peers: Peers,
        leases: Leases,
        clock: Clock,
        *,
        on_shut: Callable[[str], None],
        is_shared: bool = False,
    ) -> None:
        """`delete_checkpoints`: of the threads with these ids; raises StoreUnavailable. `on_shut`: a tenant
        is shut, here or by another store; may be called again."""
        self._deletions = deletions
        self._store = store
        self._blobs = blobs
        self._delete_checkpoints = delete_checkpoints
        self._peers = peers
        self._leases = leases
        self._clock = clock
        self._on_shut = on_shut
        self._interval_s = _SHARED_INTERVAL_S if is_shared else _INTERVAL_S
        self._news = asyncio.Event()

    async def delete(self, tenant_id: str, name: str) -> TenantDeletion:
        """Return once nothing opens the tenant any more. Raises as `TenantDeletionCatalog.begin`."""
        deletion = await self._deletions.begin(tenant_id, name)
        self._on_shut(tenant_id)
        logger.info("tenant_shut", tenant_id=tenant_id)
        self._news.set()
        return deletion

    async def run(self) -> None:
        """Purge for ever."""
        next_purge_s = 0.0
        while True:
            is_due = self._news.is_set() or self._clock.monotonic() >= next_purge_s
            self._news.clear()
            try:
                if is_due:
                    next_purge_s = self._clock.monotonic() + _INTERVAL_S
                    await self.purge()
                else:
                    await self._pending()
            except (StoreUnavailable, RunstoreError) as error:
                logger.warning("tenants_not_purged", error=str(error))
            except Exception:
                logger.exception("purge_of_tenants_failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._news.wait()

    async def purge(self) -> None:
        """Remove what there is of deleted tenants, unless another store does."""
        pending = await self._pending()
        if not pending:
            return
        try:
            for deletion in pending:
                if not await self._leases.take(_LEASE, _LEASE_S):
                    return
                await self._purge_and_note(deletion)
        finally:
            await self._leases.give_back(_LEASE)

    async def _pending(self) -> list[TenantDeletion]:
        """The tenants that are shut, their streams at this store ended."""
        pending = await self._deletions.pending()
        for deletion in pending:
            self._on_shut(deletion.tenant_id)
        return pending

    async def _purge_and_note(self, deletion: TenantDeletion) -> None:
        try:
            waits_for = await self._purge(deletion)
        except StoreUnavailable as error:
            waits_for = str(error)
        if waits_for and waits_for != deletion.waits_for:
            await self._deletions.note(deletion.tenant_id, waits_for=waits_for)

    async def _purge(self, deletion: TenantDeletion) -> str:
        """Remove everything that is there: why the tenant cannot be forgotten yet, or "" when it is."""
        tenant_id = deletion.tenant_id
        # Before anything is removed: what is stored later needs another round.
        may_come = await self._what_may_come(deletion)
        rows = await self._deletions.purge(tenant_id)
        rows += await self._store.purge(tenant_id)
        if rows:
            await self._deletions.note(tenant_id, rows=rows, waits_for=deletion.waits_for)
        if blobs := await self._blobs.delete_tenant(tenant_id):
            await self._deletions.note(tenant_id, blobs=blobs, waits_for=deletion.waits_for)
        if may_come:
            return may_come
        # Workers write checkpoints of a thread for as long as they hold its run.
        while threads := await self._deletions.threads(tenant_id, _THREADS_AT_ONCE):
            await self._delete_checkpoints(threads)
            await self._deletions.forget_threads(threads)
        if not await self._deletions.finish(tenant_id):
            return "rows have come meanwhile"
        logger.info("tenant_purged", tenant_id=tenant_id)
        return ""

    async def _what_may_come(self, deletion: TenantDeletion) -> str:
        settled_us = deletion.deleted_at_us + round(SETTLE_S * 1e6)
        if self._clock.now_us() < settled_us:
            return "calls that were under way"
        await self._peers.see_sequence(ALL_TAKEN)
        if await self._peers.stored_everywhere() < sequence_at(settled_us):
            return "the log of a store that is away (runstore stores)"
        return ""
