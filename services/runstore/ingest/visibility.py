"""Knows which operations are durable but cannot be read yet, and waits for them.

Readers wait so that they see every write that was acknowledged before; writers wait, or are refused, so that
what waits stays bounded and no tenant takes the room of the others.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from runstore.domain.deletions import RunDeletion
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.runs import RunPatch


class Visibility:
    """The operations between the log and the engine, as the process that accepts them sees them.

    Lives on one event loop.
    """

    def __init__(
        self,
        *,
        stored_sequence: int,
        last_sequence: int,
        max_waiting_bytes: int,
        hurry: Callable[[int], None] = lambda _: None,
    ) -> None:
        """What lies between the two sequence numbers is of an earlier process: it concerns every reader.

        Beyond `max_waiting_bytes` there is no room while the engine works. `hurry` asks for a flush up to a
        sequence number.
        """
        self.stored_sequence = stored_sequence
        """Everything up to here can be read."""
        self.is_engine_away = False
        """While the engine is away nothing drains, so writers are not held up: the log alone has a bound."""
        self.last_error = ""
        """Why the engine was away the last time."""
        self.last_error_us = 0
        """When that was, in microseconds since the epoch."""
        self.waiting_bytes = 0
        self.waiting_operations = 0
        """As far as this process has accepted them."""
        self.max_waiting_bytes = max_waiting_bytes
        self._hurry = hurry
        self._submitted_sequence = max(stored_sequence, last_sequence)
        self._recovered_sequence = last_sequence
        self._last_waiting: dict[tuple[str, str | None], int] = {}
        self._batches: deque[tuple[int, str, int, int]] = deque()
        self._bytes_of: dict[str, int] = {}
        self._changed = asyncio.Condition()

    def submitted(
        self, patches: Sequence[RunPatch | FeedbackPatch | RunDeletion], sequence: int, size_bytes: int
    ) -> None:
        """A batch of one tenant has become durable; `sequence` is its last."""
        tenant_id = patches[0].tenant_id
        for project_id in {patch.project_id for patch in patches}:
            self._last_waiting[(tenant_id, project_id)] = sequence
        self._submitted_sequence = sequence
        self._batches.append((sequence, tenant_id, size_bytes, len(patches)))
        self._bytes_of[tenant_id] = self._bytes_of.get(tenant_id, 0) + size_bytes
        self.waiting_bytes += size_bytes
        self.waiting_operations += len(patches)

    @property
    def is_recovering(self) -> bool:
        """Whether operations of an earlier process still cannot be read."""
        return self.stored_sequence < self._recovered_sequence

    @property
    def oldest_waiting_sequence(self) -> int | None:
        """Of the oldest operations that cannot be read yet, to within a batch; None when all can."""
        if self.is_recovering:
            return self._recovered_sequence
        return self._batches[0][0] if self._batches else None

    async def stored(self, sequence: int) -> None:
        """Everything up to a sequence number can be read now."""
        self.is_engine_away = False
        self.stored_sequence = max(self.stored_sequence, sequence)
        for ref in [ref for ref, last in self._last_waiting.items() if last <= sequence]:
            del self._last_waiting[ref]
        while self._batches and self._batches[0][0] <= sequence:
            _, tenant_id, size_bytes, operations = self._batches.popleft()
            self.waiting_bytes -= size_bytes
            self.waiting_operations -= operations
            self._bytes_of[tenant_id] -= size_bytes
            if not self._bytes_of[tenant_id]:
                del self._bytes_of[tenant_id]
        async with self._changed:
            self._changed.notify_all()

    async def engine_away(self, reason: str) -> None:
        """The engine cannot take anything at the moment."""
        self.is_engine_away = True
        self.last_error = reason
        self.last_error_us = time.time_ns() // 1_000
        async with self._changed:
            self._changed.notify_all()

    # -- writers ---------------------------------------------------------------------------------

    def has_room(self, tenant_id: str) -> bool:
        """Whether another batch of the tenant may be accepted.

        The first half of the room is for whoever comes; of the rest each tenant that has something waiting
        gets an equal share of the whole, so that a quiet tenant never pays for a loud one.
        """
        if self.is_engine_away or self.waiting_bytes < self.max_waiting_bytes // 2:
            return True
        own_bytes = self._bytes_of.get(tenant_id, 0)
        tenants = len(self._bytes_of) + (own_bytes == 0)
        return own_bytes < self.max_waiting_bytes // tenants

    async def wait_for_room(self, tenant_id: str) -> None:
        """Return once the tenant has room."""
        if self.has_room(tenant_id):
            return
        async with self._changed:
            await self._changed.wait_for(lambda: self.has_room(tenant_id))

    # -- readers ---------------------------------------------------------------------------------

    async def see_writes(self, tenant_id: str, project_ids: Iterable[str] = ()) -> None:
        """Return once all that was submitted before, and could concern these projects, can be read.

        No projects means every project of the tenant.
        """
        projects = set(project_ids)
        sequence = max(
            (
                last
                for (tenant, project), last in self._last_waiting.items()
                if tenant == tenant_id and (not projects or project is None or project in projects)
            ),
            default=0,
        )
        await self.see_sequence(max(sequence, self._recovered_sequence))

    async def snapshot(self, tenant_id: str, project_ids: Iterable[str] = ()) -> int:
        """As `see_writes`; the last sequence number up to which everything can be read then."""
        sequence = self._submitted_sequence
        await self.see_writes(tenant_id, project_ids)
        return sequence

    async def see_sequence(self, sequence: int) -> None:
        """Return once everything submitted so far, and up to this sequence number, can be read."""
        # A number that was never submitted here is of an earlier process, or of a write that failed.
        sequence = min(sequence, self._submitted_sequence)
        if sequence <= self.stored_sequence:
            return
        self._hurry(sequence)
        async with self._changed:
            await self._changed.wait_for(lambda: self.stored_sequence >= sequence)
