"""Questions that people ask of a store of many runs, and how long each takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.corpus import RARE_TAG, RUNS_PER_TRACE

from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as pb
from runstore.v1.run_query_service_pb2_grpc import RunQueryServiceStub

_LIGHT = (
    *("id", "name", "run_type", "status", "start_time", "end_time", "latency_seconds", "trace_id"),
    *("parent_run_ids", "is_root", "dotted_order", "inputs_preview", "outputs_preview", "error_preview"),
    *("tags", "total_tokens", "total_cost", "thread_id"),
)
_COMPLETE = (*_LIGHT, "inputs", "outputs", "error", "extra", "events")
_WARM_UP_CALLS = 5
_LONGEST_S = 15.0
_FEWEST_CALLS = 20


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of read, with enough different arguments that no cache answers it."""

    name: str
    requests: tuple[pb.ListRunsRequest | pb.GetRunRequest, ...]
    at_most_ms: float | None = None
    """Budget for the median."""
    expected_runs: int | None = None
    """How many runs each answer must hold, so that a fast wrong answer is noticed."""


def questions(project_id: str, run_ids: Sequence[str], trace_ids: Sequence[str]) -> list[Question]:
    """The questions; ids are of stored runs and of stored whole traces."""

    def listing(fields: Sequence[str], **conditions: object) -> pb.ListRunsRequest:
        request = pb.ListRunsRequest(project_ids=[project_id], fields=_numbers(fields), page_size=100)
        request.MergeFrom(pb.ListRunsRequest(**conditions))  # type: ignore[arg-type]  # names of fields, as given above
        return request

    whole_traces = tuple(
        pb.ListRunsRequest(trace_id=trace_id, fields=_numbers(_LIGHT), page_size=100)
        for trace_id in trace_ids
    )
    by_id = tuple(pb.GetRunRequest(id=run_id, fields=_numbers(_COMPLETE)) for run_id in run_ids)
    failed_llm = listing(_LIGHT, has_error=True, run_type=run_pb2.RUN_TYPE_LLM)
    return [
        Question("newest 100, light fields", (listing(_LIGHT),), 25, 100),
        Question("newest 100, inputs and outputs too", (listing([*_LIGHT, "inputs", "outputs"]),), None, 100),
        Question("newest 100 roots", (listing(_LIGHT, is_root=True),), None, 100),
        Question("filter: failed llm runs (1 in 330)", (failed_llm,), 60, None),
        Question(
            "filter: a rare tag (1 in 5,000)", (listing(_LIGHT, filter=f'has(tags, "{RARE_TAG}")'),), 60, None
        ),
        Question("one trace", whole_traces, 15, RUNS_PER_TRACE),
        Question("one run by id, complete", by_id, 10, 1),
    ]


def ask(stub: RunQueryServiceStub, question: Question, calls: int) -> list[float]:
    """Milliseconds of each of `calls` calls, one after the other; fewer of a question that is slow."""
    requests = question.requests
    for number in range(_WARM_UP_CALLS):
        _call(stub, requests[number % len(requests)])
    times_ms: list[float] = []
    enough_s = time.monotonic() + _LONGEST_S
    while len(times_ms) < calls and (len(times_ms) < _FEWEST_CALLS or time.monotonic() < enough_s):
        times_ms.append(_timed_ms(stub, question, requests[len(times_ms) % len(requests)]))
    return times_ms


def _timed_ms(
    stub: RunQueryServiceStub, question: Question, request: pb.ListRunsRequest | pb.GetRunRequest
) -> float:
    started_s = time.perf_counter()
    found = _call(stub, request)
    taken_ms = (time.perf_counter() - started_s) * 1e3
    if question.expected_runs is not None and found != question.expected_runs:
        raise RuntimeError(f"{question.name}: {found} runs instead of {question.expected_runs}")
    return taken_ms


def _call(stub: RunQueryServiceStub, request: pb.ListRunsRequest | pb.GetRunRequest) -> int:
    """How many runs the answer holds."""
    if isinstance(request, pb.GetRunRequest):
        return int(stub.GetRun(request).HasField("run"))
    return len(stub.ListRuns(request).runs)


def _numbers(fields: Sequence[str]) -> list[run_pb2.RunField.ValueType]:
    return [run_pb2.RunField.Value(f"RUN_FIELD_{name.upper()}") for name in fields]
