"""Knows which operations are durable but cannot be read yet, and waits for them.

Readers wait so that they see every write that was acknowledged before; writers wait, or are refused, so that
what waits stays bounded and no tenant takes the room of the others.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from runstore.domain.deletions import RunDeletion
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunPatch

Operation = RunPatch | FeedbackPatch | RunDeletion | TraceKeep


@dataclass(frozen=True, slots=True)
class _Batch:
    """Operations of one tenant, as far as readers and writers need to know them."""

    sequence: int
    """Of the last one."""
    tenant_id: str
    size_bytes: int
    operations: int
    project_ids: frozenset[str] | None
    """None when one of them could be of any project."""
    run_ids: frozenset[str] | None
    """None when one of them could be about any run."""
    trace_ids: frozenset[str] | None

    def concerns(self, project_ids: frozenset[str], run_ids: frozenset[str], trace_id: str | None) -> bool:
        """Whether a question about these could be answered otherwise once the batch can be read."""
        if project_ids and self.project_ids is not None and project_ids.isdisjoint(self.project_ids):
            return False
        if run_ids and self.run_ids is not None and run_ids.isdisjoint(self.run_ids):
            return False
        return trace_id is None or self.trace_ids is None or trace_id in self.trace_ids


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
        horizon: Callable[[], int] = lambda: 0,
    ) -> None:
        """What lies between the two sequence numbers is of an earlier process: it concerns every reader.

        Beyond `max_waiting_bytes` there is no room while the engine works. `hurry` asks for a flush up to a
        sequence number. `horizon`: up to where operations of other stores may be there by now.
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
        self._horizon = horizon
        self._submitted_sequence = max(stored_sequence, last_sequence)
        self._recovered_sequence = last_sequence
        self._awaited: Collection[str] | None = None
        self._batches: deque[_Batch] = deque()
        self._bytes_of: dict[str, int] = {}
        self._changed = asyncio.Condition()

    def submitted(self, operations: Sequence[Operation], sequence: int, size_bytes: int) -> None:
        """A batch of one tenant has become durable; `sequence` is its last."""
        tenant_id = operations[0].tenant_id
        self._submitted_sequence = sequence
        self._batches.append(_batch(tenant_id, operations, sequence, size_bytes))
        self._bytes_of[tenant_id] = self._bytes_of.get(tenant_id, 0) + size_bytes
        self.waiting_bytes += size_bytes
        self.waiting_operations += len(operations)

    @property
    def is_recovering(self) -> bool:
        """Whether operations of an earlier process still cannot be read."""
        return self.stored_sequence < self._recovered_sequence

    @property
    def oldest_waiting_sequence(self) -> int | None:
        """Of the oldest operations that cannot be read yet, to within a batch; None when all can."""
        if self.is_recovering:
            return self._recovered_sequence
        return self._batches[0].sequence if self._batches else None

    async def stored(self, sequence: int, awaited: Collection[str] | None = ()) -> None:
        """Everything up to a sequence number can be read now.

        `awaited`: the runs whose arrival changes other runs, as operations are parked for them; None when
        these may be any.
        """
        self.is_engine_away = False
        self.stored_sequence = max(self.stored_sequence, sequence)
        self._awaited = awaited
        while self._batches and self._batches[0].sequence <= sequence:
            batch = self._batches.popleft()
            self.waiting_bytes -= batch.size_bytes
            self.waiting_operations -= batch.operations
            self._bytes_of[batch.tenant_id] -= batch.size_bytes
            if not self._bytes_of[batch.tenant_id]:
                del self._bytes_of[batch.tenant_id]
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

    async def see_writes(
        self,
        tenant_id: str,
        project_ids: Iterable[str] = (),
        *,
        run_ids: Iterable[str] = (),
        trace_id: str | None = None,
    ) -> None:
        """Return once all that was submitted before, and could concern these projects, can be read.

        No projects means every project of the tenant. `run_ids` and `trace_id`, if given, say that the reader
        looks at nothing but these runs and at this trace. (What takes a run out of a trace is waited for by
        readers of the trace that it comes to.)
        """
        await self.see_sequence(self._recovered_sequence)
        asked = frozenset(project_ids), frozenset(run_ids), trace_id
        begin = self._submitted_sequence
        # What becomes readable meanwhile may park operations, so that more of it concerns this reader.
        while last := self._last_concerning(begin, tenant_id, *asked):
            await self.see_sequence(last)

    def _last_concerning(
        self,
        begin: int,
        tenant_id: str,
        project_ids: frozenset[str],
        run_ids: frozenset[str],
        trace_id: str | None,
    ) -> int:
        """The last batch up to `begin` that concerns a question: its sequence number; 0 when none does."""
        for batch in reversed(self._batches):
            if batch.sequence > begin or batch.tenant_id != tenant_id:
                continue
            if self._changes_others(batch):
                if batch.concerns(project_ids, frozenset(), None):
                    return batch.sequence
            elif batch.concerns(project_ids, run_ids, trace_id):
                return batch.sequence
        return 0

    def _changes_others(self, batch: _Batch) -> bool:
        """Whether a run of the batch is one that parked operations wait for."""
        return self._awaited is None or (
            batch.run_ids is not None and not batch.run_ids.isdisjoint(self._awaited)
        )

    async def snapshot(self, tenant_id: str, project_ids: Iterable[str] = ()) -> int:
        """As `see_writes`; the last sequence number up to which everything can be read then."""
        sequence = max(self._submitted_sequence, self._horizon())
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


def _batch(tenant_id: str, operations: Sequence[Operation], sequence: int, size_bytes: int) -> _Batch:
    return _Batch(
        sequence,
        tenant_id,
        size_bytes,
        len(operations),
        _unless_any(_project_id(operation) for operation in operations),
        _unless_any(_run_id(operation) for operation in operations),
        _unless_any(_trace_id(operation) for operation in operations),
    )


def _unless_any(values: Iterable[str | None]) -> frozenset[str] | None:
    """All values; None when one of them is None, which stands for whatever value."""
    found = frozenset(values)
    return None if None in found else cast("frozenset[str]", found)


def _project_id(operation: Operation) -> str | None:
    """The project it is about; None for whichever."""
    return None if isinstance(operation, TraceKeep) else operation.project_id


def _run_id(operation: Operation) -> str | None:
    """The run it is about, "" for none; None for whichever."""
    if isinstance(operation, RunDeletion | TraceKeep):
        return None
    return operation.run_id or ""


def _trace_id(operation: Operation) -> str | None:
    """The trace that it says its run belongs to; None when that is not certain."""
    if isinstance(operation, RunPatch) and operation.dotted_order is not None:
        return operation.trace_id
    return None
