"""Questions that people ask of a store of many runs, and how long each takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tests.bench.corpus import RARE_TAG
from tests.bench.history import LONG_TRACE_RUNS, RARE_WORD, SECOND_RARE_WORD, TRACE_RUNS, Landmarks
from tests.bench.workers import now_us

from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as pb
from runstore.v1 import run_stats_service_pb2 as stats_pb
from runstore.v1 import thread_query_service_pb2 as threads_pb
from runstore.v1.run_query_service_pb2_grpc import RunQueryServiceStub
from runstore.v1.run_stats_service_pb2_grpc import RunStatsServiceStub
from runstore.v1.thread_query_service_pb2_grpc import ThreadQueryServiceStub

_LIGHT = (
    *("id", "name", "run_type", "status", "start_time", "end_time", "latency_seconds", "trace_id"),
    *("parent_run_ids", "is_root", "dotted_order", "inputs_preview", "outputs_preview", "error_preview"),
    *("tags", "total_tokens", "total_cost", "thread_id"),
)
_COMPLETE = (*_LIGHT, "inputs", "outputs", "error", "extra", "events")
_STATS = (
    *("run_count", "latency_p50", "latency_p99", "first_token_p50", "first_token_p99", "error_rate"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "total_cost", "last_run_start_time"),
)
_PAGE = 100
_THREADS = 20
_DAY_US = 86_400_000_000
_WARM_UP_CALLS = 5
_LONGEST_S = 15.0
_FEWEST_CALLS = 20
_P99_FACTOR = 4
"""The budget of the 99th percentile, in budgets of the median."""

Request: TypeAlias = (
    pb.ListRunsRequest | pb.GetRunRequest | threads_pb.ListThreadsRequest | stats_pb.RunStatsRequest
)


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of read, with enough different arguments that no cache answers it."""

    name: str
    requests: tuple[Request, ...]
    p50_ms: float
    """Budget for the median."""
    expected: int | None = None
    """How many things each answer must hold, so that a fast wrong answer is noticed."""

    @property
    def p99_ms(self) -> float:
        """Budget for the slowest hundredth."""
        return _P99_FACTOR * self.p50_ms


def questions(landmarks: Landmarks) -> list[Question]:
    """What is asked of the project with the landmarks, and of the whole store."""
    project_id = landmarks.project_ids[0]

    def runs(fields: Sequence[str] = _LIGHT, **conditions: object) -> tuple[pb.ListRunsRequest]:
        request = pb.ListRunsRequest(project_ids=[project_id], fields=_numbers(fields), page_size=_PAGE)
        request.MergeFrom(pb.ListRunsRequest(**conditions))  # type: ignore[arg-type]  # names of fields, as given above
        return (request,)

    traces = tuple(
        pb.ListRunsRequest(trace_id=trace_id, fields=_numbers(_LIGHT), page_size=_PAGE)
        for trace_id in landmarks.trace_ids
    )
    long_trace = pb.ListRunsRequest(
        trace_id=landmarks.long_trace_id, fields=_numbers(_LIGHT), page_size=_PAGE
    )
    by_id = tuple(pb.GetRunRequest(id=run_id, fields=_numbers(_COMPLETE)) for run_id in landmarks.run_ids)
    selective = 'and(eq(status, "error"), has(tags, "eu"), gt(latency, "1s"))'
    pair = 'and(eq(metadata_key, "customer"), eq(metadata_value, "c-0042"))'
    return [
        Question("newest 100, light fields", runs(), 25, _PAGE),
        Question("newest 100 with inputs and outputs", runs([*_LIGHT, "inputs", "outputs"]), 50, _PAGE),
        Question("newest 100 roots", runs(is_root=True), 25, _PAGE),
        Question("filter: error and tag and latency", runs(filter=selective), 60),
        Question("filter: a rare tag", runs(filter=f'has(tags, "{RARE_TAG}")'), 60),
        Question("filter: a metadata pair", runs(filter=pair), 60),
        Question(
            "filter: nothing matches, no index helps", runs(filter="gt(total_tokens, 900000000)"), 250, 0
        ),
        Question("filter: nothing matches, by name", runs(filter='eq(name, "nobody")'), 250, 0),
        Question(f"one trace of {TRACE_RUNS} runs", traces, 15, TRACE_RUNS),
        Question(f"a trace of {LONG_TRACE_RUNS:,} runs, first page", (long_trace,), 60, _PAGE),
        Question("one run by id, complete", by_id, 15, 1),
        Question("search: a rare word", runs(filter=f'search("{RARE_WORD}")'), 60, landmarks.rare_runs),
        Question(
            "search: two words",
            runs(filter=f'search("{SECOND_RARE_WORD} {RARE_WORD}")'),
            100,
            landmarks.rare_runs // 2,
        ),
        Question(
            "trace_filter and tree_filter",
            runs(
                filter='eq(run_type, "llm")',
                trace_filter=f'has(tags, "{RARE_TAG}")',
                tree_filter='eq(name, "lookup_order")',
            ),
            150,
        ),
        Question("threads of a day, a page", (_threads(project_id),), 60, _THREADS),
        Question("statistics of a day", (_statistics(project_id),), 150, 1),
    ]


def _threads(project_id: str) -> threads_pb.ListThreadsRequest:
    request = threads_pb.ListThreadsRequest(project_id=project_id, page_size=_THREADS)
    request.min_start_time.FromMicroseconds(now_us() - _DAY_US)
    return request


def _statistics(project_id: str) -> stats_pb.RunStatsRequest:
    """What a dashboard shows, of the day before the last."""
    low, high = Timestamp(), Timestamp()
    low.FromMicroseconds(now_us() - 2 * _DAY_US)
    high.FromMicroseconds(now_us() - _DAY_US)
    runs = pb.ListRunsRequest(project_ids=[project_id], min_start_time=low, max_start_time=high)
    fields = [stats_pb.RunStatsField.Value(f"RUN_STATS_FIELD_{name.upper()}") for name in _STATS]
    return stats_pb.RunStatsRequest(runs=runs, fields=fields)


class Reader:
    """Asks one server."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._runs = RunQueryServiceStub(channel)
        self._threads = ThreadQueryServiceStub(channel)
        self._stats = RunStatsServiceStub(channel)

    def times_ms(self, question: Question, calls: int) -> list[float]:
        """Of each of `calls` calls, one after the other; fewer of a question that is slow."""
        requests = question.requests
        for number in range(_WARM_UP_CALLS):
            self._call(requests[number % len(requests)])
        times_ms: list[float] = []
        enough_s = time.monotonic() + _LONGEST_S
        while len(times_ms) < calls and (len(times_ms) < _FEWEST_CALLS or time.monotonic() < enough_s):
            request = requests[len(times_ms) % len(requests)]
            started_s = time.perf_counter()
            found = self._call(request)
            times_ms.append((time.perf_counter() - started_s) * 1e3)
            if question.expected not in (None, found):
                raise RuntimeError(f"{question.name}: {found} instead of {question.expected}")
        return times_ms

    def _call(self, request: Request) -> int:
        """How many things the answer holds."""
        if isinstance(request, pb.GetRunRequest):
            return int(self._runs.GetRun(request).HasField("run"))
        if isinstance(request, threads_pb.ListThreadsRequest):
            return len(self._threads.ListThreads(request).threads)
        if isinstance(request, stats_pb.RunStatsRequest):
            return len(self._stats.RunStats(request).groups)
        return len(self._runs.ListRuns(request).runs)


def _numbers(fields: Sequence[str]) -> list[run_pb2.RunField.ValueType]:
    return [run_pb2.RunField.Value(f"RUN_FIELD_{name.upper()}") for name in fields]
