"""What is in annotation queues, and how far its reviewers are."""

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, Update, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.domain.annotation_queues import (
    ItemFilter,
    ItemPlace,
    ItemType,
    NewItem,
    QueueItem,
    ReviewStatus,
    Section,
)
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.clock import Clock

_queues = tables.annotation_queues.c
_items = tables.queue_items.c
_reviews = tables.queue_reviews.c
# SQLite takes at most 32,766 parameters in a statement; an item needs twelve.
_ROWS_A_STATEMENT = 1_000


class QueueItemCatalog:
    """Reads and writes items, always inside one tenant.

    A reviewer is any text that stands for one person or key. Every method raises NOT_FOUND when the tenant
    does not have the queue, or the item, and may raise UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self, tenant_id: str, queue_id: str, reviewer: str, items: Sequence[NewItem]
    ) -> list[QueueItem]:
        """Adds what is not there yet; all or nothing. Answers the items of all, each once, in order."""
        try:
            return await self._add(tenant_id, queue_id, reviewer, items)
        except Conflict:  # Somebody else has added one of them, or deleted the queue, in between.
            return await self.add(tenant_id, queue_id, reviewer, items)

    async def _add(
        self, tenant_id: str, queue_id: str, reviewer: str, items: Sequence[NewItem]
    ) -> list[QueueItem]:
        by_subject = {_subject(item): item for item in items}
        subjects = list(by_subject)
        async with self._database.write() as connection:
            await _check_queue(connection, tenant_id, queue_id)
            present = await self._present(connection, queue_id, subjects)
            now_us = self._clock.now_us()
            # A microsecond apart, so that items keep the order in which they were given.
            rows = [
                _row(queue_id, subject, by_subject[subject], now_us + number)
                for number, subject in enumerate(subjects)
                if subject not in present
            ]
            # In one order for all writers, so that no two of them wait for each other.
            rows.sort(key=lambda row: row["subject"])
            for start in range(0, len(rows), _ROWS_A_STATEMENT):
                await connection.execute(insert(tables.queue_items), rows[start : start + _ROWS_A_STATEMENT])
            ids = {**present, **{row["subject"]: row["id"] for row in rows}}
            found: dict[str, QueueItem] = {}
            for some in _chunks([ids[subject] for subject in subjects]):
                query = _selected(reviewer).where(_items.id.in_(some))
                found |= {item.id: item for item in await _read(connection, query)}
        return [found[ids[subject]] for subject in subjects]

    async def _present(
        self, connection: AsyncConnection, queue_id: str, subjects: Sequence[str]
    ) -> dict[str, str]:
        present: dict[str, str] = {}
        for some in _chunks(subjects):
            query = select(_items.subject, _items.id).where(
                _items.queue_id == queue_id, _items.subject.in_(some)
            )
            present |= {row.subject: row.id for row in await connection.execute(query)}
        return present

    async def page(
        self,
        tenant_id: str,
        condition: ItemFilter,
        *,
        offset: int = 0,
        limit: int,
        after: ItemPlace | None = None,
        backward: bool = False,
    ) -> list[QueueItem]:
        """Items by their place for the reviewer: `limit` of them behind `after`, or before it if `backward`;
        the answer is in forward order either way."""
        query = _where(_selected(condition.reviewer), condition)
        if after is not None:
            place = (after.effective_added_at_us, after.item_id)
            query = query.where(_is_beyond(*place, backward=backward))
        ordering = [_PLACE, _items.id]
        ordered = query.order_by(*(column.desc() if backward else column for column in ordering))
        async with self._database.read() as connection:
            await _check_queue(connection, tenant_id, condition.queue_id)
            items = await _read(connection, ordered.offset(offset).limit(limit))
            items = await self._with_reviewers(connection, condition.queue_id, items)
        return items[::-1] if backward else items

    async def _with_reviewers(
        self, connection: AsyncConnection, queue_id: str, items: Sequence[QueueItem]
    ) -> list[QueueItem]:
        """The items with who has completed and reserved them."""
        queue = (
            await connection.execute(select(tables.annotation_queues).where(_queues.id == queue_id))
        ).one()
        minutes = queue.reservation_minutes or 0
        since_us = self._clock.now_us() - minutes * 60_000_000 if queue.enable_reservations else None
        completed, reserved = defaultdict(list), defaultdict(list)
        for some in _chunks([item.id for item in items]):
            query = select(tables.queue_reviews).where(_reviews.item_id.in_(some)).order_by(_reviews.reviewer)
            for review in await connection.execute(query):
                if review.status == ReviewStatus.COMPLETED:
                    completed[review.item_id].append(review.reviewer)
                elif since_us is not None and review.reviewed_at_us >= since_us and review.status:
                    reserved[review.item_id].append(review.reviewer)
        return [
            replace(item, completed_by=tuple(completed[item.id]), reserved_by=tuple(reserved[item.id]))
            for item in items
        ]

    async def count(self, tenant_id: str, condition: ItemFilter) -> int:
        """How many items meet `condition`."""
        query = _where(_joined(select(func.count()), condition.reviewer), condition)
        async with self._database.read() as connection:
            await _check_queue(connection, tenant_id, condition.queue_id)
            return int((await connection.execute(query)).scalar_one())

    async def placement(
        self, tenant_id: str, queue_id: str, item_id: str, reviewer: str
    ) -> tuple[QueueItem, int, ItemPlace | None]:
        """The item, how many of its section come before it, and the place of the last of them."""
        async with self._database.read() as connection:
            await _check_queue(connection, tenant_id, queue_id)
            item = await _one(connection, queue_id, item_id, reviewer)
            condition = ItemFilter(queue_id=queue_id, reviewer=reviewer, section=item.section)
            before = _is_beyond(item.effective_added_at_us, item.id, backward=True)
            counting = _where(_joined(select(func.count()), reviewer), condition).where(before)
            position = int((await connection.execute(counting)).scalar_one())
            query = _where(_selected(reviewer), condition).where(before)
            last = await _read(connection, query.order_by(_PLACE.desc(), _items.id.desc()).limit(1))
        return item, position, ItemPlace(last[0].effective_added_at_us, last[0].id) if last else None

    async def update(
        self,
        tenant_id: str,
        queue_id: str,
        item_id: str,
        reviewer: str,
        *,
        added_at_us: int | None,
        last_reviewed_at_us: int | None,
    ) -> QueueItem:
        """Changes the times that are given; `item_id` may be the run's."""
        times = {"added_at_us": added_at_us, "last_reviewed_at_us": last_reviewed_at_us}
        changes = {key: value for key, value in times.items() if value is not None}
        async with self._database.write() as connection:
            await _check_queue(connection, tenant_id, queue_id)
            item = await _one(connection, queue_id, item_id, reviewer)
            if changes:
                await connection.execute(
                    update(tables.queue_items).where(_items.id == item.id).values(changes)
                )
            return await _one(connection, queue_id, item.id, reviewer)

    async def review(
        self,
        tenant_id: str,
        item_id: str,
        reviewer: str,
        status: ReviewStatus | None,
        override_added_at_us: int | None,
    ) -> QueueItem:
        """Notes what the reviewer has done (None takes it back) and archives the item, or brings it back."""
        now_us = self._clock.now_us()
        query = (
            select(_items.queue_id, _queues.num_reviewers_per_item)
            .join(tables.annotation_queues, _queues.id == _items.queue_id)
            .where(_items.id == item_id, _queues.tenant_id == tenant_id)
            # Reviewers and who changes their number take turns: each counts the others' reviews.
            .with_for_update(of=tables.annotation_queues, key_share=True)
        )
        review = {
            "status": status,
            "reviewed_at_us": now_us,
            "override_added_at_us": override_added_at_us,
        }
        try:
            async with self._database.write() as connection:
                row = (await connection.execute(query)).one_or_none()
                if row is None:
                    raise _no_item(item_id)
                await _put_review(connection, item_id, reviewer, review)
                archiving = archive_by_reviews(row.num_reviewers_per_item, now_us)
                if status is not None:
                    archiving = archiving.values(last_reviewed_at_us=now_us)
                await connection.execute(archiving.where(_items.id == item_id))
                item = await _one(connection, row.queue_id, item_id, reviewer)
                [item] = await self._with_reviewers(connection, row.queue_id, [item])
                return item
        except Conflict as error:  # Removed in between.
            raise _no_item(item_id) from error

    async def remove(
        self, tenant_id: str, queue_id: str, ids: Sequence[str], *, all_but_ids: bool = False
    ) -> int:
        """Removes items by their ids or their runs', or all others; says how many there were."""
        named = or_(_items.id.in_(ids), _items.run_id.in_(ids))
        statement = delete(tables.queue_items).where(_items.queue_id == queue_id)
        statement = statement.where(
            or_(_items.run_id.is_(None), _items.run_id.not_in(ids)) & _items.id.not_in(ids)
            if all_but_ids
            else named
        )
        async with self._database.write() as connection:
            await _check_queue(connection, tenant_id, queue_id)
            return (await connection.execute(statement)).rowcount


def archive_by_reviews(num_reviewers: int | None, now_us: int) -> Update:
    """Archives items that enough reviewers have completed, brings back the others; to be bounded."""
    completions = (
        select(func.count())
        .where(_reviews.item_id == _items.id, _reviews.status == ReviewStatus.COMPLETED)
        .scalar_subquery()
    )
    is_done = completions >= (num_reviewers or 1)
    return update(tables.queue_items).values(
        archived_at_us=case((is_done, func.coalesce(_items.archived_at_us, now_us)), else_=None)
    )


# The place of an item for one reviewer, in a query by `_joined`.
_PLACE: Any = func.coalesce(_reviews.override_added_at_us, _items.added_at_us)
_IS_MINE = func.coalesce(_reviews.status, "") == ReviewStatus.COMPLETED
_SECTION: Any = case(
    (_items.archived_at_us.is_not(None), Section.ARCHIVED.value),
    (_IS_MINE, Section.NEEDS_OTHERS_REVIEW.value),
    else_=Section.NEEDS_MY_REVIEW.value,
)


def _joined(query: Select[Any], reviewer: str) -> Select[Any]:
    mine = and_(_reviews.item_id == _items.id, _reviews.reviewer == reviewer)
    return query.select_from(tables.queue_items.outerjoin(tables.queue_reviews, mine))


def _selected(reviewer: str) -> Select[Any]:
    columns = [column for column in _items if column.name != "subject"]
    return _joined(
        select(*columns, _PLACE.label("effective_added_at_us"), _SECTION.label("section")), reviewer
    )


def _where(query: Select[Any], condition: ItemFilter) -> Select[Any]:
    query = query.where(_items.queue_id == condition.queue_id)
    if condition.section is Section.ACTIVE:
        query = query.where(_items.archived_at_us.is_(None))
    elif condition.section is not None:
        query = query.where(condition.section.value == _SECTION)
    if condition.type is not None:
        query = query.where(_items.type == condition.type.value)
    if condition.min_start_time_us is not None:
        query = query.where(_items.start_time_us >= condition.min_start_time_us)
    if condition.max_start_time_us is not None:
        query = query.where(_items.start_time_us <= condition.max_start_time_us)
    if condition.archived_after_us is not None:
        query = query.where(_items.archived_at_us > condition.archived_after_us)
    if condition.archived_before_us is not None:
        query = query.where(_items.archived_at_us < condition.archived_before_us)
    return query


def _is_beyond(place_us: int, item_id: str, *, backward: bool) -> Any:
    if backward:
        return or_(place_us > _PLACE, and_(place_us == _PLACE, _items.id < item_id))
    return or_(place_us < _PLACE, and_(place_us == _PLACE, _items.id > item_id))


async def _check_queue(connection: AsyncConnection, tenant_id: str, queue_id: str) -> None:
    query = select(_queues.id).where(_queues.tenant_id == tenant_id, _queues.id == queue_id)
    if (await connection.execute(query)).one_or_none() is None:
        raise RunstoreError(ErrorReason.NOT_FOUND, f"no annotation queue with id {queue_id}", field="id")


async def _read(connection: AsyncConnection, query: Select[Any]) -> list[QueueItem]:
    rows = (row._mapping for row in await connection.execute(query))
    return [
        QueueItem(**{**row, "type": ItemType(row["type"]), "section": Section(row["section"])})
        for row in rows
    ]


async def _one(connection: AsyncConnection, queue_id: str, item_id: str, reviewer: str) -> QueueItem:
    is_named = or_(_items.id == item_id, _items.run_id == item_id)
    found = await _read(connection, _selected(reviewer).where(_items.queue_id == queue_id, is_named))
    if not found:
        raise _no_item(item_id)
    return found[0]


async def _put_review(
    connection: AsyncConnection, item_id: str, reviewer: str, review: dict[str, Any]
) -> None:
    mine = and_(_reviews.item_id == item_id, _reviews.reviewer == reviewer)
    changed = await connection.execute(update(tables.queue_reviews).where(mine).values(review))
    if not changed.rowcount:
        row = {"item_id": item_id, "reviewer": reviewer, **review}
        await connection.execute(insert(tables.queue_reviews).values(row))


def _subject(item: NewItem) -> str:
    if item.run_id is not None:
        return item.run_id
    return hashlib.sha256(f"{item.project_id}/{item.thread_id}".encode()).hexdigest()


def _row(queue_id: str, subject: str, item: NewItem, added_at_us: int) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "queue_id": queue_id,
        "type": ItemType.RUN if item.run_id is not None else ItemType.THREAD,
        "subject": subject,
        "project_id": item.project_id,
        "run_id": item.run_id,
        "thread_id": item.thread_id,
        "start_time_us": item.start_time_us,
        "source_proposed_example_id": item.source_proposed_example_id,
        "added_at_us": added_at_us,
    }


def _chunks(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _ROWS_A_STATEMENT] for start in range(0, len(values), _ROWS_A_STATEMENT)]


def _no_item(item_id: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"no item with id {item_id} in the queue", field="id")
