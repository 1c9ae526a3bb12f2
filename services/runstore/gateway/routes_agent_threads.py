"""The routes of threads of graphs, as `langgraph-sdk` calls them (contract agents, section 1.2)."""

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import Header, Query, Request
from starlette.responses import Response

from runstore.gateway.agent_bodies import json_bytes, object_bytes, page_headers
from runstore.gateway.agent_following import position_of, thread_frames_of
from runstore.gateway.agent_run_answers import events_answer
from runstore.gateway.agent_run_json import modes_in
from runstore.gateway.agent_thread_json import (
    HISTORY_ASKED,
    STATE_ASKED,
    STATE_UPDATE,
    STREAM_MODES,
    THREAD_CREATE,
    THREAD_PRUNE,
    THREAD_SEARCH,
    THREAD_UPDATE,
    checkpoint_of,
    condition_of,
    create_request,
    prune_request,
    search_request,
    show_found,
    show_state,
    show_thread,
    update_request,
)
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import thread_service_pb2 as pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {409: {"model": Detail, "description": "The id is taken."}}
_BUSY: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Detail, "description": "The graph does not take this."},
    404: {"model": Detail},
    409: {"model": Detail, "description": "A run of the thread is in flight."},
}
_Select = Annotated[list[str], Query(description="Only these keys; `values.messages` is one of the values.")]


def agent_thread_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the threads of `store`."""
    router = GuardedRouter(prefix="/threads", tags=["Agent threads"])
    _add_search_routes(router, store)
    _add_thread_routes(router, store)
    _add_state_routes(router, store)
    _add_history_routes(router, store)
    return router


def _add_search_routes(router: GuardedRouter, store: StoreClient) -> None:
    threads = store.agent_threads

    @router.post("", openapi_extra=THREAD_CREATE.openapi, responses=_TAKEN)
    async def create_thread(request: Request) -> Response:
        """Creates a thread."""
        message = create_request(await THREAD_CREATE.read(request))
        answer = await store.ask(threads.CreateAgentThread, message, credentials_of(request.headers))
        return json_response(show_thread(answer.thread))

    @router.post("/search", openapi_extra=THREAD_SEARCH.openapi)
    async def search_threads(request: Request) -> Response:
        """Lists threads; `X-Pagination-Next` is the next offset while there are more."""
        body = await THREAD_SEARCH.read(request)
        message = search_request(body)
        answer = await store.ask(threads.SearchAgentThreads, message, credentials_of(request.headers))
        shown = [show_found(thread, body) for thread in answer.threads]
        return json_response(shown, headers=page_headers(message.offset, len(shown), answer.total_count))

    @router.post("/count", openapi_extra=THREAD_SEARCH.openapi)
    async def count_threads(request: Request) -> Response:
        """Counts threads."""
        message = pb.CountAgentThreadsRequest(condition=condition_of(await THREAD_SEARCH.read(request)))
        answer = await store.ask(threads.CountAgentThreads, message, credentials_of(request.headers))
        return json_response(answer.count)

    @router.post("/prune", openapi_extra=THREAD_PRUNE.openapi)
    async def prune_threads(request: Request) -> Response:
        """Deletes threads, or all their checkpoints but the latest; unknown and busy ones are passed over."""
        message = prune_request(await THREAD_PRUNE.read(request))
        answer = await store.ask(threads.PruneAgentThreads, message, credentials_of(request.headers))
        return json_response({"pruned_count": answer.pruned_count})


def _add_thread_routes(router: GuardedRouter, store: StoreClient) -> None:
    threads = store.agent_threads

    @router.get("/{thread_id}", responses=_NOT_FOUND)
    async def read_thread(
        request: Request,
        thread_id: UUID,
        include: Annotated[str, Query(description="`ttl`, to be told how long it stays.")] = "",
    ) -> Response:
        """Reads a thread."""
        message = pb.GetAgentThreadRequest(thread_id=str(thread_id))
        answer = await store.ask(threads.GetAgentThread, message, credentials_of(request.headers))
        return json_response(show_thread(answer.thread, with_ttl="ttl" in include.split(",")))

    @router.patch("/{thread_id}", openapi_extra=THREAD_UPDATE.openapi, responses=_NOT_FOUND)
    async def update_thread(
        request: Request,
        thread_id: UUID,
        prefer: Annotated[str, Header(description="`return=minimal` for an answer without content.")] = "",
    ) -> Response:
        """Merges metadata into a thread's."""
        message = update_request(str(thread_id), await THREAD_UPDATE.read(request))
        answer = await store.ask(threads.UpdateAgentThread, message, credentials_of(request.headers))
        if prefer.strip().lower() == "return=minimal":
            return Response(status_code=204)
        return json_response(show_thread(answer.thread))

    @router.delete("/{thread_id}", status_code=204, responses=_NOT_FOUND)
    async def delete_thread(request: Request, thread_id: UUID) -> Response:
        """Deletes a thread with its runs and checkpoints; what runs is stopped."""
        message = pb.DeleteAgentThreadRequest(thread_id=str(thread_id))
        await store.ask(threads.DeleteAgentThread, message, credentials_of(request.headers))
        return Response(status_code=204)

    @router.post("/{thread_id}/copy", responses=_BUSY)
    async def copy_thread(request: Request, thread_id: UUID) -> Response:
        """Makes a thread with the checkpoints of another."""
        message = pb.CopyAgentThreadRequest(thread_id=str(thread_id))
        answer = await store.ask_once(threads.CopyAgentThread, message, credentials_of(request.headers))
        return json_response(show_thread(answer.thread))

    @router.get("/{thread_id}/stream", responses=_NOT_FOUND)
    async def follow_thread(
        request: Request,
        thread_id: UUID,
        stream_mode: list[str] = Query([]),  # noqa: B008 - FastAPI's way
        stream_modes: list[str] = Query([], description="The same."),  # noqa: B008 - FastAPI's way
        last_event_id: Annotated[str, Header(description="Only what came after this event.")] = "",
    ) -> Response:
        """Answers with the events of all runs of a thread, until the client leaves."""
        credentials = credentials_of(request.headers)
        reading = pb.GetAgentThreadRequest(thread_id=str(thread_id))
        await store.ask(threads.GetAgentThread, reading, credentials)
        joining = pb.JoinAgentThreadRequest(
            thread_id=str(thread_id),
            after_event_id=position_of(last_event_id),
            modes=modes_in([*stream_mode, *stream_modes], STREAM_MODES),
        )
        return events_answer(thread_frames_of(store, joining, credentials), {"Location": request.url.path})


def _add_state_routes(router: GuardedRouter, store: StoreClient) -> None:
    threads = store.agent_threads

    async def state(
        request: Request,
        thread_id: UUID,
        checkpoint: bytes | None,
        *,
        subgraphs: bool,
        select: list[str] | None,
    ) -> Response:
        message = pb.GetThreadStateRequest(
            thread_id=str(thread_id), checkpoint=checkpoint, subgraphs=subgraphs
        )
        answer = await store.ask(threads.GetThreadState, message, credentials_of(request.headers))
        return json_response(show_state(answer.state, select))

    @router.get("/{thread_id}/state", responses=_NOT_FOUND)
    async def read_state(
        request: Request,
        thread_id: UUID,
        subgraphs: bool = False,  # noqa: FBT001, FBT002 - a query parameter
        select: _Select = [],  # noqa: B006 - FastAPI copies it
    ) -> Response:
        """Reads the state after the latest checkpoint."""
        return await state(request, thread_id, None, subgraphs=subgraphs, select=select)

    @router.get("/{thread_id}/state/{checkpoint_id}", responses=_NOT_FOUND)
    async def read_state_at(
        request: Request,
        thread_id: UUID,
        checkpoint_id: UUID,
        subgraphs: bool = False,  # noqa: FBT001, FBT002 - a query parameter
        select: _Select = [],  # noqa: B006 - FastAPI copies it
    ) -> Response:
        """Reads the state after a checkpoint; an unknown one has empty values."""
        checkpoint = checkpoint_of(msgspec.Raw(), str(checkpoint_id))
        return await state(request, thread_id, checkpoint, subgraphs=subgraphs, select=select)

    @router.post("/{thread_id}/state/checkpoint", openapi_extra=STATE_ASKED.openapi, responses=_NOT_FOUND)
    async def read_state_of(request: Request, thread_id: UUID) -> Response:
        """Reads the state after a checkpoint, also of a subgraph's."""
        body = await STATE_ASKED.read(request)
        checkpoint = object_bytes("checkpoint", body.checkpoint)
        return await state(request, thread_id, checkpoint, subgraphs=bool(body.subgraphs), select=body.select)


def _add_history_routes(router: GuardedRouter, store: StoreClient) -> None:
    threads = store.agent_threads

    @router.post("/{thread_id}/state", openapi_extra=STATE_UPDATE.openapi, responses=_BUSY)
    async def update_state(request: Request, thread_id: UUID) -> Response:
        """Writes values as if a node had returned them."""
        body = await STATE_UPDATE.read(request)
        message = pb.UpdateThreadStateRequest(
            thread_id=str(thread_id),
            values=json_bytes(body.values),
            as_node=body.as_node,
            checkpoint=checkpoint_of(body.checkpoint, body.checkpoint_id),
        )
        answer = await store.ask_once(threads.UpdateThreadState, message, credentials_of(request.headers))
        return json_response(msgspec.Raw(answer.result))

    @router.post("/{thread_id}/history", openapi_extra=HISTORY_ASKED.openapi, responses=_NOT_FOUND)
    async def list_history(request: Request, thread_id: UUID) -> Response:
        """Lists past states, the newest first."""
        body = await HISTORY_ASKED.read(request)
        message = pb.ListThreadHistoryRequest(
            thread_id=str(thread_id),
            limit=body.limit or 0,
            before=json_bytes(body.before),
            metadata=object_bytes("metadata", body.metadata),
            checkpoint=object_bytes("checkpoint", body.checkpoint),
        )
        answer = await store.ask(threads.ListThreadHistory, message, credentials_of(request.headers))
        return json_response([show_state(state, body.select) for state in answer.states])
