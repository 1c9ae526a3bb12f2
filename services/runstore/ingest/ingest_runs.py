"""Accepts batches of operations: project names become ids, the log makes them durable, the flusher
stores them."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import msgspec

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.projects import DEFAULT_PROJECT_NAME, Project
from runstore.domain.runs import RunPatch
from runstore.ingest.flusher import Flusher
from runstore.ingest.log import Log
from runstore.ingest.sequence import Sequence as SequenceNumbers

_BODY = msgspec.msgpack.Decoder(list[RunPatch])


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
        flusher: Flusher,
        *,
        queue_max_bytes: int,
    ) -> None:
        self._projects = projects
        self._sequence = sequence
        self._log = log
        self._flusher = flusher
        self._queue_max_bytes = queue_max_bytes

    async def wait_for_room(self) -> None:
        """Return once there is room for another batch; for transports that can slow their sender."""
        await self._flusher.wait_for_room(self._queue_max_bytes)

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

    async def write(self, patches: Sequence[RunPatch], *, has_room: bool = False) -> int:
        """Return once the validated patches are durable: the sequence number to wait for.

        `has_room`: the caller has waited for room, and is not refused for what others took of it since.
        Raises OVERLOADED, or UNAVAILABLE when the log cannot be written; nothing counts then.
        """
        if not patches:
            return self._sequence.last
        if not has_room and self._flusher.waiting_bytes >= self._queue_max_bytes:
            raise RunstoreError(ErrorReason.OVERLOADED, "too many operations wait for the engine")
        first = self._sequence.take(len(patches))
        for sequence, patch in enumerate(patches, first):
            patch.sequence = sequence
        last = first + len(patches) - 1
        await self._log.append(msgspec.msgpack.encode(patches), last, partial(self._flusher.submit, patches))
        return last


async def replay(log: Log, flusher: Flusher, *, queue_max_bytes: int) -> int:
    """Submit what the log holds and the engine may not have; how many operations.

    Call before the log starts. No more than `queue_max_bytes` are in memory at a time.
    """
    count = 0
    for body in log.replay():
        patches = _BODY.decode(body)
        await flusher.wait_for_room(queue_max_bytes)
        flusher.submit(patches)
        count += len(patches)
    return count
