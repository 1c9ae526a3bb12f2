"""The routes of annotation queues and of the runs in them (contract resources, section 5)."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import filled, runs_response
from runstore.gateway.models import Detail
from runstore.gateway.queue_json import (
    SECTIONS,
    KeepsTraces,
    QueueChange,
    QueueCreate,
    item_key,
    queue_message,
    show_item,
    show_queue,
    show_run_in_queue,
)
from runstore.gateway.run_v1 import DEFAULT_SELECTION
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_timestamp
from runstore.v1 import annotation_queue_service_pb2 as pb
from runstore.v1.run_query_service_pb2 import ListRunsRequest

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {409: {"model": Detail, "description": "The name is taken."}}
_DONE: Final = {"message": "Done"}


class _ListQuery(BaseModel):
    """Query parameters of the list; all conditions hold together."""

    ids: list[UUID] = Field(default=[])
    name: str | None = Field(None, description="The exact name.")
    name_contains: str | None = Field(None, description="Part of the name, in any case.")
    dataset_id: UUID | None = Field(None, description="Queues whose default dataset it is.")
    queue_type: Literal["single", "pairwise"] | None = Field(None, description="All queues are single.")
    assigned_to_me: bool = Field(default=False, description="Without effect: queues are everybody's.")
    tag_value_id: list[UUID] = Field(default=[], description="Not offered.")
    sort_by: Literal["created_at"] = "created_at"
    sort_by_desc: bool = True
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


class _RunKey(BaseModel):
    run_id: UUID
    session_id: UUID | None = None
    start_time: TimeUs | None = None
    source_proposed_example_id: UUID | None = None


class _RunTimes(BaseModel):
    added_at: TimeUs | None = None
    last_reviewed_time: TimeUs | None = None


class _RunsToDelete(BaseModel):
    run_ids: list[UUID] | None = None
    delete_all: bool = False
    exclude_run_ids: list[UUID] | None = None


class _Review(BaseModel):
    status: Literal["viewed", "completed"] | None = None
    override_added_at: TimeUs | None = None


class _Populate(BaseModel):
    queue_id: UUID
    session_ids: list[UUID]


class _Export(BaseModel):
    start_time: TimeUs | None = Field(None, description="Archived later.")
    end_time: TimeUs | None = Field(None, description="Archived earlier.")
    include_annotator_detail: bool = Field(default=False, description="With `completed_by`.")


_Status = Literal["needs_my_review", "needs_others_review", "completed"]
_RunKeys = list[UUID | _RunKey]


def annotation_queue_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the queues of `store`."""
    router = GuardedRouter(prefix="/annotation-queues", tags=["Annotation queues"])
    _add_queue_routes(router, store)
    _add_run_routes(router, store)
    _add_changes_of_runs(router, store)
    _add_review_routes(router, store)
    _add_export(router, store)
    return router


def _add_queue_routes(router: GuardedRouter, store: StoreClient) -> None:
    queues = store.annotation_queues

    @router.post("", responses=_TAKEN)
    async def create_queue(request: Request, body: QueueCreate) -> Response:
        """Creates a queue."""
        message = pb.CreateAnnotationQueueRequest(queue=queue_message(body))
        answer = await store.ask(queues.CreateAnnotationQueue, message, credentials_of(request.headers))
        return json_response(show_queue(answer.queue))

    @router.get("")
    async def list_queues(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists queues, the last created first, with the number of their runs."""
        if query.tag_value_id:
            raise RunstoreError(ErrorReason.UNIMPLEMENTED, "tag_value_id is not offered by this version")
        if query.queue_type == "pairwise":
            return json_response([])
        message = pb.ListAnnotationQueuesRequest(
            ids=map(str, query.ids),
            name=query.name,
            name_contains=query.name_contains,
            default_dataset_id=None if query.dataset_id is None else str(query.dataset_id),
            oldest_first=not query.sort_by_desc,
            offset=query.offset,
            page_size=query.limit,
        )
        answer = await store.ask(queues.ListAnnotationQueues, message, credentials_of(request.headers))
        return json_response([show_queue(queue) for queue in answer.queues])

    @router.post("/populate", responses=_NOT_FOUND)
    async def populate_queue(request: Request, body: _Populate) -> Response:
        """Adds the root runs of experiments to a queue."""
        message = pb.PopulateAnnotationQueueRequest(
            queue_id=str(body.queue_id), project_ids=map(str, body.session_ids)
        )
        answer = await store.ask(queues.PopulateAnnotationQueue, message, credentials_of(request.headers))
        return json_response({"message": f"{answer.run_count} runs are in the queue"})

    @router.get("/{queue_id}", responses=_NOT_FOUND)
    async def read_queue(request: Request, queue_id: UUID) -> Response:
        """Reads a queue with its rubric."""
        message = pb.GetAnnotationQueueRequest(id=str(queue_id))
        answer = await store.ask(queues.GetAnnotationQueue, message, credentials_of(request.headers))
        return json_response(show_queue(answer.queue))

    @router.patch("/{queue_id}", responses={**_NOT_FOUND, **_TAKEN})
    async def update_queue(request: Request, queue_id: UUID, body: QueueChange) -> Response:
        """Changes a queue; null and absent keys keep what is there."""
        message = pb.UpdateAnnotationQueueRequest(queue=queue_message(body, queue_id))
        answer = await store.ask(queues.UpdateAnnotationQueue, message, credentials_of(request.headers))
        return json_response(show_queue(answer.queue))

    @router.delete("/{queue_id}", responses=_NOT_FOUND)
    async def delete_queue(request: Request, queue_id: UUID) -> Response:
        """Deletes a queue; runs and feedback stay."""
        message = pb.DeleteAnnotationQueueRequest(id=str(queue_id))
        await store.ask(queues.DeleteAnnotationQueue, message, credentials_of(request.headers))
        return json_response(_DONE)

    @router.get("/{run_id}/queues")
    async def list_queues_of_run(request: Request, run_id: UUID) -> Response:
        """Lists the queues that a run is in."""
        message = pb.ListAnnotationQueuesRequest(run_id=str(run_id), page_size=1_000)
        answer = await store.ask(queues.ListAnnotationQueues, message, credentials_of(request.headers))
        return json_response([show_queue(queue) for queue in answer.queues])


def _add_run_routes(router: GuardedRouter, store: StoreClient) -> None:
    queues = store.annotation_queues

    @router.post("/{queue_id}/runs/by-key", responses=_NOT_FOUND)
    @router.post("/{queue_id}/runs", responses=_NOT_FOUND)
    async def add_runs(
        request: Request,
        queue_id: UUID,
        body: _RunKeys,
        extend_trace_retention: KeepsTraces = True,  # noqa: FBT002 - a query parameter
    ) -> Response:
        """Adds runs, by their ids or their keys; what is in the queue already stays."""
        keys = [
            item_key(run_id=run.run_id, source_proposed_example_id=run.source_proposed_example_id)
            if isinstance(run, _RunKey)
            else item_key(run_id=run)
            for run in body
        ]
        message = pb.AddQueueItemsRequest(
            queue_id=str(queue_id), items=keys, keeps_traces=extend_trace_retention
        )
        answer = await store.ask(queues.AddQueueItems, message, credentials_of(request.headers))
        return json_response([show_item(item) for item in answer.items])

    @router.get("/{queue_id}/runs", responses=_NOT_FOUND)
    async def list_runs(
        request: Request,
        queue_id: UUID,
        status: _Status | None = None,
        archived: bool | None = None,  # noqa: FBT001 - a query parameter
        include_stats: bool | None = None,  # noqa: ARG001, FBT001 - part of the contract
        offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 100,
    ) -> Response:
        """Lists the runs of a queue, the first added first."""
        question = pb.ListQueueItemsRequest(
            condition=_condition(queue_id, _section(status, archived=archived)),
            offset=offset,
            page_size=limit,
        )
        runs, _ = await _runs_page(store, question, credentials_of(request.headers), str(request.base_url))
        return runs_response(runs, store)

    @router.get("/{queue_id}/run/{index}", responses=_NOT_FOUND)
    async def read_run(
        request: Request,
        queue_id: UUID,
        index: Annotated[int, "From 0, of the runs that are not completed."],
        include_extra: bool | None = None,  # noqa: ARG001, FBT001 - part of the contract
    ) -> Response:
        """Reads the run at a place of the queue."""
        if not 0 <= index < 2**31:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"the queue has no run {index}", field="index")
        question = pb.ListQueueItemsRequest(
            condition=_condition(queue_id, pb.QUEUE_SECTION_ACTIVE), offset=index, page_size=1
        )
        runs, _ = await _runs_page(store, question, credentials_of(request.headers), str(request.base_url))
        if not runs:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"the queue has no run {index}", field="index")
        return runs_response(runs[0], store)


def _add_changes_of_runs(router: GuardedRouter, store: StoreClient) -> None:
    queues = store.annotation_queues

    @router.patch("/{queue_id}/runs/{queue_run_id}", responses=_NOT_FOUND)
    async def update_run(request: Request, queue_id: UUID, queue_run_id: UUID, body: _RunTimes) -> Response:
        """Changes when a run was added or reviewed."""
        message = pb.UpdateQueueItemRequest(queue_id=str(queue_id), item_id=str(queue_run_id))
        if body.added_at is not None:
            message.add_time.CopyFrom(to_timestamp(body.added_at))
        if body.last_reviewed_time is not None:
            message.last_review_time.CopyFrom(to_timestamp(body.last_reviewed_time))
        answer = await store.ask(queues.UpdateQueueItem, message, credentials_of(request.headers))
        return json_response(show_item(answer.item))

    @router.post("/{queue_id}/runs/delete", responses=_NOT_FOUND)
    async def remove_runs(request: Request, queue_id: UUID, body: _RunsToDelete) -> Response:
        """Removes runs from a queue: those named, or all but those excluded."""
        if body.run_ids is None and not body.delete_all and body.exclude_run_ids is None:
            raise invalid("run_ids", "run_ids, exclude_run_ids or delete_all is needed")
        is_all = body.delete_all or body.run_ids is None
        named = (body.exclude_run_ids or []) if is_all else body.run_ids
        message = pb.RemoveQueueItemsRequest(
            queue_id=str(queue_id), ids=map(str, named or ()), all_but_ids=is_all
        )
        await store.ask(queues.RemoveQueueItems, message, credentials_of(request.headers))
        return json_response(_DONE)

    @router.delete("/{queue_id}/runs/{run_id}", responses=_NOT_FOUND)
    async def remove_run(request: Request, queue_id: UUID, run_id: UUID) -> Response:
        """Removes a run, by its id or its item's."""
        message = pb.RemoveQueueItemsRequest(queue_id=str(queue_id), ids=[str(run_id)])
        answer = await store.ask(queues.RemoveQueueItems, message, credentials_of(request.headers))
        if not answer.count:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"the queue does not hold {run_id}", field="run_id")
        return json_response(_DONE)


def _add_review_routes(router: GuardedRouter, store: StoreClient) -> None:
    queues = store.annotation_queues

    @router.post("/status/{queue_run_id}", responses=_NOT_FOUND)
    async def review_run(request: Request, queue_run_id: UUID, body: _Review) -> Response:
        """Notes what the caller has done with a run; null takes that back."""
        message = pb.ReviewQueueItemRequest(
            item_id=str(queue_run_id),
            status=REVIEW_STATUSES[body.status],
            override_add_time=(
                None if body.override_added_at is None else to_timestamp(body.override_added_at)
            ),
        )
        answer = await store.ask(queues.ReviewQueueItem, message, credentials_of(request.headers))
        return json_response(show_item(answer.item))

    async def size(request: Request, condition: pb.QueueItemCondition) -> Response:
        message = pb.CountQueueItemsRequest(condition=condition)
        answer = await store.ask(queues.CountQueueItems, message, credentials_of(request.headers))
        return json_response({"size": answer.count})

    @router.get("/{queue_id}/size", responses=_NOT_FOUND)
    async def read_size(request: Request, queue_id: UUID, status: _Status | None = None) -> Response:
        """Counts the runs that stand so for the caller; all of them without `status`."""
        return await size(request, _condition(queue_id, _section(status)))

    @router.get("/{queue_id}/total_size", responses=_NOT_FOUND)
    async def read_total_size(request: Request, queue_id: UUID) -> Response:
        """Counts all runs."""
        return await size(request, _condition(queue_id, pb.QUEUE_SECTION_UNSPECIFIED))

    @router.get("/{queue_id}/total_archived", responses=_NOT_FOUND)
    async def read_total_archived(
        request: Request, queue_id: UUID, start_time: TimeUs | None = None, end_time: TimeUs | None = None
    ) -> Response:
        """Counts the runs that enough reviewers have completed, in a time."""
        return await size(request, _archived(queue_id, start_time, end_time))


def _add_export(router: GuardedRouter, store: StoreClient) -> None:
    @router.post("/{queue_id}/export", responses=_NOT_FOUND)
    async def export_queue(request: Request, queue_id: UUID, body: _Export) -> Response:
        """Answers the completed runs as a JSON array, of any length."""
        credentials = credentials_of(request.headers)
        question = pb.ListQueueItemsRequest(condition=_archived(queue_id, body.start_time, body.end_time))
        base_url = str(request.base_url)
        first = await _runs_page(
            store, question, credentials, base_url
        )  # So that refusals have their status.

        async def content() -> AsyncIterator[bytes]:
            runs, question.page_token = first
            separator = b"["
            while True:
                for run in runs:
                    if not body.include_annotator_detail:
                        del run["completed_by"], run["reserved_by"]
                    yield separator
                    separator = b","
                    async for piece in filled(msgspec.json.encode(run), store):
                        yield piece
                if not question.page_token:
                    break
                runs, question.page_token = await _runs_page(store, question, credentials, base_url)
            yield b"]" if separator == b"," else b"[]"

        return StreamingResponse(content(), media_type="application/json")


REVIEW_STATUSES: Final = {
    None: pb.REVIEW_STATUS_UNSPECIFIED,
    "viewed": pb.REVIEW_STATUS_VIEWED,
    "completed": pb.REVIEW_STATUS_COMPLETED,
}


async def _runs_page(
    store: StoreClient, question: pb.ListQueueItemsRequest, credentials: Credentials, base_url: str
) -> tuple[list[dict[str, Any]], str]:
    """The runs of a page, and the token of the next page. Runs that were deleted are left out."""
    question.condition.type = pb.QUEUE_ITEM_TYPE_RUN
    page = await store.ask(store.annotation_queues.ListQueueItems, question, credentials)
    if not page.items:
        return [], ""
    run_ids = [item.run_id for item in page.items]
    request = ListRunsRequest(ids=run_ids, page_size=len(run_ids), fields=DEFAULT_SELECTION.fields)
    answer = await store.list_runs(request, credentials)
    runs = {run.id: run for run in answer.runs}
    shown = [
        show_run_in_queue(item, DEFAULT_SELECTION.show(runs[item.run_id], base_url))
        for item in page.items
        if item.run_id in runs
    ]
    return shown, page.next_page_token


def _section(status: _Status | None, *, archived: bool | None = None) -> "pb.QueueSection.ValueType":
    if status is not None:
        return SECTIONS["archived" if status == "completed" else status]
    if archived is None:
        return pb.QUEUE_SECTION_UNSPECIFIED
    return pb.QUEUE_SECTION_ARCHIVED if archived else pb.QUEUE_SECTION_ACTIVE


def _condition(queue_id: UUID, section: "pb.QueueSection.ValueType") -> pb.QueueItemCondition:
    return pb.QueueItemCondition(queue_id=str(queue_id), section=section, type=pb.QUEUE_ITEM_TYPE_RUN)


def _archived(queue_id: UUID, start_us: int | None, end_us: int | None) -> pb.QueueItemCondition:
    condition = _condition(queue_id, pb.QUEUE_SECTION_ARCHIVED)
    if start_us is not None:
        condition.archived_after.CopyFrom(to_timestamp(start_us))
    if end_us is not None:
        condition.archived_before.CopyFrom(to_timestamp(end_us))
    return condition
