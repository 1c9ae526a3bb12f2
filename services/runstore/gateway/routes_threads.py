"""The v2 routes of threads: lists, statistics, and the traces of one.

Contract runs-v2, sections 7 to 10. The name of a thread is any text, slashes included.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from runstore.gateway.ai_search import search_of
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models_threads import (
    ThreadConditions,
    ThreadPage,
    ThreadsQuery,
    ThreadStatSelect,
    ThreadStatsQuery,
    ThreadTracePage,
    ThreadTraceSelect,
)
from runstore.gateway.patch_streams import Part, list_response
from runstore.gateway.routes_traces import LIST_PROBLEMS, PROBLEMS
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.thread_json import (
    AGGREGATE_STATS,
    THREAD_STATS,
    TurnSelection,
    show_stats,
    show_thread,
    stats_fields,
)
from runstore.gateway.time_fields import to_timestamp
from runstore.gateway.windows import Window, window_of
from runstore.v1 import thread_query_service_pb2 as pb

_DEFAULT_PAGE_SIZE: Final = 20


def thread_routes(store: StoreClient, now_us: Callable[[], int]) -> GuardedRouter:
    """The routes, reading from `store`; `now_us` gives the time that the default window ends at."""
    router = GuardedRouter(prefix="/api/v2/threads", tags=["Threads (v2)"])
    _add_query(router, store, now_us)
    _add_stats(router, store, now_us)
    _add_traces(router, store)
    return router


def _add_query(router: GuardedRouter, store: StoreClient, now_us: Callable[[], int]) -> None:
    @router.post("/query", response_model=ThreadPage, responses=LIST_PROBLEMS)
    async def query_threads(request: Request, body: ThreadsQuery) -> Response:
        """Lists the threads of a project by their latest trace, newest first, a page at a time.

        With `Accept: text/event-stream` the answer is a stream of JSON Patches. **Careful:** without
        `min_start_time` only the last day is looked at.
        """
        credentials = credentials_of(request.headers)
        search = await search_of(request, body.ai_search, body.cursor, store, credentials)
        window = window_of(body, now_us(), search.cursor)
        conditions = {**_conditions(body, window), "filter": search.beside(body.filter)}

        async def read(size: int, page_token: str) -> Part:
            query = pb.ListThreadsRequest(page_size=size, page_token=page_token, **conditions)
            page = await store.list_threads(query, credentials)
            items = [{**show_thread(thread), "query_metadata": search.metadata} for thread in page.threads]
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


def _add_stats(router: GuardedRouter, store: StoreClient, now_us: Callable[[], int]) -> None:
    @router.post("/stats", responses=PROBLEMS)
    async def aggregate_thread_stats(request: Request, body: ThreadStatsQuery) -> Response:
        """Sums up the traces of all threads that match; exactly the selected keys."""
        query = pb.AggregateThreadStatsRequest(
            fields=stats_fields(AGGREGATE_STATS, body.select),
            **_conditions(body, window_of(body, now_us())),
        )
        answer = await store.aggregate_thread_stats(query, credentials_of(request.headers))
        return json_response(show_stats(AGGREGATE_STATS, body.select, answer.stats))

    @router.get("/{thread_id:path}/stats", responses=PROBLEMS)
    async def thread_stats(
        request: Request,
        thread_id: str,
        session_id: Annotated[UUID, Query(description="Project of the thread.")],
        selects: Annotated[list[ThreadStatSelect], Query(min_length=1)],
        filter: Annotated[str | None, Query(description="On the roots of its traces.")] = None,  # noqa: A002 - the contract's name
    ) -> Response:
        """Sums up the traces of one thread, whenever they were; exactly the selected keys."""
        query = pb.GetThreadStatsRequest(
            project_id=str(session_id),
            thread_id=thread_id,
            filter=filter or "",
            fields=stats_fields(THREAD_STATS, selects),
        )
        answer = await store.get_thread_stats(query, credentials_of(request.headers))
        return json_response(show_stats(THREAD_STATS, selects, answer.stats))


def _add_traces(router: GuardedRouter, store: StoreClient) -> None:
    @router.get("/{thread_id:path}/traces", response_model=ThreadTracePage, responses=PROBLEMS)
    async def list_thread_traces(
        request: Request,
        thread_id: str,
        project_id: UUID,
        cursor: str | None = None,
        page_size: Annotated[int, Query(ge=1, le=100)] = _DEFAULT_PAGE_SIZE,
        filter: Annotated[str | None, Query(description="On the root run.")] = None,  # noqa: A002 - the contract's name
        trace_filter: Annotated[str | None, Query(description="On the root run.")] = None,
        tree_filter: Annotated[str | None, Query(description="On any run of the trace.")] = None,
        selects: Annotated[list[ThreadTraceSelect] | None, Query()] = None,
    ) -> Response:
        """Lists the traces of a thread, oldest first, a page at a time."""
        selection = TurnSelection(selects or (), thread_id, str(request.base_url))

        async def read(size: int, page_token: str) -> Part:
            query = pb.ListThreadTracesRequest(
                project_id=str(project_id),
                thread_id=thread_id,
                filter=filter or "",
                trace_filter=trace_filter or "",
                tree_filter=tree_filter or "",
                fields=selection.fields,
                with_usage=selection.with_usage,
                with_turn_numbers=selection.with_turn_numbers,
                page_size=size,
                page_token=page_token,
            )
            page = await store.list_thread_traces(query, credentials_of(request.headers))
            return Part([selection.show(turn) for turn in page.traces], page.next_page_token)

        return await list_response(request, store, read, page_size, cursor or "", lambda token: token or None)


def _conditions(body: ThreadConditions, window: Window) -> dict[str, Any]:
    return {
        "project_id": str(body.project_id),
        "min_start_time": to_timestamp(window.min_start_time_us),
        "max_start_time": to_timestamp(window.max_start_time_us),
        "filter": body.filter or "",
        "trace_filter": body.trace_filter or "",
        "tree_filter": body.tree_filter or "",
        "thread_filter": body.thread_filter or "",
    }
