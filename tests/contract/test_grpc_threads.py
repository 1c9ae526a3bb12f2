"""Traces and threads over the public gRPC port, with the generated stubs."""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import grpc
import pytest

from runstore.v1 import error_pb2
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2 as pb
from runstore.v1 import thread_query_service_pb2 as threads
from runstore.v1 import thread_query_service_pb2_grpc as threads_grpc
from runstore.v1 import trace_query_service_pb2 as traces
from runstore.v1 import trace_query_service_pb2_grpc as traces_grpc

from .servers import Server
from .test_grpc import STARTED, Stubs, create, project_id_of, refusal, timestamp

TURNS = 5
ALL_STATS = [number for number in threads.ThreadStatsField.values() if number]
Traces = traces_grpc.TraceQueryServiceStub
Threads = threads_grpc.ThreadQueryServiceStub


@dataclass(frozen=True)
class Talk:
    """Five turns of the thread `t`, a minute apart and each a chain with two calls of a model below it; the
    third failed. And one turn of `u`, and a trace of no thread."""

    project_id: str
    turns: list[str]
    other: str
    lone: str


def turn(project: str, at: datetime, thread_id: str | None, *, error: str = "") -> list[ingest.RunOperation]:
    """The operations of one trace; its root comes first."""
    root, *calls = (uuid.uuid4() for _ in range(3))
    metadata = {"metadata": {"thread_id": thread_id}}
    ended = timestamp(at + timedelta(seconds=2))
    usage: dict[str, Any] = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "total_cost": 0.25}
    usage |= {"input_token_details": {"cache_read": 4}, "output_token_details": {"reasoning": 1}}
    outputs = json.dumps({"usage_metadata": usage}).encode()
    token = [{"name": "new_token", "time": (at + timedelta(seconds=1)).isoformat()}]
    return [
        create(
            root,
            project,
            start_time=timestamp(at),
            end_time=ended,
            inputs=b'{"question": "why?"}',
            outputs=b'{"answer": "because"}',
            error=error,
            extra=json.dumps(metadata).encode(),
        ),
        *(
            create(
                call,
                project,
                run_type=pb.RUN_TYPE_LLM,
                parent_run_id=str(root),
                start_time=timestamp(at + timedelta(milliseconds=100)),
                end_time=ended,
                outputs=outputs,
                events=json.dumps(token).encode(),
                extra=json.dumps(metadata).encode(),
            )
            for call in calls
        ),
    ]


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def talk(channel: grpc.Channel) -> Talk:
    """Written once; the tests only read it."""
    project = f"talk-{uuid.uuid4().hex}"
    written = [
        turn(project, STARTED + timedelta(minutes=n), "t", error="late" if n == 2 else "")
        for n in range(TURNS)
    ]
    written.append(turn(project, STARTED + timedelta(hours=1), "u"))
    written.append(turn(project, STARTED + timedelta(hours=2), None))
    stubs = Stubs(channel)
    operations = [operation for trace in written for operation in trace]
    assert not stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=operations)).errors
    roots = [trace[0].create.id for trace in written]
    return Talk(project_id_of(stubs, project), roots[:TURNS], roots[TURNS], roots[TURNS + 1])


def walk(call: Callable[..., Any], request: Any, items: str) -> list[Any]:
    """Everything that a list yields, page by page."""
    found: list[Any] = []
    while True:
        page = call(request)
        found += getattr(page, items)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def assert_is_one_turn(usage: traces.TraceUsage, at: datetime) -> None:
    """What both calls of the model used together."""
    assert (usage.total_tokens, usage.prompt_tokens, usage.completion_tokens) == (30, 20, 10)
    assert usage.total_cost == "0.5"
    assert dict(usage.prompt_token_details) == {"cache_read": 8}
    assert dict(usage.completion_token_details) == {"reasoning": 2}
    assert usage.first_token_time == timestamp(at + timedelta(seconds=1))


@pytest.mark.parametrize("page_size", [1, 2, 7, 100])
def test_traces_newest_first(channel: grpc.Channel, talk: Talk, page_size: int) -> None:
    """Every root of the project comes once, with what its trace used."""
    request = traces.ListTracesRequest(project_id=talk.project_id, with_usage=True, page_size=page_size)
    found = walk(Traces(channel).ListTraces, request, "traces")
    assert [trace.root_run.id for trace in found] == [talk.lone, talk.other, *talk.turns[::-1]]
    for n, trace in enumerate(found[:1:-1]):
        assert_is_one_turn(trace.usage, STARTED + timedelta(minutes=n))


def test_conditions_on_traces(channel: grpc.Channel, talk: Talk) -> None:
    """The window's end is exclusive, its start is not; filters speak of the root; ids restrict."""

    def listed(**conditions: Any) -> list[str]:
        request = traces.ListTracesRequest(project_id=talk.project_id, **conditions)
        return [trace.root_run.id for trace in walk(Traces(channel).ListTraces, request, "traces")]

    second, fourth = (timestamp(STARTED + timedelta(minutes=n)) for n in (1, 3))
    assert listed(min_start_time=second, max_start_time=fourth) == talk.turns[2:0:-1]
    assert listed(trace_filter='eq(status, "error")') == [talk.turns[2]]
    assert listed(trace_filter='eq(run_type, "llm")') == []
    assert listed(trace_ids=[talk.turns[0], str(uuid.uuid4()), talk.lone]) == [talk.lone, talk.turns[0]]
    assert listed(trace_ids=[talk.turns[0]], trace_filter='eq(status, "error")') == []


def test_runs_of_a_trace_oldest_first(channel: grpc.Channel, talk: Talk) -> None:
    """The root and what is below it, page by page, filtered; a trace of nobody is not found."""
    request = traces.ListTraceRunsRequest(
        trace_id=talk.turns[0],
        project_id=talk.project_id,
        fields=[pb.RUN_FIELD_START_TIME, pb.RUN_FIELD_ID],
        page_size=2,
    )
    runs = walk(Traces(channel).ListTraceRuns, request, "runs")
    assert len(runs) == 3
    assert runs[0].id == talk.turns[0]
    calls = traces.ListTraceRunsRequest(
        trace_id=talk.turns[0], project_id=talk.project_id, filter='eq(run_type, "llm")'
    )
    assert len(Traces(channel).ListTraceRuns(calls).runs) == 2
    calls.filter = 'eq(name, "nobody")'
    assert not Traces(channel).ListTraceRuns(calls).runs
    stranger = str(uuid.uuid4())
    for missing in (
        traces.ListTraceRunsRequest(trace_id=stranger, project_id=talk.project_id),
        traces.ListTraceRunsRequest(trace_id=talk.turns[0], project_id=stranger),
    ):
        code, _ = refusal(partial(Traces(channel).ListTraceRuns, missing))
        assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("page_size", [1, 2, 100])
def test_threads_latest_first(channel: grpc.Channel, talk: Talk, page_size: int) -> None:
    """Both threads come once, summed up."""
    request = threads.ListThreadsRequest(project_id=talk.project_id, page_size=page_size)
    newest, thread = walk(Threads(channel).ListThreads, request, "threads")
    assert (newest.thread_id, newest.first_trace_id, newest.last_trace_id) == ("u", talk.other, talk.other)
    assert (thread.thread_id, thread.first_trace_id, thread.last_trace_id) == (
        "t", talk.turns[0], talk.turns[-1],
    )  # fmt: skip
    assert "why?" in thread.first_inputs_preview
    assert "because" in thread.last_outputs_preview
    assert thread.last_error_preview == "late"
    assert not newest.HasField("last_error_preview")
    stats = thread.stats
    assert (stats.trace_count, stats.failed_trace_count) == (TURNS, 1)
    assert (stats.latency_p50_seconds, stats.latency_p99_seconds) == (2.0, 2.0)
    assert (stats.total_tokens, stats.total_cost) == (30 * TURNS, "2.5")
    assert stats.last_start_time == timestamp(STARTED + timedelta(minutes=TURNS - 1))


def test_statistics_of_threads(channel: grpc.Channel, talk: Talk) -> None:
    """One thread and all of them; only what was selected is set."""
    one = threads.GetThreadStatsRequest(project_id=talk.project_id, thread_id="t", fields=ALL_STATS)
    stats = Threads(channel).GetThreadStats(one).stats
    assert (stats.thread_count, stats.trace_count, stats.error_rate) == (1, TURNS, 1 / TURNS)
    assert (stats.streaming_rate, stats.first_token_p50_seconds, stats.median_tokens) == (1.0, 1.0, 30)
    assert dict(stats.prompt_token_details) == {"cache_read": 8 * TURNS}
    one.filter = 'neq(status, "error")'
    assert Threads(channel).GetThreadStats(one).stats.trace_count == TURNS - 1
    every = threads.AggregateThreadStatsRequest(
        project_id=talk.project_id,
        fields=[threads.THREAD_STATS_FIELD_THREAD_COUNT, threads.THREAD_STATS_FIELD_TOTAL_TOKENS],
    )
    stats = Threads(channel).AggregateThreadStats(every).stats
    assert (stats.thread_count, stats.total_tokens) == (2, 30 * (TURNS + 1))
    assert {field.name for field, _ in stats.ListFields()} == {"thread_count", "total_tokens"}
    every.filter = 'eq(status, "error")'
    stats = Threads(channel).AggregateThreadStats(every).stats
    assert (stats.thread_count, stats.total_tokens) == (1, 30 * TURNS)
    every.filter = 'eq(name, "nobody")'
    stats = Threads(channel).AggregateThreadStats(every).stats
    assert (stats.thread_count, stats.total_tokens) == (0, 0)


@pytest.mark.parametrize("page_size", [1, 2, 100])
def test_traces_of_a_thread_oldest_first(channel: grpc.Channel, talk: Talk, page_size: int) -> None:
    """The turns, numbered over the whole thread whatever the filter leaves."""
    request = threads.ListThreadTracesRequest(
        project_id=talk.project_id,
        thread_id="t",
        with_usage=True,
        with_turn_numbers=True,
        page_size=page_size,
    )
    found = walk(Threads(channel).ListThreadTraces, request, "traces")
    assert [turn.trace.root_run.id for turn in found] == talk.turns
    assert [turn.turn_number for turn in found] == [1, 2, 3, 4, 5]
    for n, each in enumerate(found):
        assert_is_one_turn(each.trace.usage, STARTED + timedelta(minutes=n))
    request.filter, request.page_token = 'eq(status, "error")', ""
    [failed] = walk(Threads(channel).ListThreadTraces, request, "traces")
    assert (failed.turn_number, failed.trace.root_run.id) == (3, talk.turns[2])


def test_refusals(channel: grpc.Channel, talk: Talk) -> None:
    """What is not there is not found; bad requests name their field."""
    missing, reason = str(uuid.uuid4()), error_pb2.ERROR_REASON_INVALID_ARGUMENT
    not_found = error_pb2.ERROR_REASON_NOT_FOUND
    thread, trace = Threads(channel), Traces(channel)
    project: dict[str, Any] = {"project_id": talk.project_id}
    cases: list[tuple[Any, Any, int, str]] = [
        (trace.ListTraces, traces.ListTracesRequest(project_id=missing), not_found, "project_id"),
        (trace.ListTraces, traces.ListTracesRequest(), reason, "project_id"),
        (trace.ListTraces, traces.ListTracesRequest(**project, page_size=-1), reason, "page_size"),
        (trace.ListTraces, traces.ListTracesRequest(**project, trace_ids=["x"]), reason, "trace_ids[0]"),
        (
            trace.ListTraces,
            traces.ListTracesRequest(**project, trace_filter="eq("),
            error_pb2.ERROR_REASON_INVALID_FILTER,
            "trace_filter",
        ),
        (thread.ListThreads, threads.ListThreadsRequest(project_id=missing), not_found, "project_id"),
        (thread.ListThreads, threads.ListThreadsRequest(**project, page_size=-1), reason, "page_size"),
        (
            thread.ListThreads,
            threads.ListThreadsRequest(**project, page_token="f.x"),
            error_pb2.ERROR_REASON_INVALID_CURSOR,
            "cursor",
        ),
        (
            thread.GetThreadStats,
            threads.GetThreadStatsRequest(**project, thread_id="nobody", fields=ALL_STATS),
            not_found,
            "thread_id",
        ),
        (
            thread.GetThreadStats,
            threads.GetThreadStatsRequest(**project, thread_id="t"),
            reason,
            "fields",
        ),
        (
            thread.ListThreadTraces,
            threads.ListThreadTracesRequest(**project, thread_id="nobody"),
            not_found,
            "thread_id",
        ),
    ]
    for call, request, expected, field in cases:
        _, detail = refusal(partial(call, request))
        assert (detail.reason, detail.field) == (expected, field), request


def test_token_of_another_query_is_refused(channel: grpc.Channel, talk: Talk) -> None:
    """A page token leads on in its own query only, and not at another moment."""
    thread = Threads(channel)
    request = threads.ListThreadsRequest(project_id=talk.project_id, page_size=1)
    token = thread.ListThreads(request).next_page_token
    moment, rest = token.split(".")
    for changed in (
        threads.ListThreadsRequest(project_id=talk.project_id, filter='eq(name, "a")', page_token=token),
        threads.ListThreadsRequest(project_id=talk.project_id, page_token=f"{int(moment, 16) + 1:x}.{rest}"),
    ):
        _, detail = refusal(partial(thread.ListThreads, changed))
        assert detail.reason == error_pb2.ERROR_REASON_INVALID_CURSOR
