"""Statistics as v1 of the contract shows them (runs-v1, section 7; resources, section 1)."""

from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

import msgspec

from runstore.domain.times import format_naive
from runstore.gateway.run_values import feedback_by_key
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import run_stats_service_pb2 as pb

_RunStatsName = Literal[
    "run_count",
    "latency_p50",
    "latency_p99",
    "latency_avg",
    "first_token_p50",
    "first_token_p99",
    "last_run_start_time",
    "feedback_stats",
    "session_feedback_stats",
    "run_facets",
    "error_rate",
    "streaming_rate",
]
_TokenStatsName = Literal[
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "median_tokens",
    "completion_tokens_p50",
    "prompt_tokens_p50",
    "tokens_p99",
    "completion_tokens_p99",
    "prompt_tokens_p99",
    "total_cost",
    "prompt_cost",
    "completion_cost",
    "cost_p50",
    "cost_p99",
    "prompt_token_details",
    "completion_token_details",
    "prompt_cost_details",
    "completion_cost_details",
]
StatsName = (
    _RunStatsName | _TokenStatsName | Literal["thread_feedback_stats", "all_run_stats", "all_token_stats"]
)
"""The values of `select`."""

_BUNDLES: Final[dict[str, tuple[str, ...]]] = {
    "all_run_stats": get_args(_RunStatsName),
    "all_token_stats": get_args(_TokenStatsName),
}
_THREAD_FEEDBACK: Final = "thread_feedback_stats"
"""Feedback is on runs or projects here, never on threads."""
_ON_DEMAND: Final = frozenset({"latency_avg", "session_feedback_stats"})
"""Keys that the answer has only when they are selected; all others are null then."""
_DEFAULT: Final = tuple(
    name for name in (*get_args(_RunStatsName), *get_args(_TokenStatsName)) if name not in _ON_DEMAND
)
_FACET_QUERIES: Final = {"tags": "has(tags, {})"}


class StatsSelection:
    """Which statistics to show, and what to ask the store for them."""

    def __init__(self, names: Iterable[str] | None) -> None:
        """`names` as in `select`; None selects everything that is not on demand."""
        wanted = {part for name in names or () for part in _BUNDLES.get(name, (name,))}
        self._shows_thread_feedback = _THREAD_FEEDBACK in wanted
        self._selected = frozenset(_DEFAULT if names is None else wanted - {_THREAD_FEEDBACK})
        self._keys = (*_DEFAULT, *sorted(self._selected & _ON_DEMAND))
        # Thread feedback alone would ask for nothing, which means everything.
        self.fields: Final = [_field(name) for name in sorted(self._selected or {"run_count"})]
        """For the request to the store."""

    def show(self, stats: pb.RunStats) -> dict[str, Any]:
        """The statistics as JSON content; costs as numbers."""
        shown = {key: _value(stats, key) if key in self._selected else None for key in self._keys}
        if self._shows_thread_feedback:
            shown[_THREAD_FEEDBACK] = {}
        return shown


def _field(name: str) -> "pb.RunStatsField.ValueType":
    return pb.RunStatsField.Value(f"RUN_STATS_FIELD_{name.upper()}")


def _value(stats: pb.RunStats, key: str) -> Any:
    match key:
        case "feedback_stats" | "session_feedback_stats":
            return feedback_by_key(getattr(stats, key))
        case "run_facets":
            return [_facet(facet) for facet in stats.run_facets]
        case "prompt_token_details" | "completion_token_details":
            return dict(getattr(stats, key))
        case "prompt_cost_details" | "completion_cost_details":
            return {category: float(cost) for category, cost in getattr(stats, key).items()}
    if not stats.HasField(key):  # type: ignore[arg-type] # a Literal of every name
        return None
    match key:
        case "last_run_start_time":
            return format_naive(to_time_us(stats.last_run_start_time))
        case "total_cost" | "prompt_cost" | "completion_cost":
            return float(getattr(stats, key))
        case _:
            return getattr(stats, key)


def _facet(facet: pb.RunFacet) -> dict[str, Any]:
    """With the filter that finds the runs."""
    form = _FACET_QUERIES.get(facet.field, f"eq({facet.field}, {{}})")
    query = form.format(msgspec.json.encode(facet.value).decode())
    return {"key": facet.field, "value": facet.value, "query": query, "n": facet.count}


_SESSION_KEYS: Final = (
    *("run_count", "latency_p50", "latency_p99", "first_token_p50", "first_token_p99"),
    *("total_tokens", "prompt_tokens", "completion_tokens"),
    *("total_cost", "prompt_cost", "completion_cost"),
    *("last_run_start_time", "feedback_stats", "session_feedback_stats", "run_facets"),
    *("error_rate", "streaming_rate"),
)
NO_SESSION_STATS: Final[dict[str, Any]] = dict.fromkeys((*_SESSION_KEYS, "test_run_number"))
"""The keys are there without statistics, too, as SDKs expect."""


class SessionStatsSelection:
    """Which statistics of a project to show, and what to ask the store for them."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names` as in `stats_select`; those that a project does not show are passed over; all when none."""
        chosen = {part for name in names for part in _BUNDLES.get(name, (name,))}
        self._selected = tuple(key for key in _SESSION_KEYS if key in chosen or not chosen)
        self.fields: Final = [_field(key) for key in self._selected]
        """For the request to the store."""

    def show(self, stats: pb.RunStats) -> dict[str, Any]:
        """The statistics as JSON content; costs as decimal text."""
        shown = dict(NO_SESSION_STATS)
        for key in self._selected:
            is_money = key.endswith("_cost")
            shown[key] = getattr(stats, key) or None if is_money else _value(stats, key)
        return shown
