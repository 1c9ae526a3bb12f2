"""The v2 routes of traces: `POST /api/v2/traces/query`, `GET /api/v2/traces/{id}/runs`.

Contract runs-v2, sections 5 and 6.
"""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import HTTPException, Query, Request
from starlette.responses import Response, StreamingResponse

from runstore.gateway.ai_search import search_of
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import filled, runs_response
from runstore.gateway.models import Problem, SelectV2
from runstore.gateway.models_threads import RunsV2, TracePage, TracesQuery
from runstore.gateway.patch_streams import Part, list_response
from runstore.gateway.run_v2 import Selection
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.thread_json import TraceSelection
from runstore.gateway.time_fields import TimeUs, to_timestamp
from runstore.gateway.windows import set_feedback_window, window_of
from runstore.v1 import trace_query_service_pb2 as pb

_DEFAULT_PAGE_SIZE: Final = 20
_RUNS_A_PART: Final = 1_000

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "A missing or invalid parameter, filter or cursor."},
    404: {"model": Problem, "description": "No such project, trace or thread."},
    422: {"model": Problem, "description": "A malformed UUID."},
}
LIST_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    **PROBLEMS,
    406: {"model": Problem, "description": "`ai_search` without `Accept: text/event-stream`."},
    501: {"model": Problem, "description": "Not offered."},
}


def trace_routes(store: StoreClient, now_us: Callable[[], int]) -> GuardedRouter:
    """The routes, reading from `store`; `now_us` gives the time that the default window ends at."""
    router = GuardedRouter(tags=["Traces (v2)"])
    _add_query(router, store, now_us)
    _add_runs(router, store)
    return router


def _add_query(router: GuardedRouter, store: StoreClient, now_us: Callable[[], int]) -> None:
    @router.post("/api/v2/traces/query", response_model=TracePage, responses=LIST_PROBLEMS)
    async def query_traces(request: Request, body: TracesQuery) -> Response:
        """Lists the traces of a project, newest first, a page at a time.

        With `Accept: text/event-stream` the answer is a stream of JSON Patches. **Careful:** without
        `min_start_time` only the last day is looked at.
        """
        credentials = credentials_of(request.headers)
        search = await search_of(request, body.ai_search, body.cursor, store, credentials)
        selection = TraceSelection(body.selects or (), str(request.base_url))
        window = window_of(body, now_us(), search.cursor)

        async def read(size: int, page_token: str) -> Part:
            query = pb.ListTracesRequest(
                project_id=str(body.project_id),
                min_start_time=to_timestamp(window.min_start_time_us),
                max_start_time=to_timestamp(window.max_start_time_us),
                trace_filter=search.beside(body.trace_filter),
                tree_filter=body.tree_filter or "",
                trace_ids=map(str, body.trace_ids or ()),
                fields=selection.fields,
                with_usage=selection.with_usage,
                page_size=size,
                page_token=page_token,
            )
            set_feedback_window(query, body)
            page = await store.list_traces(query, credentials)
            items = [{**selection.show(trace), "query_metadata": search.metadata} for trace in page.traces]
            return Part(items, page.next_page_token)

        size = body.page_size or _DEFAULT_PAGE_SIZE
        return await list_response(
            request,
            store,
            read,
            size,
            window.page_token,
            lambda token: search.wrap(window.next_cursor(token)),
        )


def _add_runs(router: GuardedRouter, store: StoreClient) -> None:
    @router.get("/api/v2/traces/{trace_id}/runs", response_model=RunsV2, responses=PROBLEMS)
    async def list_trace_runs(
        request: Request,
        trace_id: UUID,
        project_id: UUID,
        filter: str | None = None,  # noqa: A002 - the contract's name
        min_start_time: Annotated[TimeUs | None, Query(description="Inclusive.")] = None,
        max_start_time: Annotated[TimeUs | None, Query(description="Inclusive; both or neither.")] = None,
        selects: Annotated[list[SelectV2] | None, Query(description="Only `id` when absent.")] = None,
    ) -> Response:
        """Reads all runs of a trace, oldest first."""
        if (min_start_time is None) != (max_start_time is None):
            raise HTTPException(400, "min_start_time, max_start_time: both or neither must be given")
        selection = Selection(selects or (), str(request.base_url))
        query = pb.ListTraceRunsRequest(
            trace_id=str(trace_id),
            project_id=str(project_id),
            filter=filter or "",
            min_start_time=None if min_start_time is None else to_timestamp(min_start_time),
            max_start_time=None if max_start_time is None else to_timestamp(max_start_time),
            fields=selection.fields,
            page_size=_RUNS_A_PART,
        )
        credentials = credentials_of(request.headers)
        page = await store.list_trace_runs(query, credentials)
        add_call_facts(request.scope, runs=len(page.runs))
        if not page.next_page_token:
            return runs_response({"items": [selection.show(run) for run in page.runs]}, store)

        content = _all_runs(store, query, credentials, page, selection)
        return StreamingResponse(content, media_type="application/json")


async def _all_runs(
    store: StoreClient,
    query: pb.ListTraceRunsRequest,
    credentials: Credentials,
    page: pb.ListTraceRunsResponse,
    selection: Selection,
) -> AsyncIterator[bytes]:
    """The whole answer, from its first page on, with one page at a time in memory."""
    separator = b'{"items":['
    while True:
        for run in page.runs:
            yield separator
            async for chunk in filled(msgspec.json.encode(selection.show(run)), store):
                yield chunk
            separator = b","
        if not page.next_page_token:
            break
        query.page_token = page.next_page_token
        page = await store.list_trace_runs(query, credentials)
    yield b"]}"
