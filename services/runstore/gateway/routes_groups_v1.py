"""The v1 routes that group runs by conversation (contract runs-v1, section 8): `POST /runs/group`,
`POST /runs/group/stats`, `GET /runs/threads/{thread_id}`.
"""

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import Query, Request
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.times import format_naive
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.models_groups import RunGroup, RunGroupPage, RunGroupQuery, RunGroupStats
from runstore.gateway.run_values import feedback_by_key
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import to_time_us, to_timestamp
from runstore.v1 import thread_query_service_pb2 as pb

# Keys of the answer to `/runs/group/stats` by the field of the threads' statistics.
_STATS: Final = {
    "group_count": "thread_count",
    "run_count": "trace_count",
    "error_rate": "error_rate",
    "streaming_rate": "streaming_rate",
    "latency_p50": "latency_p50_seconds",
    "latency_p99": "latency_p99_seconds",
    "first_token_p50": "first_token_p50_seconds",
    "first_token_p99": "first_token_p99_seconds",
    "median_tokens": "median_tokens",
    "total_tokens": "total_tokens",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "total_cost": "total_cost",
    "prompt_cost": "prompt_cost",
    "completion_cost": "completion_cost",
    "last_run_start_time": "last_start_time",
    "feedback_stats": "feedback_stats",
}
_PAGE_SIZE: Final = 100
_BAD: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Detail, "description": "A bad filter."},
    404: {"model": Detail, "description": "No such project or conversation."},
}


def group_routes_v1(store: StoreClient) -> GuardedRouter:
    """The routes, reading from `store`."""
    router = GuardedRouter(tags=["Runs (v1)"])

    @router.post("/runs/group", response_model=RunGroupPage, responses=_BAD)
    async def group_runs(request: Request, body: RunGroupQuery) -> Response:
        """Lists conversations, that with the latest trace first."""
        credentials = credentials_of(request.headers)
        groups = await _groups(store, body, credentials)
        counted = await store.aggregate_thread_stats(
            pb.AggregateThreadStatsRequest(**_conditions(body), fields=[pb.THREAD_STATS_FIELD_THREAD_COUNT]),
            credentials,
        )
        total = counted.stats.thread_count
        return json_response({"groups": [_group(thread) for thread in groups], "total": total})

    @router.post("/runs/group/stats", response_model=RunGroupStats, responses=_BAD)
    async def sum_groups_up(request: Request, body: RunGroupQuery) -> Response:
        """Sums up the traces of all conversations."""
        fields = [pb.ThreadStatsField.Value(f"THREAD_STATS_FIELD_{name.upper()}") for name in _STATS.values()]
        query = pb.AggregateThreadStatsRequest(**_conditions(body), fields=fields)
        answer = await store.aggregate_thread_stats(query, credentials_of(request.headers))
        return json_response({key: _stat(answer.stats, name) for key, name in _STATS.items()})

    @router.get("/runs/threads/{thread_id:path}", response_model=RunGroup, responses=_BAD)
    async def preview_thread(
        request: Request,
        thread_id: str,
        session_id: Annotated[UUID, Query(description="Project of the conversation.")],
    ) -> Response:
        """What a conversation is about: its first input and last output, and its traces summed up."""
        query = pb.ListThreadsRequest(project_id=str(session_id), filter=_filter(thread_id), page_size=1)
        answer = await store.list_threads(query, credentials_of(request.headers))
        if not answer.threads:
            raise RunstoreError(
                ErrorReason.NOT_FOUND, "there is no such thread in the project", field="thread_id"
            )
        return json_response(_group(answer.threads[0]))

    return router


async def _groups(store: StoreClient, body: RunGroupQuery, credentials: Credentials) -> list[pb.Thread]:
    """The page at the body's offset: those before it are passed over, which is why it is bounded."""
    query = pb.ListThreadsRequest(**_conditions(body))
    threads: list[pb.Thread] = []
    while len(threads) < body.offset + body.limit:
        query.page_size = min(_PAGE_SIZE, body.offset + body.limit - len(threads))
        page = await store.list_threads(query, credentials)
        threads += page.threads
        query.page_token = page.next_page_token
        if not query.page_token:
            break
    return threads[body.offset :]


def _conditions(body: RunGroupQuery) -> dict[str, Any]:
    return {
        "project_id": str(body.session_id),
        "filter": body.filter or "",
        "min_start_time": None if body.start_time is None else to_timestamp(body.start_time),
        "max_start_time": None if body.end_time is None else to_timestamp(body.end_time),
    }


def _filter(thread_id: str) -> str:
    return f"eq(thread_id, {msgspec.json.encode(thread_id).decode()})"


def _group(thread: pb.Thread) -> dict[str, Any]:
    stats = thread.stats
    return {
        "group_key": thread.thread_id,
        "filter": _filter(thread.thread_id),
        "count": stats.trace_count,
        "min_start_time": _stat(stats, "first_start_time"),
        "max_start_time": _stat(stats, "last_start_time"),
        "latency_p50": _stat(stats, "latency_p50_seconds"),
        "latency_p99": _stat(stats, "latency_p99_seconds"),
        "total_tokens": stats.total_tokens,
        "total_cost": _stat(stats, "total_cost"),
        "feedback_stats": _stat(stats, "feedback_stats"),
        "first_trace_id": thread.first_trace_id,
        "last_trace_id": thread.last_trace_id,
        "first_inputs": thread.first_inputs_preview if thread.HasField("first_inputs_preview") else None,
        "last_outputs": thread.last_outputs_preview if thread.HasField("last_outputs_preview") else None,
        "last_error": thread.last_error_preview if thread.HasField("last_error_preview") else None,
    }


def _stat(stats: pb.ThreadStats, name: str) -> Any:
    """One statistic as v1 writes it: naive times, costs as numbers; None when it is absent."""
    if name == "feedback_stats":
        return feedback_by_key(stats.feedback_stats)
    if not stats.HasField(name):  # type: ignore[arg-type] # a Literal of every name
        return None
    value = getattr(stats, name)
    if name.endswith("_time"):
        return format_naive(to_time_us(value))
    return float(value) if name.endswith("_cost") else value
