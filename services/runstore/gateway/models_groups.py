"""Bodies and answers of the v1 routes that group runs by conversation, as pydantic models."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from runstore.gateway.time_fields import TimeUs


class RunGroupQuery(BaseModel):
    """Which conversations: those with a trace that satisfies every condition."""

    session_id: UUID = Field(description="Project.")
    group_by: Literal["conversation"] = "conversation"
    filter: str | None = Field(None, description="On the root run of some trace.")
    start_time: TimeUs | None = Field(None, description="Traces that started at this time or later.")
    end_time: TimeUs | None = Field(None, description="Traces that started before this time.")
    offset: int = Field(0, ge=0, le=10_000)
    limit: int = Field(10, ge=1, le=100)


# --- answers; for documentation only -------------------------------------------------------------------


class RunGroup(BaseModel):
    """A conversation, as far as its traces are in the window."""

    group_key: str = Field(description="Id of the thread.")
    filter: str = Field(description="Finds its runs.")
    count: int = Field(description="Traces.")
    min_start_time: str | None
    max_start_time: str | None
    latency_p50: float | None
    latency_p99: float | None
    total_tokens: int
    total_cost: float | None
    feedback_stats: dict[str, Any] | None
    first_trace_id: UUID
    last_trace_id: UUID
    first_inputs: str | None
    last_outputs: str | None
    last_error: str | None


class RunGroupPage(BaseModel):
    """Some conversations, and how many there are in all."""

    groups: list[RunGroup]
    total: int


class RunGroupStats(BaseModel):
    """The traces of conversations, summed up."""

    group_count: int | None
    run_count: int | None
    error_rate: float | None
    streaming_rate: float | None
    latency_p50: float | None
    latency_p99: float | None
    first_token_p50: float | None
    first_token_p99: float | None
    median_tokens: int | None
    total_tokens: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_cost: float | None
    prompt_cost: float | None
    completion_cost: float | None
    last_run_start_time: str | None
    feedback_stats: dict[str, Any] | None
