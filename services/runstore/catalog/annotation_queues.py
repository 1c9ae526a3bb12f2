"""Annotation queues in the catalog; what is in them is `queue_items`' part."""

import dataclasses
from typing import Any

import msgspec
from sqlalchemy import Row, Select, and_, delete, exists, func, insert, select, update

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.queue_items import archive_by_reviews
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_description, check_name, json_object
from runstore.domain.annotation_queues import MAX_QUEUE_PAGE, AnnotationQueue, QueueFilter, QueuePatch
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.runtime.clock import Clock

MAX_REVIEWERS = 100
_MAX_RESERVATION_MINUTES = 60 * 24 * 365
_ACCESS_MODES = ("any", "assigned")

_queues = tables.annotation_queues.c
_items = tables.queue_items.c


class AnnotationQueueCatalog:
    """Reads and writes queues, always inside one tenant.

    Ids are canonical UUID text. Every method may raise RunstoreError UNAVAILABLE when the database does not
    answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, queue: AnnotationQueue) -> AnnotationQueue:
        """Stores `queue` as given and returns it.

        Raises ALREADY_EXISTS when its name or id is taken, INVALID_ARGUMENT for what cannot be stored.
        """
        check_name("name", queue.name)
        _check_settings(queue)
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.annotation_queues).values(dataclasses.asdict(queue)))
        except Conflict as error:
            raise await self._taken(queue) from error
        return queue

    async def _taken(self, queue: AnnotationQueue) -> RunstoreError:
        query = select(_queues.id).where(_queues.tenant_id == queue.tenant_id, _queues.name == queue.name)
        async with self._database.read() as connection:
            named = (await connection.execute(query)).one_or_none()
        if named is not None:
            return _name_taken(queue.name)
        return RunstoreError(ErrorReason.ALREADY_EXISTS, "a queue of this id already exists", field="id")

    async def get(self, tenant_id: str, queue_id: str) -> AnnotationQueue:
        """Raises NOT_FOUND when the tenant has no such queue."""
        query = select(tables.annotation_queues).where(_is(tenant_id, queue_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _not_found(queue_id)
        return _queue(row)

    async def list(self, tenant_id: str, condition: QueueFilter) -> list[tuple[AnnotationQueue, int]]:
        """The page `offset`, `limit` of the queues that meet `condition`, each with its number of items."""
        page = _listing(tenant_id, condition).offset(condition.offset)
        async with self._database.read() as connection:
            rows = await connection.execute(page.limit(min(condition.limit, MAX_QUEUE_PAGE)))
            queues = [_queue(row) for row in rows]
            counting = (
                select(_items.queue_id, func.count())
                .where(_items.queue_id.in_([queue.id for queue in queues]))
                .group_by(_items.queue_id)
            )
            counts = {row[0]: row[1] for row in await connection.execute(counting)}
        return [(queue, counts.get(queue.id, 0)) for queue in queues]

    async def update(self, tenant_id: str, queue_id: str, patch: QueuePatch) -> AnnotationQueue:
        """Applies what `patch` sets and returns the result; a new number of reviewers holds for all items.

        Raises NOT_FOUND, ALREADY_EXISTS when the new name is taken, INVALID_ARGUMENT like `create`.
        """
        if patch.name is not None:
            check_name("name", patch.name)
        _check_settings(patch)
        changes = {key: value for key, value in dataclasses.asdict(patch).items() if value is not None}
        statement = (
            update(tables.annotation_queues)
            .where(_is(tenant_id, queue_id))
            .values(**changes, updated_at_us=self._clock.now_us())
        )
        try:
            async with self._database.write() as connection:
                changed = (await connection.execute(statement)).rowcount
                if changed and patch.num_reviewers_per_item is not None:
                    archiving = archive_by_reviews(patch.num_reviewers_per_item, self._clock.now_us())
                    await connection.execute(archiving.where(_items.queue_id == queue_id))
        except Conflict as error:
            raise _name_taken(patch.name or "") from error
        if not changed:
            raise _not_found(queue_id)
        return await self.get(tenant_id, queue_id)

    async def delete(self, tenant_id: str, queue_id: str) -> None:
        """Removes the queue and its items. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            statement = delete(tables.annotation_queues).where(_is(tenant_id, queue_id))
            deleted = (await connection.execute(statement)).rowcount
        if not deleted:
            raise _not_found(queue_id)


def _is(tenant_id: str, queue_id: str) -> Any:
    return and_(_queues.tenant_id == tenant_id, _queues.id == queue_id)


def _listing(tenant_id: str, condition: QueueFilter) -> Select[Any]:
    query = select(tables.annotation_queues).where(_queues.tenant_id == tenant_id)
    if condition.ids:
        query = query.where(_queues.id.in_(condition.ids))
    if condition.name is not None:
        query = query.where(_queues.name == condition.name)
    if condition.name_contains is not None:
        query = query.where(has_part(_queues.name, condition.name_contains))
    if condition.default_dataset_id is not None:
        query = query.where(_queues.default_dataset_id == condition.default_dataset_id)
    if condition.run_id is not None:
        query = query.where(exists().where(_items.run_id == condition.run_id, _items.queue_id == _queues.id))
    if condition.descending:
        return query.order_by(_queues.created_at_us.desc(), _queues.id.desc())
    return query.order_by(_queues.created_at_us, _queues.id)


def _check_settings(queue: AnnotationQueue | QueuePatch) -> None:
    check_description("description", queue.description)
    check_description("rubric_instructions", queue.rubric_instructions)
    if queue.metadata is not None:
        json_object("metadata", queue.metadata)
    if queue.rubric_items is not None:
        try:
            msgspec.json.decode(queue.rubric_items, type=list[dict[str, Any]])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid("rubric_items", "rubric_items is not a JSON array of objects") from error
    _check_range("num_reviewers_per_item", queue.num_reviewers_per_item, MAX_REVIEWERS)
    _check_range("reservation_minutes", queue.reservation_minutes, _MAX_RESERVATION_MINUTES)
    if queue.reviewer_access_mode not in (None, *_ACCESS_MODES):
        raise invalid("reviewer_access_mode", f"must be one of {', '.join(_ACCESS_MODES)}")


def _check_range(field: str, value: int | None, most: int) -> None:
    if value is not None and not 1 <= value <= most:
        raise invalid(field, f"must be between 1 and {most}")


def _queue(row: Row[Any]) -> AnnotationQueue:
    return AnnotationQueue(**row._mapping)


def _not_found(queue_id: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"no annotation queue with id {queue_id}", field="id")


def _name_taken(name: str) -> RunstoreError:
    return RunstoreError(
        ErrorReason.ALREADY_EXISTS, f"an annotation queue named {name!r} already exists", field="name"
    )
