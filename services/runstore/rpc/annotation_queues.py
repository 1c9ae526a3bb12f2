"""Serves `AnnotationQueueService`."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.catalog import Catalog
from runstore.domain.annotation_queues import (
    MAX_QUEUE_PAGE,
    AnnotationQueue,
    ItemFilter,
    ItemPlace,
    ItemType,
    NewItem,
    QueueFilter,
    QueueItem,
    QueuePatch,
    ReviewStatus,
    Section,
)
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.runs import Position, RunField, RunQuery
from runstore.ingest.validation import uuid_text
from runstore.query.cursors import PageTokens, query_hash
from runstore.query.list_runs import ListRuns
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import ids, optional_time_us, set_time
from runstore.rpc.retention import Keeps
from runstore.runtime.clock import Clock
from runstore.v1 import annotation_queue_service_pb2 as pb
from runstore.v1 import annotation_queue_service_pb2_grpc

MAX_ITEMS: Final = 10_000
_MAX_THREAD_ID_CHARACTERS: Final = 1_024
_DEFAULT_PAGE_SIZE: Final = 100
_RUNS_A_PAGE: Final = 1_000
_KEY_FIELDS: Final = frozenset({RunField.ID, RunField.PROJECT_ID, RunField.START_TIME})
_SECTIONS: Final = {
    pb.QUEUE_SECTION_NEEDS_MY_REVIEW: Section.NEEDS_MY_REVIEW,
    pb.QUEUE_SECTION_NEEDS_OTHERS_REVIEW: Section.NEEDS_OTHERS_REVIEW,
    pb.QUEUE_SECTION_ARCHIVED: Section.ARCHIVED,
    pb.QUEUE_SECTION_ACTIVE: Section.ACTIVE,
}
_TYPES: Final = {pb.QUEUE_ITEM_TYPE_RUN: ItemType.RUN, pb.QUEUE_ITEM_TYPE_THREAD: ItemType.THREAD}
_STATUSES: Final = {
    pb.REVIEW_STATUS_VIEWED: ReviewStatus.VIEWED,
    pb.REVIEW_STATUS_COMPLETED: ReviewStatus.COMPLETED,
}
_SECTION_NUMBERS: Final = {section: number for number, section in _SECTIONS.items()}
_TYPE_NUMBERS: Final = {kind: number for number, kind in _TYPES.items()}
_OPTIONAL: Final = (
    *("description", "rubric_instructions", "rubric_items", "metadata", "default_dataset_id"),
    *("num_reviewers_per_item", "enable_reservations", "reservation_minutes", "reviewer_access_mode"),
)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AnnotationQueueServicer(annotation_queue_service_pb2_grpc.AnnotationQueueServiceServicer):
    """Maps calls to the catalog; looks up the runs that are put into queues."""

    def __init__(
        self, catalog: Catalog, runs: ListRuns, page_tokens: PageTokens, keeps: Keeps, clock: Clock
    ) -> None:
        self._queues = catalog.annotation_queues
        self._items = catalog.queue_items
        self._projects = catalog.projects
        self._runs = runs
        self._keeps = keeps
        self._page_tokens = page_tokens
        self._clock = clock

    async def CreateAnnotationQueue(
        self, request: pb.CreateAnnotationQueueRequest, context: _Context
    ) -> pb.CreateAnnotationQueueResponse:
        queue, now_us = request.queue, self._clock.now_us()
        created = await self._queues.create(
            AnnotationQueue(
                id=uuid_text("id", queue.id) if queue.id else str(uuid.uuid4()),
                tenant_id=_tenant_id(),
                name=queue.name,
                created_at_us=now_us,
                updated_at_us=now_us,
                **_settings(queue),
            )
        )
        return pb.CreateAnnotationQueueResponse(queue=_queue_message(created))

    async def GetAnnotationQueue(
        self, request: pb.GetAnnotationQueueRequest, context: _Context
    ) -> pb.GetAnnotationQueueResponse:
        queue = await self._queues.get(_tenant_id(), uuid_text("id", request.id))
        return pb.GetAnnotationQueueResponse(queue=_queue_message(queue))

    async def ListAnnotationQueues(
        self, request: pb.ListAnnotationQueuesRequest, context: _Context
    ) -> pb.ListAnnotationQueuesResponse:
        _check_not_negative(request, "offset", "page_size")
        condition = QueueFilter(
            ids=ids("ids", request.ids),
            name=request.name if request.HasField("name") else None,
            name_contains=request.name_contains if request.HasField("name_contains") else None,
            run_id=_optional_id(request, "run_id"),
            default_dataset_id=_optional_id(request, "default_dataset_id"),
            descending=not request.oldest_first,
            offset=request.offset,
            limit=min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_QUEUE_PAGE),
        )
        queues = await self._queues.list(_tenant_id(), condition)
        return pb.ListAnnotationQueuesResponse(queues=[_queue_message(*each) for each in queues])

    async def UpdateAnnotationQueue(
        self, request: pb.UpdateAnnotationQueueRequest, context: _Context
    ) -> pb.UpdateAnnotationQueueResponse:
        patch = QueuePatch(name=request.queue.name or None, **_settings(request.queue))
        updated = await self._queues.update(_tenant_id(), uuid_text("id", request.queue.id), patch)
        return pb.UpdateAnnotationQueueResponse(queue=_queue_message(updated))

    async def DeleteAnnotationQueue(
        self, request: pb.DeleteAnnotationQueueRequest, context: _Context
    ) -> pb.DeleteAnnotationQueueResponse:
        await self._queues.delete(_tenant_id(), uuid_text("id", request.id))
        return pb.DeleteAnnotationQueueResponse()

    async def AddQueueItems(
        self, request: pb.AddQueueItemsRequest, context: _Context
    ) -> pb.AddQueueItemsResponse:
        if len(request.items) > MAX_ITEMS:
            raise invalid("items", f"more than {MAX_ITEMS}")
        queue_id = uuid_text("queue_id", request.queue_id)
        items = await self._new_items(request.items)
        if request.keeps_traces or not request.HasField("keeps_traces"):
            await self._keep(items)
        added = await self._items.add(_tenant_id(), queue_id, _reviewer(), items)
        return pb.AddQueueItemsResponse(items=[_item_message(item) for item in added])

    async def _keep(self, items: Sequence[NewItem]) -> None:
        """Keep the traces of the runs; before they are in the queue, so that no crash comes between."""
        run_ids = [item.run_id for item in items if item.run_id is not None]
        if run_ids:
            await self._keeps.write_keep(_tenant_id(), run_ids=run_ids)

    async def _new_items(self, keys: Any) -> list[NewItem]:
        """The items to add: runs with what is stored of them. Raises NOT_FOUND for what is not there."""
        run_ids = [
            uuid_text(f"items[{index}].run_id", key.run_id)
            for index, key in enumerate(keys)
            if key.HasField("run_id")
        ]
        known = await self._known_runs(run_ids)
        items = []
        for index, key in enumerate(keys):
            source = _optional_id(key, "source_proposed_example_id", f"items[{index}].")
            if key.HasField("run_id"):
                run_id = uuid_text("run_id", key.run_id)
                project_id, start_time_us = known[run_id]
                item = NewItem(project_id=project_id, run_id=run_id, start_time_us=start_time_us)
            else:
                item = await self._thread_item(key, f"items[{index}]")
            items.append(replace(item, source_proposed_example_id=source))
        return items

    async def _thread_item(self, key: pb.QueueItemKey, place: str) -> NewItem:
        if not 0 < len(key.thread_id) <= _MAX_THREAD_ID_CHARACTERS or "\0" in key.thread_id:
            raise invalid(f"{place}.thread_id", "run_id, or thread_id with project_id, is needed")
        project_id = uuid_text(f"{place}.project_id", key.project_id)
        if not await self._projects.exists(_tenant_id(), project_id):
            raise RunstoreError(ErrorReason.NOT_FOUND, f"no project with id {project_id}", field="project_id")
        start_time_us = optional_time_us(key, "start_time")
        return NewItem(project_id=project_id, thread_id=key.thread_id, start_time_us=start_time_us)

    async def _known_runs(self, run_ids: list[str]) -> dict[str, tuple[str, int]]:
        known: dict[str, tuple[str, int]] = {}
        for start in range(0, len(run_ids), _RUNS_A_PAGE):
            some = tuple(dict.fromkeys(run_ids[start : start + _RUNS_A_PAGE]))
            page = await self._runs.page(RunQuery(_tenant_id(), _KEY_FIELDS, run_ids=some), _RUNS_A_PAGE, "")
            for run in page.runs:
                known[str(run.values[RunField.ID])] = (
                    str(run.values[RunField.PROJECT_ID]),
                    run.position.start_time_us,
                )
        for run_id in run_ids:
            if run_id not in known:
                raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no run {run_id}", field="run_id")
        return known

    async def PopulateAnnotationQueue(
        self, request: pb.PopulateAnnotationQueueRequest, context: _Context
    ) -> pb.PopulateAnnotationQueueResponse:
        tenant_id, queue_id = _tenant_id(), uuid_text("queue_id", request.queue_id)
        await self._queues.get(tenant_id, queue_id)
        project_ids = ids("project_ids", request.project_ids)
        for project_id in project_ids:
            if (await self._projects.get(tenant_id, project_id)).reference_dataset_id is None:
                raise invalid("project_ids", f"{project_id} is no experiment: it refers to no dataset")
        count = 0
        for project_id in project_ids:
            query = RunQuery(
                tenant_id, _KEY_FIELDS, project_ids=(project_id,), is_root=True, descending=False
            )
            token, is_last = "", False
            while not is_last:
                page = await self._runs.page(query, _RUNS_A_PAGE, token)
                items = [
                    NewItem(
                        project_id=project_id,
                        run_id=str(run.values[RunField.ID]),
                        start_time_us=run.position.start_time_us,
                    )
                    for run in page.runs
                ]
                await self._keep(items)
                count += len(await self._items.add(tenant_id, queue_id, _reviewer(), items))
                token = page.next_page_token
                is_last = not token
        return pb.PopulateAnnotationQueueResponse(run_count=count)

    async def ListQueueItems(
        self, request: pb.ListQueueItemsRequest, context: _Context
    ) -> pb.ListQueueItemsResponse:
        _check_not_negative(request, "offset", "page_size")
        if request.page_token and request.offset:
            raise invalid("offset", "cannot be given with a page token")
        if request.backward and not request.page_token:
            raise invalid("page_token", "needed to list backward")
        condition = _condition(request.condition)
        asked = query_hash("queue_items", _tenant_id(), condition)
        after = _place(self._page_tokens.decode(request.page_token, asked)) if request.page_token else None
        limit = min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_QUEUE_PAGE)
        items = await self._items.page(
            _tenant_id(),
            condition,
            offset=request.offset,
            limit=limit + 1,
            after=after,
            backward=request.backward,
        )
        has_more = len(items) > limit
        items = items[-limit:] if request.backward else items[:limit]
        token = self._token(items[0] if request.backward else items[-1], asked) if has_more else ""
        return pb.ListQueueItemsResponse(items=[_item_message(item) for item in items], next_page_token=token)

    def _token(self, item: QueueItem, asked: bytes) -> str:
        return self._page_tokens.encode(Position(item.effective_added_at_us, item.id), asked)

    async def CountQueueItems(
        self, request: pb.CountQueueItemsRequest, context: _Context
    ) -> pb.CountQueueItemsResponse:
        count = await self._items.count(_tenant_id(), _condition(request.condition))
        return pb.CountQueueItemsResponse(count=count)

    async def GetQueueItemPlacement(
        self, request: pb.GetQueueItemPlacementRequest, context: _Context
    ) -> pb.GetQueueItemPlacementResponse:
        queue_id = uuid_text("queue_id", request.queue_id)
        item_id = uuid_text("item_id", request.item_id)
        item, position, before = await self._items.placement(_tenant_id(), queue_id, item_id, _reviewer())
        condition = ItemFilter(queue_id=queue_id, reviewer=_reviewer(), section=item.section)
        asked = query_hash("queue_items", _tenant_id(), condition)
        return pb.GetQueueItemPlacementResponse(
            section=_SECTION_NUMBERS[item.section],
            type=_TYPE_NUMBERS[item.type],
            position=position,
            page_token=(
                self._page_tokens.encode(Position(before.effective_added_at_us, before.item_id), asked)
                if before
                else ""
            ),
        )

    async def UpdateQueueItem(
        self, request: pb.UpdateQueueItemRequest, context: _Context
    ) -> pb.UpdateQueueItemResponse:
        item = await self._items.update(
            _tenant_id(),
            uuid_text("queue_id", request.queue_id),
            uuid_text("item_id", request.item_id),
            _reviewer(),
            added_at_us=optional_time_us(request, "add_time"),
            last_reviewed_at_us=optional_time_us(request, "last_review_time"),
        )
        return pb.UpdateQueueItemResponse(item=_item_message(item))

    async def ReviewQueueItem(
        self, request: pb.ReviewQueueItemRequest, context: _Context
    ) -> pb.ReviewQueueItemResponse:
        item = await self._items.review(
            _tenant_id(),
            uuid_text("item_id", request.item_id),
            _reviewer(),
            _STATUSES.get(request.status),
            optional_time_us(request, "override_add_time"),
        )
        return pb.ReviewQueueItemResponse(item=_item_message(item))

    async def RemoveQueueItems(
        self, request: pb.RemoveQueueItemsRequest, context: _Context
    ) -> pb.RemoveQueueItemsResponse:
        if len(request.ids) > MAX_ITEMS:
            raise invalid("ids", f"more than {MAX_ITEMS}")
        count = await self._items.remove(
            _tenant_id(),
            uuid_text("queue_id", request.queue_id),
            ids("ids", request.ids),
            all_but_ids=request.all_but_ids,
        )
        return pb.RemoveQueueItemsResponse(count=count)


def _tenant_id() -> str:
    return current_principal.get().tenant_id


def _reviewer() -> str:
    """Keys stand for people; without authentication all callers are one."""
    principal = current_principal.get()
    return principal.key_id or principal.tenant_id


def _check_not_negative(request: Any, *fields: str) -> None:
    for field in fields:
        if getattr(request, field) < 0:
            raise invalid(field, "must not be negative")


def _optional_id(message: Any, field: str, place: str = "") -> str | None:
    return uuid_text(place + field, getattr(message, field)) if message.HasField(field) else None


def _settings(queue: pb.AnnotationQueue) -> dict[str, Any]:
    given = {field: getattr(queue, field) for field in _OPTIONAL if queue.HasField(field)}
    if "default_dataset_id" in given:
        given["default_dataset_id"] = uuid_text("default_dataset_id", given["default_dataset_id"])
    return given


def _condition(message: pb.QueueItemCondition) -> ItemFilter:
    return ItemFilter(
        queue_id=uuid_text("queue_id", message.queue_id),
        reviewer=_reviewer(),
        section=_SECTIONS.get(message.section),
        type=_TYPES.get(message.type),
        min_start_time_us=optional_time_us(message, "min_start_time"),
        max_start_time_us=optional_time_us(message, "max_start_time"),
        archived_after_us=optional_time_us(message, "archived_after"),
        archived_before_us=optional_time_us(message, "archived_before"),
    )


def _place(position: Position) -> ItemPlace:
    return ItemPlace(position.start_time_us, position.run_id)


def _queue_message(queue: AnnotationQueue, item_count: int | None = None) -> pb.AnnotationQueue:
    message = pb.AnnotationQueue(
        id=queue.id,
        tenant_id=queue.tenant_id,
        name=queue.name,
        item_count=item_count,
        **{field: getattr(queue, field) for field in _OPTIONAL},
    )
    set_time(message.create_time, queue.created_at_us)
    set_time(message.update_time, queue.updated_at_us)
    return message


def _item_message(item: QueueItem) -> pb.QueueItem:
    message = pb.QueueItem(
        id=item.id,
        queue_id=item.queue_id,
        type=_TYPE_NUMBERS[item.type],
        run_id=item.run_id,
        thread_id=item.thread_id,
        project_id=item.project_id,
        source_proposed_example_id=item.source_proposed_example_id,
        completed_by=item.completed_by,
        reserved_by=item.reserved_by,
    )
    set_time(message.add_time, item.added_at_us)
    set_time(message.effective_add_time, item.effective_added_at_us)
    for field, value in (
        (message.start_time, item.start_time_us),
        (message.last_review_time, item.last_reviewed_at_us),
        (message.archive_time, item.archived_at_us),
    ):
        if value is not None:
            set_time(field, value)
    return message
