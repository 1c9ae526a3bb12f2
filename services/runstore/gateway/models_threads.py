"""Bodies and answers of the routes of traces and threads, as pydantic models."""

from collections.abc import Callable, Collection
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from runstore.gateway import thread_json
from runstore.gateway.models import AiSearch, RunV2, SelectV2
from runstore.gateway.time_fields import TimeUs

_WINDOW_START = "Inclusive; a day ago when absent."
_WINDOW_END = "Exclusive; now when absent."


def _one_of(known: Collection[str]) -> Callable[[str], str]:
    """Checks a value of `selects`, in any case."""

    def check(value: str) -> str:
        name = value.upper()
        if name not in known:
            raise PydanticCustomError("enum", "not a field that can be selected")
        return name

    return check


def _schema(known: Collection[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(known)})


AggregateStatSelect = Annotated[
    str, AfterValidator(_one_of(thread_json.AGGREGATE_STATS)), _schema(thread_json.AGGREGATE_STATS)
]
ThreadStatSelect = Annotated[
    str, AfterValidator(_one_of(thread_json.THREAD_STATS)), _schema(thread_json.THREAD_STATS)
]
ThreadTraceSelect = Annotated[
    str,
    AfterValidator(_one_of(thread_json.THREAD_TRACE_SELECTS)),
    _schema(thread_json.THREAD_TRACE_SELECTS),
]


class TracesQuery(BaseModel):
    """Which traces to list. All conditions hold together."""

    project_id: UUID
    min_start_time: TimeUs | None = Field(None, description=_WINDOW_START)
    max_start_time: TimeUs | None = Field(None, description=_WINDOW_END)
    trace_filter: str | None = Field(None, description="On the root run.")
    tree_filter: str | None = Field(None, description="On any run of the trace.")
    trace_ids: list[UUID] | None = Field(None, description="These traces only.")
    min_feedback_modified_at: TimeUs | None = Field(
        None, description="Inclusive; of the feedback that the filters look at."
    )
    max_feedback_modified_at: TimeUs | None = Field(
        None, description="Exclusive; of the feedback that the filters look at."
    )
    selects: list[SelectV2] | None = Field(
        None,
        description="TOTAL_TOKENS, TOTAL_COST and FIRST_TOKEN_TIME select those of the whole trace, all "
        "others fields of the root run; only its `id` when absent.",
    )
    page_size: int | None = Field(None, ge=1, le=100, description="20 when absent.")
    cursor: str | None = Field(None, description="`next_cursor` of the previous page.")
    ai_search: AiSearch = None


class ThreadConditions(BaseModel):
    """Which threads: those with a trace in the window that satisfy all filters."""

    project_id: UUID
    min_start_time: TimeUs | None = Field(None, description=_WINDOW_START)
    max_start_time: TimeUs | None = Field(None, description=_WINDOW_END)
    filter: str | None = Field(None, description="Some root run of the thread in the window satisfies it.")
    trace_filter: str | None = Field(None, description="As `filter`; usage is that of the whole trace.")
    tree_filter: str | None = Field(None, description="Some run of some trace of the thread satisfies it.")
    thread_filter: str | None = Field(
        None, description="The thread satisfies it, summed up over all its time."
    )


class ThreadsQuery(ThreadConditions):
    """Which threads to list."""

    page_size: int | None = Field(None, ge=1, le=100, description="20 when absent.")
    cursor: str | None = Field(None, description="`next_cursor` of the previous page.")
    ai_search: AiSearch = None


class ThreadStatsQuery(ThreadConditions):
    """Which threads to sum up, and what to say of them."""

    select: list[AggregateStatSelect] = Field(min_length=1)


# --- answers; for documentation only -------------------------------------------------------------------


class RunsV2(BaseModel):
    """The runs of a trace, oldest first."""

    items: list[RunV2]


class TraceAggregates(BaseModel):
    """What all runs of a trace used together."""

    total_tokens: int | None = None
    total_cost: float | None = None
    first_token_time: str | None = None


class Trace(BaseModel):
    """A trace; aggregates only if selected."""

    root_run: RunV2
    trace_aggregates: TraceAggregates | None = None
    query_metadata: None


class TracePage(BaseModel):
    """A page of traces."""

    items: list[Trace]
    next_cursor: str | None


class Thread(BaseModel):
    """A thread, as far as its traces are in the window."""

    thread_id: str
    count: int
    start_time: str
    min_start_time: str
    max_start_time: str
    trace_id: UUID
    first_trace_id: UUID
    last_trace_id: UUID
    first_inputs: str | None
    last_outputs: str | None
    last_error: str | None = None
    num_errored_turns: int
    latency_p50: float | None
    latency_p99: float | None
    total_tokens: int
    total_cost: float
    total_token_details: dict[str, int]
    total_cost_details: dict[str, float]
    feedback_stats: dict[str, Any] | None
    query_metadata: None


class ThreadPage(BaseModel):
    """A page of threads."""

    items: list[Thread]
    next_cursor: str | None


class ThreadTracePage(BaseModel):
    """A page of a thread's traces; of each `trace_id` and the selected keys."""

    items: list[dict[str, Any]]
    next_cursor: str | None


class RunUrl(BaseModel):
    """Where a user interface shows a run."""

    url: str
