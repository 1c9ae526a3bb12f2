"""Threads: the traces of a project whose root runs name the same thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runstore.domain.conditions import Condition
from runstore.domain.runs import Position


class ThreadStat(StrEnum):
    """What can be said of the traces of one thread or of many.

    Tokens and costs are sums over all runs of the traces; the rest speaks of the root runs. Latencies
    are those of the ended traces, in seconds, quantiles interpolated.
    """

    THREAD_COUNT = "thread_count"
    TRACE_COUNT = "trace_count"
    FAILED_TRACE_COUNT = "failed_trace_count"
    """Traces whose root has an error."""
    ERROR_RATE = "error_rate"
    STREAMING_RATE = "streaming_rate"
    """Share of the ended traces any run of which streamed tokens."""
    FIRST_START_TIME = "first_start_time"
    LAST_START_TIME = "last_start_time"
    LAST_END_TIME = "last_end_time"
    LATENCY_P50 = "latency_p50_seconds"
    LATENCY_P99 = "latency_p99_seconds"
    FIRST_TOKEN_P50 = "first_token_p50_seconds"  # noqa: S105 - a time, no secret
    FIRST_TOKEN_P99 = "first_token_p99_seconds"  # noqa: S105 - a time, no secret
    MEDIAN_TOKENS = "median_tokens"
    """Of the traces that have any."""
    TOTAL_TOKENS = "total_tokens"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    TOTAL_COST = "total_cost"
    PROMPT_COST = "prompt_cost"
    COMPLETION_COST = "completion_cost"
    PROMPT_TOKEN_DETAILS = "prompt_token_details"  # noqa: S105 - counts, no secret
    COMPLETION_TOKEN_DETAILS = "completion_token_details"  # noqa: S105 - counts, no secret
    PROMPT_COST_DETAILS = "prompt_cost_details"
    COMPLETION_COST_DETAILS = "completion_cost_details"
    FEEDBACK_STATS = "feedback_stats"


ThreadStats = Mapping[ThreadStat, Any]
"""Statistics by name; those without a value are absent. Times in microseconds, costs as Decimal, details by
category, feedback as {key: FeedbackStats}."""

LISTED_STATS = frozenset(ThreadStat) - {
    ThreadStat.THREAD_COUNT,
    ThreadStat.ERROR_RATE,
    ThreadStat.STREAMING_RATE,
    ThreadStat.FIRST_TOKEN_P50,
    ThreadStat.FIRST_TOKEN_P99,
    ThreadStat.MEDIAN_TOKENS,
}
"""What a list says of every thread."""


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    """Which threads: those of one project that have a trace in the window and satisfy all filters."""

    tenant_id: str
    project_id: str
    min_start_time_us: int | None = None
    max_start_time_us: int | None = None
    """Of the root, both inclusive."""
    filter: Condition | None = None
    """The root of some trace in the window satisfies it."""
    trace_filter: Condition | None = None
    """As `filter`; tokens, costs and first token are those of the whole trace."""
    tree_filter: Condition | None = None
    """Some run of some trace in the window satisfies it."""
    thread_filter: Condition | None = None
    """The thread satisfies it, summed up over all its traces."""
    limit: int = 20
    after: Position | None = None
    """Start behind this thread, given by its latest root."""
    as_of: int | None = None
    """Order the threads as they were when this was the last sequence number."""


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread, as far as its traces are in the window of the query."""

    thread_id: str
    position: Position
    """Its latest root as of the query; where a page ended."""
    first_trace_id: str
    last_trace_id: str
    first_inputs_preview: str | None
    last_outputs_preview: str | None
    last_error_preview: str | None
    stats: ThreadStats


@dataclass(frozen=True, slots=True)
class ThreadPage:
    """Threads in order, and whether any follow."""

    threads: tuple[Thread, ...]
    has_more: bool
