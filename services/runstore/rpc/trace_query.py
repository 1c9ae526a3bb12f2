"""Serves `TraceQueryService`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc

from runstore.domain.runs import RunField, RunQuery
from runstore.domain.traces import Trace, Usage
from runstore.ingest.validation import uuid_text
from runstore.query.binding import parse_condition
from runstore.query.list_traces import ListTraces
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import decimal_text, feedback_window, optional_time_us, run_fields, set_time
from runstore.rpc.run_messages import RunMessages
from runstore.v1 import trace_query_service_pb2 as pb
from runstore.v1 import trace_query_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TraceQueryServicer(trace_query_service_pb2_grpc.TraceQueryServiceServicer):
    """Maps questions in and traces out."""

    def __init__(self, traces: ListTraces, messages: RunMessages) -> None:
        self._traces = traces
        self._messages = messages

    async def ListTraces(self, request: pb.ListTracesRequest, context: _Context) -> pb.ListTracesResponse:
        window = feedback_window(request)
        query = RunQuery(
            tenant_id=current_principal.get().tenant_id,
            fields=run_fields(request.fields),
            project_ids=(uuid_text("project_id", request.project_id),),
            run_ids=tuple(
                uuid_text(f"trace_ids[{index}]", value) for index, value in enumerate(request.trace_ids)
            ),
            min_start_time_us=optional_time_us(request, "min_start_time"),
            max_start_time_us=last_before_us(request, "max_start_time"),
            filter=window.narrow(parse_condition(request.trace_filter, "trace_filter")),
            tree_filter=window.narrow(parse_condition(request.tree_filter, "tree_filter")),
        )
        window.check()
        page = await self._traces.page(
            query, request.page_size, request.page_token, with_usage=request.with_usage
        )
        traces = await trace_messages(page.traces, query, self._messages)
        return pb.ListTracesResponse(traces=traces, next_page_token=page.next_page_token)

    async def ListTraceRuns(
        self, request: pb.ListTraceRunsRequest, context: _Context
    ) -> pb.ListTraceRunsResponse:
        query = RunQuery(
            tenant_id=current_principal.get().tenant_id,
            fields=run_fields(request.fields),
            project_ids=(uuid_text("project_id", request.project_id),),
            trace_id=uuid_text("trace_id", request.trace_id),
            min_start_time_us=optional_time_us(request, "min_start_time"),
            max_start_time_us=optional_time_us(request, "max_start_time"),
            filter=parse_condition(request.filter, "filter"),
        )
        page = await self._traces.runs(query, request.page_size, request.page_token)
        runs = await self._messages.messages(query.tenant_id, page.runs, query.fields)
        return pb.ListTraceRunsResponse(runs=runs, next_page_token=page.next_page_token)


async def trace_messages(traces: Sequence[Trace], query: RunQuery, messages: RunMessages) -> list[pb.Trace]:
    """Traces with the fields of their roots that the query selects."""
    roots = await messages.messages(query.tenant_id, [trace.root for trace in traces], query.fields)
    return [
        pb.Trace(root_run=root, usage=_usage_message(trace.usage) if trace.usage else None)
        for trace, root in zip(traces, roots, strict=True)
    ]


def last_before_us(request: Any, field: str) -> int | None:
    """The last microsecond before a time that bounds exclusively."""
    time_us = optional_time_us(request, field)
    return None if time_us is None else time_us - 1


def _usage_message(usage: Usage) -> pb.TraceUsage:
    message = pb.TraceUsage()
    for field, value in usage.items():
        if field is RunField.FIRST_TOKEN_TIME:
            set_time(message.first_token_time, value)
        else:
            set_number(message, field.value, value)
    return message


def set_number(message: Any, name: str, value: Any) -> None:
    """Set a field that holds a count, a cost, or either by category; costs are decimals and become texts."""
    if isinstance(value, dict):
        is_cost = name.endswith("cost_details")
        getattr(message, name).update(
            {category: decimal_text(each) if is_cost else each for category, each in value.items()}
        )
    else:
        setattr(message, name, decimal_text(value) if name.endswith("_cost") else value)
