"""Reads feedback: single records, lists and statistics."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final, Protocol

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import Feedback, FeedbackByKey, FeedbackQuery
from runstore.domain.runs import RunPlace
from runstore.query.list_runs import MAX_IDS, MAX_PROJECTS, Writes
from runstore.storage.run_store import FeedbackStore

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1_000
MAX_TEXTS: Final = 1_000
"""Keys, sources or users in a condition."""


class Runs(Protocol):
    """Where runs are."""

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]: ...


class ReadFeedback:
    """Answers questions about feedback; they see every write that was acknowledged before."""

    def __init__(self, store: FeedbackStore, runs: Runs, writes: Writes) -> None:
        self._store = store
        self._runs = runs
        self._writes = writes

    async def get(self, tenant_id: str, feedback_id: str) -> Feedback:
        """A record. Raises NOT_FOUND."""
        await self._writes.see_writes(tenant_id)
        record = await self._store.get(tenant_id, feedback_id)
        if record is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no feedback {feedback_id}", field="id")
        return (await self._placed(tenant_id, [record]))[0]

    async def page(self, query: FeedbackQuery, offset: int, page_size: int) -> list[Feedback]:
        """Records, the last created first. Raises INVALID_ARGUMENT."""
        for field, number in (("offset", offset), ("page_size", page_size)):
            if number < 0:
                raise invalid(field, "must not be negative")
        _check(query)
        limit = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        await self._writes.see_writes(query.tenant_id, query.project_ids)
        records = await self._store.page(replace(query, offset=offset, limit=limit))
        return await self._placed(query.tenant_id, records)

    async def stats(self, query: FeedbackQuery) -> FeedbackByKey:
        """All records of the query summed up. Raises INVALID_ARGUMENT."""
        _check(query)
        await self._writes.see_writes(query.tenant_id, query.project_ids)
        return await self._store.stats(query)

    async def _placed(self, tenant_id: str, records: list[Feedback]) -> list[Feedback]:
        """The records with trace and project of their runs, where they were not told and the run is known."""
        asked = {
            record.run_id
            for record in records
            if record.run_id is not None and (record.trace_id is None or record.project_id is None)
        }
        places = await self._runs.places(tenant_id, asked) if asked else {}
        return [_placed_at(record, places.get(record.run_id or "")) for record in records]


def _placed_at(record: Feedback, place: RunPlace | None) -> Feedback:
    if place is None:
        return record
    return replace(
        record,
        trace_id=record.trace_id or place.trace_id,
        project_id=record.project_id or place.key.project_id,
    )


def _check(query: FeedbackQuery) -> None:
    for field, values, most in (
        ("run_ids", query.run_ids, MAX_IDS),
        ("project_ids", query.project_ids, MAX_PROJECTS),
        ("keys", query.keys, MAX_TEXTS),
        ("source_types", query.source_types, MAX_TEXTS),
        ("user_ids", query.user_ids, MAX_TEXTS),
    ):
        if len(values) > most:
            raise invalid(field, f"more than {most}")
