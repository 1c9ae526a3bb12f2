"""Serves `ThreadQueryService`."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import grpc

from runstore.domain.errors import invalid
from runstore.domain.runs import RunQuery
from runstore.domain.threads import Thread, ThreadQuery, ThreadStat, ThreadStats
from runstore.ingest.validation import uuid_text
from runstore.query.binding import parse_condition
from runstore.query.list_threads import ListThreads
from runstore.query.thread_fields import parse_thread_condition
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import feedback_stats_message, optional_time_us, run_fields, set_time
from runstore.rpc.run_messages import RunMessages
from runstore.rpc.trace_query import last_before_us, set_number, trace_messages
from runstore.v1 import thread_query_service_pb2 as pb
from runstore.v1 import thread_query_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_FIELDS: dict[pb.ThreadStatsField.ValueType, ThreadStat] = {
    number: ThreadStat(name.removeprefix("THREAD_STATS_FIELD_").lower())
    for name, number in pb.ThreadStatsField.items()
    if number != pb.THREAD_STATS_FIELD_UNSPECIFIED
}
_TIMES = frozenset({ThreadStat.FIRST_START_TIME, ThreadStat.LAST_START_TIME, ThreadStat.LAST_END_TIME})


class ThreadQueryServicer(thread_query_service_pb2_grpc.ThreadQueryServiceServicer):
    """Maps questions in, threads and statistics out."""

    def __init__(self, threads: ListThreads, messages: RunMessages) -> None:
        self._threads = threads
        self._messages = messages

    async def ListThreads(self, request: pb.ListThreadsRequest, context: _Context) -> pb.ListThreadsResponse:
        page = await self._threads.page(_query(request), request.page_size, request.page_token)
        threads = [_thread_message(thread) for thread in page.threads]
        return pb.ListThreadsResponse(threads=threads, next_page_token=page.next_page_token)

    async def AggregateThreadStats(
        self, request: pb.AggregateThreadStatsRequest, context: _Context
    ) -> pb.AggregateThreadStatsResponse:
        query, stats = _query(request), _selected(request.fields)
        found = await self._threads.aggregate_stats(query, stats)
        return pb.AggregateThreadStatsResponse(stats=_stats_message(found))

    async def GetThreadStats(
        self, request: pb.GetThreadStatsRequest, context: _Context
    ) -> pb.GetThreadStatsResponse:
        query = ThreadQuery(
            tenant_id=current_principal.get().tenant_id,
            project_id=uuid_text("project_id", request.project_id),
            filter=parse_condition(request.filter, "filter"),
        )
        stats = _selected(request.fields)
        found = await self._threads.thread_stats(query, request.thread_id, stats)
        return pb.GetThreadStatsResponse(stats=_stats_message(found))

    async def ListThreadTraces(
        self, request: pb.ListThreadTracesRequest, context: _Context
    ) -> pb.ListThreadTracesResponse:
        query = RunQuery(
            tenant_id=current_principal.get().tenant_id,
            fields=run_fields(request.fields),
            project_ids=(uuid_text("project_id", request.project_id),),
            filter=parse_condition(request.filter, "filter"),
            trace_filter=parse_condition(request.trace_filter, "trace_filter"),
            tree_filter=parse_condition(request.tree_filter, "tree_filter"),
        )
        page = await self._threads.traces(
            query,
            request.thread_id,
            request.page_size,
            request.page_token,
            with_usage=request.with_usage,
            with_turn_numbers=request.with_turn_numbers,
        )
        messages = await trace_messages(page.traces, query, self._messages)
        traces = [
            pb.ThreadTrace(trace=message, turn_number=trace.turn_number)
            for trace, message in zip(page.traces, messages, strict=True)
        ]
        return pb.ListThreadTracesResponse(traces=traces, next_page_token=page.next_page_token)


def _query(request: pb.ListThreadsRequest | pb.AggregateThreadStatsRequest) -> ThreadQuery:
    return ThreadQuery(
        tenant_id=current_principal.get().tenant_id,
        project_id=uuid_text("project_id", request.project_id),
        min_start_time_us=optional_time_us(request, "min_start_time"),
        max_start_time_us=last_before_us(request, "max_start_time"),
        filter=parse_condition(request.filter, "filter"),
        trace_filter=parse_condition(request.trace_filter, "trace_filter"),
        tree_filter=parse_condition(request.tree_filter, "tree_filter"),
        thread_filter=parse_thread_condition(request.thread_filter),
    )


def _selected(numbers: Iterable[pb.ThreadStatsField.ValueType]) -> frozenset[ThreadStat]:
    stats = set()
    for number in numbers:
        if number not in _FIELDS:
            raise invalid("fields", f"{number} is not a statistic of threads")
        stats.add(_FIELDS[number])
    if not stats:
        raise invalid("fields", "at least one is needed")
    return frozenset(stats)


def _thread_message(thread: Thread) -> pb.Thread:
    message = pb.Thread(
        thread_id=thread.thread_id,
        first_trace_id=thread.first_trace_id,
        last_trace_id=thread.last_trace_id,
        stats=_stats_message(thread.stats),
    )
    for name in ("first_inputs_preview", "last_outputs_preview", "last_error_preview"):
        if (value := getattr(thread, name)) is not None:
            setattr(message, name, value)
    return message


def _stats_message(stats: ThreadStats) -> pb.ThreadStats:
    message = pb.ThreadStats()
    for stat, value in stats.items():
        if stat in _TIMES:
            set_time(getattr(message, stat.value), value)
        elif stat is ThreadStat.FEEDBACK_STATS:
            for key, each in value.items():
                message.feedback_stats[key].CopyFrom(feedback_stats_message(each))
        else:
            set_number(message, stat.value, value)
    return message
