"""Accepts operations on feedback; they go the way of those on runs: log, flusher, engine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import Feedback, FeedbackAction, FeedbackPatch
from runstore.ingest.feedback_validation import validate_feedback
from runstore.runtime.clock import Clock
from runstore.storage.run_store import FeedbackStore


class Projects(Protocol):
    """What feedback needs of the catalog's projects."""

    async def exists(self, tenant_id: str, project_id: str) -> bool:
        """Whether the tenant has the project."""
        ...

    async def named(self, tenant_id: str, names: Sequence[str]) -> dict[str, str]:
        """The ids of those of the projects `names` that exist, by name."""
        ...


class Log(Protocol):
    """Makes operations durable (`IngestRuns`)."""

    async def write_feedback(self, patches: Sequence[FeedbackPatch]) -> int: ...


class Writes(Protocol):
    """Waits until earlier operations can be read (`Visibility`)."""

    async def see_writes(self, tenant_id: str) -> None: ...


class IngestFeedback:
    """The way in for feedback, whatever transport brought it."""

    def __init__(
        self, projects: Projects, log: Log, store: FeedbackStore, writes: Writes, clock: Clock
    ) -> None:
        self._projects = projects
        self._log = log
        self._store = store
        self._writes = writes
        self._clock = clock

    async def create(
        self, patches: Sequence[FeedbackPatch], project_names: Mapping[int, str] = MappingProxyType({})
    ) -> tuple[int, dict[int, RunstoreError]]:
        """Return once the good records, all of one tenant, are durable: the sequence number to wait for, and
        what was refused, by index. Raises OVERLOADED and UNAVAILABLE; nothing counts then.

        `project_names`, by index, stand in for the ids of projects that are not given.
        """
        now_us = self._clock.now_us()
        good: list[FeedbackPatch] = []
        refused: dict[int, RunstoreError] = {}
        for index, patch in enumerate(patches):
            patch.created_at_us = patch.created_at_us or now_us
            patch.modified_at_us = patch.modified_at_us or patch.created_at_us
            try:
                await self._name_project(patch, project_names.get(index))
                validate_feedback(patch)
                await self._check_project(patch)
            except RunstoreError as error:
                if error.reason is not ErrorReason.INVALID_ARGUMENT:
                    raise
                refused[index] = error
            else:
                good.append(patch)
        return await self._log.write_feedback(good), refused

    async def update(self, patch: FeedbackPatch) -> Feedback:
        """The record with the given fields changed, durably. Raises NOT_FOUND."""
        record = await self._find(patch.tenant_id, patch.feedback_id)
        _place(patch, record)
        patch.modified_at_us = self._clock.now_us()
        validate_feedback(patch)
        await self._log.write_feedback([patch])
        return replace(
            record,
            modified_at_us=patch.modified_at_us,
            score=record.score if patch.score is None else patch.score,
            value=record.value if patch.value is None else patch.value,
            comment=record.comment if patch.comment is None else patch.comment,
            correction=record.correction if patch.correction is None else patch.correction,
        )

    async def delete(self, tenant_id: str, feedback_id: str) -> None:
        """Return once the record is durably gone. Raises NOT_FOUND."""
        patch = FeedbackPatch(tenant_id, feedback_id, None, FeedbackAction.DELETE)
        _place(patch, await self._find(tenant_id, feedback_id))
        patch.modified_at_us = self._clock.now_us()
        await self._log.write_feedback([patch])

    async def _name_project(self, patch: FeedbackPatch, name: str | None) -> None:
        if patch.project_id is None and name is not None:
            patch.project_id = (await self._projects.named(patch.tenant_id, [name])).get(name)
            if patch.project_id is None:
                raise invalid("project_name", f"there is no project {name}")

    async def _check_project(self, patch: FeedbackPatch) -> None:
        project_id = patch.project_id
        if project_id is not None and not await self._projects.exists(patch.tenant_id, project_id):
            raise invalid("project_id", f"there is no project {project_id}")

    async def _find(self, tenant_id: str, feedback_id: str) -> Feedback:
        await self._writes.see_writes(tenant_id)
        record = await self._store.get(tenant_id, feedback_id)
        if record is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no feedback {feedback_id}", field="id")
        return record


def _place(patch: FeedbackPatch, record: Feedback) -> None:
    """Rows of a record stand under its run; readers of its project wait for them."""
    patch.run_id, patch.project_id = record.run_id, record.project_id
