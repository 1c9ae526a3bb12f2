"""Deletes projects with everything in them."""

from typing import Protocol

from runstore.ingest.unused_blobs import UnusedBlobs
from runstore.storage.run_store import RunStore


class Projects(Protocol):
    """What deleting needs of the catalog's projects."""

    async def get(self, tenant_id: str, project_id: str) -> object:
        """Raises NOT_FOUND."""
        ...

    async def delete(self, tenant_id: str, project_id: str) -> None:
        """Raises NOT_FOUND."""
        ...


class Writes(Protocol):
    """What deleting needs of the writers."""

    async def see_writes(self, tenant_id: str, project_ids: tuple[str, ...] = ()) -> None: ...


class Peers(Protocol):
    """What deleting needs of the other stores."""

    async def settle(self) -> None:
        """Return once what they have taken so far is stored, or after some seconds."""
        ...

    async def forgotten(self) -> bool:
        """Return once none of them takes what is gone for there; False when there are none."""
        ...


class DeleteProject:
    """Removes a project, its runs and their blobs."""

    def __init__(
        self, projects: Projects, store: RunStore, writes: Writes, unused: UnusedBlobs, peers: Peers
    ) -> None:
        self._projects = projects
        self._store = store
        self._writes = writes
        self._unused = unused
        self._peers = peers

    async def delete(self, tenant_id: str, project_id: str) -> None:
        """Return once nobody sees the project any more. Safe to repeat until NOT_FOUND."""
        await self._projects.get(tenant_id, project_id)
        # Runs first: a crash in between leaves a project that can be deleted again, never hidden runs. Blobs
        # last, so that no run refers to one that is gone; they are noted, so that none is forgotten.
        await self._writes.see_writes(tenant_id, (project_id,))
        await self._peers.settle()
        blobs = await self._store.project_blobs(tenant_id, project_id)
        note = await self._unused.suspect(tenant_id, blobs) if blobs else ""
        await self._store.delete_project(tenant_id, project_id)
        await self._projects.delete(tenant_id, project_id)
        if await self._peers.forgotten():
            # What other stores have taken for it until they knew: nobody could see it, nor ever delete it.
            await self._store.delete_project(tenant_id, project_id)
        if note:
            await self._unused.delete(note, blobs)

    async def forgotten(self) -> None:
        """Return once no store takes anything for a project by its old name."""
        await self._peers.forgotten()
