"""Accepts batches of operations: project names become ids, the log makes them durable."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from runstore.domain.deletions import RunDeletion
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.projects import DEFAULT_PROJECT_NAME, Project
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunPatch
from runstore.ingest import frames
from runstore.ingest.log import Log
from runstore.ingest.metrics import QUEUE_FULL, IngestMetrics
from runstore.ingest.sequence import Sequence as SequenceNumbers
from runstore.ingest.visibility import Visibility
from runstore.runtime import spans

_Patch = TypeVar("_Patch", RunPatch, FeedbackPatch)


class Projects(Protocol):
    """What ingest needs of the catalog's projects."""

    def cached_id(self, tenant_id: str, name: str) -> str | None:
        """Id of the project of that name, if it is known without asking."""
        ...

    async def resolve(self, tenant_id: str, name: str) -> Project:
        """The project of that name, made when missing. Raises INVALID_ARGUMENT for a bad name."""
        ...

    async def exists(self, tenant_id: str, project_id: str) -> bool:
        """Whether the tenant has the project."""
        ...


class IngestRuns:
    """The way in for every operation, whatever transport brought it."""

    def __init__(
        self,
        projects: Projects,
        sequence: SequenceNumbers,
        log: Log,
        visibility: Visibility,
        metrics: IngestMetrics,
        on_traced: Callable[[int, str], None] = lambda _sequence, _traceparent: None,
    ) -> None:
        """`on_traced` is told, before they are durable, the last sequence number of operations that belong to
        a span, and that span: storing them is part of it."""
        self._projects = projects
        self._sequence = sequence
        self._log = log
        self._visibility = visibility
        self._metrics = metrics
        self._on_traced = on_traced

    def stored_sequence(self) -> int:
        """Everything that was or will be acknowledged here up to this number can be read."""
        if self._log.unconfirmed or self._visibility.oldest_waiting_sequence is not None:
            return self._visibility.stored_sequence
        # Whatever comes next gets a higher number, and so nobody has to wait for a store that is idle.
        return self._sequence.take(1)[0]

    async def wait_for_room(self, tenant_id: str) -> None:
        """Return once there is room for another batch; for transports that can slow their sender."""
        if self._visibility.has_room(tenant_id) and self._log.has_room:
            return
        started_s = time.perf_counter()
        await self._visibility.wait_for_room(tenant_id)
        await self._log.wait_for_room()
        self._metrics.paused(time.perf_counter() - started_s)

    async def find_projects(self, patches: Sequence[RunPatch]) -> dict[int, RunstoreError]:
        """Give every patch that names a project its id; a creation without one gets the default.

        Returns the patches whose project does not exist, by index.
        """
        refused: dict[int, RunstoreError] = {}
        for index, patch in enumerate(patches):
            if patch.project_id is not None:
                if not await self._projects.exists(patch.tenant_id, patch.project_id):
                    refused[index] = invalid("project_id", f"there is no project {patch.project_id}")
                continue
            name = patch.project_name
            if name is None:
                if not patch.is_create:
                    continue
                name = DEFAULT_PROJECT_NAME
            patch.project_id = self._projects.cached_id(patch.tenant_id, name)
            try:
                if patch.project_id is None:
                    patch.project_id = (await self._projects.resolve(patch.tenant_id, name)).id
            except RunstoreError as error:
                if error.reason is not ErrorReason.INVALID_ARGUMENT:
                    raise
                refused[index] = invalid("project_name", error.message)
            patch.project_name = None
        return refused

    async def write(
        self, patches: Sequence[RunPatch], *, has_room: bool = False, keep_sequence: bool = False
    ) -> int:
        """Return once the validated patches, all of one tenant, are durable: the sequence number to wait for.

        `has_room`: the caller has waited for room, and is not refused for what others took of it since.
        `keep_sequence`: the patches were accepted before, and keep their place in the order of operations.
        Raises OVERLOADED, or UNAVAILABLE when the log cannot be written; nothing counts then.
        """
        return await self._write(patches, frames.encode_runs, has_room=has_room, keep_sequence=keep_sequence)

    async def write_feedback(self, patches: Sequence[FeedbackPatch], *, keep_sequence: bool = False) -> int:
        """As `write`, for operations on feedback."""
        return await self._write(patches, frames.encode_feedback, has_room=False, keep_sequence=keep_sequence)

    async def write_deletion(
        self,
        tenant_id: str,
        *,
        run_ids: Sequence[str],
        trace_ids: Sequence[str],
        project_id: str | None,
        started_before_us: int | None = None,
        spares_kept: bool = False,
    ) -> int:
        """As `write`, for a deletion. There is always room for one: it makes room itself."""
        [sequence] = self._sequence.take(1)
        return await self._write_alone(
            RunDeletion(
                tenant_id,
                sequence,
                tuple(run_ids),
                tuple(trace_ids),
                project_id,
                started_before_us,
                spares_kept,
            )
        )

    async def write_keep(
        self, tenant_id: str, *, run_ids: Sequence[str] = (), trace_ids: Sequence[str] = ()
    ) -> int:
        """As `write`, for keeping traces. It is small, and waits for no room."""
        [sequence] = self._sequence.take(1)
        return await self._write_alone(TraceKeep(tenant_id, sequence, tuple(run_ids), tuple(trace_ids)))

    async def _write_alone(self, operation: frames.Alone) -> int:
        await self._append(frames.encode_alone(operation), [operation], operation.sequence)
        return operation.sequence

    async def _write(
        self,
        patches: Sequence[_Patch],
        encode: Callable[[Sequence[_Patch]], bytes],
        *,
        has_room: bool,
        keep_sequence: bool,
    ) -> int:
        if not patches:
            return self._sequence.last
        if not has_room and not self._visibility.has_room(patches[0].tenant_id):
            self._metrics.pushed_back(QUEUE_FULL)
            raise RunstoreError(ErrorReason.OVERLOADED, "too many operations wait for the engine")
        numbers = self._sequence.take(len(patches))
        if not keep_sequence:
            for sequence, patch in zip(numbers, patches, strict=True):
                patch.sequence = sequence
        await self._append(encode(patches), patches, numbers[-1])
        return numbers[-1]

    async def _append(
        self, body: bytes, operations: Sequence[RunPatch | FeedbackPatch | frames.Alone], last: int
    ) -> None:
        """Nothing may be awaited between taking sequence numbers and this: the log is in their order."""
        started_s = time.perf_counter()
        self._metrics.accepted(len(operations))
        try:
            with spans.inner("log append") as span:
                if span.is_recorded:
                    span.set({"runstore.operations": len(operations), "runstore.bytes": len(body)})
                    self._on_traced(last, spans.traceparent())
                await self._log.append(
                    body, last, partial(self._visibility.submitted, operations, last, len(body))
                )
        except RunstoreError as error:
            self._metrics.log_refused(error)
            raise
        self._metrics.acknowledged(len(operations), time.perf_counter() - started_s)
