"""Statistics of runs: what can be asked about many of them together."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runstore.domain.runs import RunQuery


class StatsField(StrEnum):
    """One statistic; the values are the keys of the public contract, v1.

    Percentiles are interpolated between the two nearest values; those of tokens are the nearest below or
    above, a whole number that occurs. Runs without the value do not count, and a statistic of no values is
    absent.
    """

    RUN_COUNT = "run_count"
    LATENCY_P50 = "latency_p50"
    """Seconds, as every latency; of the runs that have ended."""
    LATENCY_P99 = "latency_p99"
    LATENCY_AVG = "latency_avg"
    FIRST_TOKEN_P50 = "first_token_p50"  # noqa: S105 - a time, as all of them no secret
    """Seconds from start to first token, of the runs that streamed."""
    FIRST_TOKEN_P99 = "first_token_p99"  # noqa: S105
    TOTAL_TOKENS = "total_tokens"
    """A sum, 0 without any usage; so are all costs and details."""
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    MEDIAN_TOKENS = "median_tokens"
    COMPLETION_TOKENS_P50 = "completion_tokens_p50"
    PROMPT_TOKENS_P50 = "prompt_tokens_p50"
    TOKENS_P99 = "tokens_p99"
    COMPLETION_TOKENS_P99 = "completion_tokens_p99"
    PROMPT_TOKENS_P99 = "prompt_tokens_p99"
    LAST_RUN_START_TIME = "last_run_start_time"
    """Microseconds since the epoch."""
    FEEDBACK_STATS = "feedback_stats"
    """`FeedbackByKey` of the runs' feedback."""
    SESSION_FEEDBACK_STATS = "session_feedback_stats"
    """`FeedbackByKey` of the feedback on the queried projects themselves."""
    RUN_FACETS = "run_facets"
    """The commonest values of some fields, as `Facet`s."""
    ERROR_RATE = "error_rate"
    """0 to 1."""
    STREAMING_RATE = "streaming_rate"
    """Share of the runs that have a first token, 0 to 1."""
    TOTAL_COST = "total_cost"
    """Dollars, exact."""
    PROMPT_COST = "prompt_cost"
    COMPLETION_COST = "completion_cost"
    COST_P50 = "cost_p50"
    COST_P99 = "cost_p99"
    PROMPT_TOKEN_DETAILS = "prompt_token_details"  # noqa: S105
    """Sums by category, without those that are 0."""
    COMPLETION_TOKEN_DETAILS = "completion_token_details"  # noqa: S105
    PROMPT_COST_DETAILS = "prompt_cost_details"
    COMPLETION_COST_DETAILS = "completion_cost_details"


class FacetField(StrEnum):
    """What facets are counted of; the values are those fields of the filter language."""

    NAME = "name"
    RUN_TYPE = "run_type"
    STATUS = "status"
    TAGS = "tags"


@dataclass(frozen=True, slots=True)
class Facet:
    """How many runs have a value."""

    field: FacetField
    value: str
    count: int


class GroupAttribute(StrEnum):
    """What runs are grouped by."""

    PROJECT = "project"
    NAME = "name"
    RUN_TYPE = "run_type"
    TAG = "tag"
    """A run is in the group of each of its tags, and without tags in none."""
    METADATA = "metadata"
    """The text of a metadata value; runs without it are in no group."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """How to group runs."""

    attribute: GroupAttribute
    path: tuple[str, ...] = ()
    """Of the metadata value, as `MetadataPath`."""
    values: tuple[str, ...] = ()
    """Only these groups, unless empty."""
    max_groups: int = 5
    """The largest by runs; of equally large ones the first by value."""


@dataclass(frozen=True, slots=True)
class StatsQuery:
    """What to ask: fields, order and page of `runs` do not count."""

    runs: RunQuery
    fields: frozenset[StatsField]
    grouping: Grouping | None = None
    """None: all runs together."""


@dataclass(frozen=True, slots=True)
class GroupStats:
    """The statistics of one group, or of all runs together."""

    group: str
    """Value of what runs are grouped by; "" when they are not."""
    values: Mapping[StatsField, Any]
    """Those of the fields that were asked for and have a value."""
