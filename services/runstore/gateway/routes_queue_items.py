"""The routes of the items of annotation queues, runs and threads alike (contract resources, section 5)."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Query, Request
from pydantic import AliasChoices, BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.queue_json import ITEM_TYPES, SECTIONS, KeepsTraces, item_key, show_item
from runstore.gateway.routes_annotation_queues import REVIEW_STATUSES
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_timestamp
from runstore.v1 import annotation_queue_service_pb2 as pb

_SECTION_NAMES: Final = {number: name for name, number in SECTIONS.items()}


class _Item(BaseModel):
    item_type: Literal["RUN", "THREAD"] = "RUN"
    run_id: UUID | None = None
    thread_id: str | None = None
    project_id: UUID | None = Field(None, validation_alias=AliasChoices("project_id", "session_id"))
    start_time: TimeUs | None = None
    source_proposed_example_id: UUID | None = None


class _Items(BaseModel):
    items: list[_Item]


class _ItemIds(BaseModel):
    item_ids: list[UUID]


class _Times(BaseModel):
    added_at: TimeUs | None = None
    last_reviewed_time: TimeUs | None = None


class _Review(BaseModel):
    status: Literal["viewed", "completed"] | None = None
    override_added_at: TimeUs | None = None


class _Window(BaseModel):
    """Query parameters on when an item's trace began; those that are not known to have begun are left out."""

    min_start_time: TimeUs | None = None
    max_start_time: TimeUs | None = None

    def condition(self, queue_id: UUID) -> pb.QueueItemCondition:
        condition = pb.QueueItemCondition(queue_id=str(queue_id))
        if self.min_start_time is not None:
            condition.min_start_time.CopyFrom(to_timestamp(self.min_start_time))
        if self.max_start_time is not None:
            condition.max_start_time.CopyFrom(to_timestamp(self.max_start_time))
        return condition


class _ListQuery(_Window):
    """Query parameters of the list."""

    status: Literal["needs_my_review", "needs_others_review", "archived"]
    item_type: Literal["RUN", "THREAD"] | None = None
    cursor: str = ""
    direction: Literal["forward", "backward"] = "forward"
    page_size: int = Field(100, ge=1, le=100)


class _CountQuery(_Window):
    """Query parameters of the count."""

    status: Literal["all", "needs_my_review", "needs_others_review", "archived"]
    start_time: TimeUs | None = Field(None, description="Archived later; only with `archived`.")
    end_time: TimeUs | None = Field(None, description="Archived earlier; only with `archived`.")


def queue_item_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the queues of `store`."""
    router = GuardedRouter(prefix="/v1/platform/annotation-queues", tags=["Annotation queues"])
    _add_item_routes(router, store)
    _add_section_routes(router, store)
    return router


def _add_item_routes(router: GuardedRouter, store: StoreClient) -> None:
    queues = store.annotation_queues

    @router.post("/{queue_id}/items")
    async def add_items(
        request: Request,
        queue_id: UUID,
        body: _Items,
        extend_trace_retention: KeepsTraces = True,  # noqa: FBT002 - a query parameter
    ) -> Response:
        """Adds runs and threads; what is in the queue already stays."""
        keys = [_key(index, item) for index, item in enumerate(body.items)]
        message = pb.AddQueueItemsRequest(
            queue_id=str(queue_id), items=keys, keeps_traces=extend_trace_retention
        )
        answer = await store.ask(queues.AddQueueItems, message, credentials_of(request.headers))
        return json_response({"items": [show_item(item) for item in answer.items]})

    @router.patch("/{queue_id}/items/{item_id}")
    async def update_item(request: Request, queue_id: UUID, item_id: UUID, body: _Times) -> Response:
        """Changes when an item was added or reviewed; null and absent keys keep what is there."""
        message = pb.UpdateQueueItemRequest(queue_id=str(queue_id), item_id=str(item_id))
        if body.added_at is not None:
            message.add_time.CopyFrom(to_timestamp(body.added_at))
        if body.last_reviewed_time is not None:
            message.last_review_time.CopyFrom(to_timestamp(body.last_reviewed_time))
        answer = await store.ask(queues.UpdateQueueItem, message, credentials_of(request.headers))
        return json_response(show_item(answer.item))

    @router.post("/items/{item_id}/status")
    async def review_item(request: Request, item_id: UUID, body: _Review) -> Response:
        """Notes what the caller has done with an item; null takes that back."""
        override_us = body.override_added_at
        message = pb.ReviewQueueItemRequest(
            item_id=str(item_id),
            status=REVIEW_STATUSES[body.status],
            override_add_time=None if override_us is None else to_timestamp(override_us),
        )
        answer = await store.ask(queues.ReviewQueueItem, message, credentials_of(request.headers))
        shown = show_item(answer.item)
        return json_response(
            {
                "queue_item_id": answer.item.id,
                "status": body.status,
                "is_archived": answer.item.HasField("archive_time"),
                "override_added_at": None if override_us is None else shown["effective_added_at"],
            }
        )

    @router.post("/{queue_id}/items/delete")
    async def remove_items(request: Request, queue_id: UUID, body: _ItemIds) -> Response:
        """Removes items; those that are not there are passed over."""
        message = pb.RemoveQueueItemsRequest(queue_id=str(queue_id), ids=map(str, body.item_ids))
        answer = await store.ask(queues.RemoveQueueItems, message, credentials_of(request.headers))
        return json_response({"message": f"{answer.count} items removed"})


def _add_section_routes(router: GuardedRouter, store: StoreClient) -> None:
    queues = store.annotation_queues

    @router.get("/{queue_id}/items")
    async def list_items(request: Request, queue_id: UUID, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists the items of a section, the first added first."""
        condition = query.condition(queue_id)
        condition.section = SECTIONS[query.status]
        if query.item_type is not None:
            condition.type = ITEM_TYPES[query.item_type]
        if query.direction == "backward" and not query.cursor:
            raise invalid("cursor", "needed to list backward")
        message = pb.ListQueueItemsRequest(
            condition=condition,
            page_size=query.page_size,
            page_token=query.cursor,
            backward=query.direction == "backward",
        )
        answer = await store.ask(queues.ListQueueItems, message, credentials_of(request.headers))
        items = [show_item(item) for item in answer.items]
        return json_response({"items": items, "next_cursor": answer.next_page_token or None})

    @router.get("/{queue_id}/items/count")
    async def count_items(
        request: Request, queue_id: UUID, query: Annotated[_CountQuery, Query()]
    ) -> Response:
        """Counts the items of a section, or all."""
        condition = query.condition(queue_id)
        if query.status != "all":
            condition.section = SECTIONS[query.status]
        if query.status == "archived" and query.start_time is not None:
            condition.archived_after.CopyFrom(to_timestamp(query.start_time))
        if query.status == "archived" and query.end_time is not None:
            condition.archived_before.CopyFrom(to_timestamp(query.end_time))
        message = pb.CountQueueItemsRequest(condition=condition)
        answer = await store.ask(queues.CountQueueItems, message, credentials_of(request.headers))
        return json_response({"count": answer.count})

    @router.get("/{queue_id}/items/{item_id}/placement")
    async def place_item(request: Request, queue_id: UUID, item_id: UUID) -> Response:
        """Finds the section and the place of an item; the cursor lists the section from it on."""
        message = pb.GetQueueItemPlacementRequest(queue_id=str(queue_id), item_id=str(item_id))
        answer = await store.ask(queues.GetQueueItemPlacement, message, credentials_of(request.headers))
        content: dict[str, Any] = {
            "section": _SECTION_NAMES[answer.section],
            "item_type": "RUN" if answer.type == pb.QUEUE_ITEM_TYPE_RUN else "THREAD",
            "position": answer.position,
            "cursor": answer.page_token or None,
        }
        return json_response(content)


def _key(index: int, item: _Item) -> pb.QueueItemKey:
    if item.item_type == "RUN" and item.run_id is None:
        raise invalid(f"items.{index}.run_id", "needed of a run")
    if item.item_type == "THREAD" and (not item.thread_id or item.project_id is None):
        raise invalid(f"items.{index}.thread_id", "needed of a thread, with project_id")
    is_run = item.item_type == "RUN"
    return item_key(
        run_id=item.run_id if is_run else None,
        thread_id=None if is_run else item.thread_id,
        project_id=item.project_id,
        start_time_us=item.start_time,
        source_proposed_example_id=item.source_proposed_example_id,
    )
