"""The fields of a thread as filters know them (filter-language.md §8), and filters on threads."""

from collections.abc import Mapping

from runstore.domain.conditions import (
    Condition,
    DetailsField,
    RowFamily,
    RowPart,
    ScalarField,
    ThreadField,
)
from runstore.query.binding import parse_condition
from runstore.query.fields import Field, Kind, Row

_TURN_COUNT = Field(Kind.NUMBER, ThreadField.TURN_COUNT)
_LATENCY_P50 = Field(Kind.SECONDS, ThreadField.TRACE_LATENCY_P50)
_LATENCY_P99 = Field(Kind.SECONDS, ThreadField.TRACE_LATENCY_P99)

THREAD_FIELDS: Mapping[str, Field] = {
    "thread_id": Field(Kind.TEXT, ScalarField.THREAD_ID),
    "turn_count": _TURN_COUNT,
    "run_count": _TURN_COUNT,
    "count": _TURN_COUNT,
    "turns": _TURN_COUNT,
    "num_errored_turns": Field(Kind.NUMBER, ThreadField.NUM_ERRORED_TURNS),
    "thread_duration": Field(Kind.SECONDS, ThreadField.THREAD_DURATION),
    "trace_latency_p50": _LATENCY_P50,
    "latency_p50": _LATENCY_P50,
    "trace_latency_p99": _LATENCY_P99,
    "latency_p99": _LATENCY_P99,
    "total_tokens": Field(Kind.NUMBER, ScalarField.TOTAL_TOKENS),
    "total_cost": Field(Kind.NUMBER, ScalarField.TOTAL_COST),
    "prompt_token_details": Field(Kind.NUMBER_MAP, DetailsField.PROMPT_TOKEN_DETAILS),
    "completion_token_details": Field(Kind.NUMBER_MAP, DetailsField.COMPLETION_TOKEN_DETAILS),
    "prompt_cost_details": Field(Kind.NUMBER_MAP, DetailsField.PROMPT_COST_DETAILS),
    "completion_cost_details": Field(Kind.NUMBER_MAP, DetailsField.COMPLETION_COST_DETAILS),
    "feedback_key": Field(Kind.ROW_KEY, Row(RowFamily.FEEDBACK, RowPart.KEY)),
    "feedback_score": Field(Kind.ROW_NUMBER, Row(RowFamily.FEEDBACK, RowPart.SCORE)),
    "feedback_value": Field(Kind.ROW_VALUE, Row(RowFamily.FEEDBACK, RowPart.VALUE)),
}
"""Every field of a thread by its name in a filter, the aliases too."""


def parse_thread_condition(text: str, field: str = "thread_filter") -> Condition | None:
    """Parse and bind a filter on threads; None when it is blank. Raises RunstoreError INVALID_FILTER."""
    return parse_condition(text, field, THREAD_FIELDS)
