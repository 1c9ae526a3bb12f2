"""Traces and threads as v2 of the contract shows them (runs-v2, sections 5 to 10)."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from runstore.domain.times import format_utc
from runstore.gateway import run_v2
from runstore.gateway.run_values import feedback_stats, has
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import run_pb2
from runstore.v1 import thread_query_service_pb2 as pb
from runstore.v1 import trace_query_service_pb2 as traces

Value = Callable[[Any], Any]

_feedback_stats: Final[Value] = feedback_stats


def _scalar(name: str) -> Value:
    return lambda message: getattr(message, name) if has(message, name) else None


def _money(name: str) -> Value:
    return lambda message: msgspec.Raw(getattr(message, name).encode()) if has(message, name) else None


def _moment(name: str) -> Value:
    return lambda message: format_utc(to_time_us(getattr(message, name))) if has(message, name) else None


def _counts(name: str) -> Value:
    return lambda message: dict(getattr(message, name))


def _moneys(name: str) -> Value:
    return lambda message: {
        category: msgspec.Raw(cost.encode()) for category, cost in getattr(message, name).items()
    }


def _raw(value: Value) -> Value:
    return lambda message: {"raw": value(message)}


_DETAILS: Final[dict[str, Value]] = {
    "prompt_token_details": _counts("prompt_token_details"),
    "completion_token_details": _counts("completion_token_details"),
    "prompt_cost_details": _moneys("prompt_cost_details"),
    "completion_cost_details": _moneys("completion_cost_details"),
}
_USAGE: Final[dict[str, Value]] = {
    **{name: _scalar(name) for name in ("total_tokens", "prompt_tokens", "completion_tokens")},
    **{name: _money(name) for name in ("total_cost", "prompt_cost", "completion_cost")},
}
_RAW_DETAILS: Final = {name: _raw(value) for name, value in _DETAILS.items()}

# --- traces -------------------------------------------------------------------------------------------

_AGGREGATES: Final[dict[str, Value]] = {
    "total_tokens": _USAGE["total_tokens"],
    "total_cost": _USAGE["total_cost"],
    "first_token_time": _moment("first_token_time"),
}


class TraceSelection:
    """Which keys of a trace to show, and what to ask the store for them."""

    def __init__(self, keys: Iterable[str], base_url: str) -> None:
        """As `run_v2.Selection`."""
        keys = tuple(keys)
        self._root = run_v2.Selection((key for key in keys if key not in _AGGREGATES), base_url)
        self._aggregates = [key for key in _AGGREGATES if key in keys]
        self.fields: Final = self._root.fields
        """Of the root run, for the request to the store."""
        self.with_usage: Final = bool(self._aggregates)

    def show(self, trace: traces.Trace) -> dict[str, Any]:
        """The trace as JSON content."""
        shown: dict[str, Any] = {"root_run": self._root.show(trace.root_run), "query_metadata": None}
        if self._aggregates:
            shown["trace_aggregates"] = {key: _AGGREGATES[key](trace.usage) for key in self._aggregates}
        return shown


# --- threads ------------------------------------------------------------------------------------------


def show_thread(thread: pb.Thread) -> dict[str, Any]:
    """The thread as JSON content."""
    stats = thread.stats
    last_start = _moment("last_start_time")(stats)
    shown = {
        "thread_id": thread.thread_id,
        "count": stats.trace_count,
        "start_time": last_start,
        "min_start_time": _moment("first_start_time")(stats),
        "max_start_time": last_start,
        "trace_id": thread.last_trace_id,
        "first_trace_id": thread.first_trace_id,
        "last_trace_id": thread.last_trace_id,
        "first_inputs": _scalar("first_inputs_preview")(thread),
        "last_outputs": _scalar("last_outputs_preview")(thread),
        "num_errored_turns": stats.failed_trace_count,
        "latency_p50": _scalar("latency_p50_seconds")(stats),
        "latency_p99": _scalar("latency_p99_seconds")(stats),
        "total_tokens": stats.total_tokens,
        "total_cost": _USAGE["total_cost"](stats),
        "total_token_details": _added(stats.prompt_token_details, stats.completion_token_details),
        "total_cost_details": {
            category: msgspec.Raw(f"{cost:f}".encode())
            for category, cost in _added(
                _decimals(stats.prompt_cost_details), _decimals(stats.completion_cost_details)
            ).items()
        },
        "feedback_stats": _feedback_stats(stats),
        "query_metadata": None,
    }
    if thread.HasField("last_error_preview"):
        shown["last_error"] = thread.last_error_preview
    return shown


def _added(*maps: Mapping[str, Any]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for each in maps:
        for category, amount in each.items():
            total[category] = total.get(category, 0) + amount
    return total


def _decimals(costs: Mapping[str, str]) -> dict[str, Decimal]:
    return {category: Decimal(cost) for category, cost in costs.items()}


class _Stat:
    """One value of a selection of statistics: what it asks the store for, and what it shows of the answer."""

    def __init__(self, field: str, key: str, value: Value) -> None:
        self.field = pb.ThreadStatsField.Value(f"THREAD_STATS_FIELD_{field.upper()}")
        self.key = key
        self.value = value


def _stats(values: Mapping[str, Value]) -> dict[str, _Stat]:
    """By the name in upper case, where key and field have the same name."""
    return {name.upper(): _Stat(name, name, value) for name, value in values.items()}


def _seconds(name: str) -> _Stat:
    return _Stat(name, name, _scalar(name))


def _feedback(key: str) -> _Stat:
    return _Stat("feedback_stats", key, lambda stats: _feedback_stats(stats) or {})


_LATENCIES: Final = {
    "LATENCY_P50": _seconds("latency_p50_seconds"),
    "LATENCY_P99": _seconds("latency_p99_seconds"),
}

AGGREGATE_STATS: Final[dict[str, _Stat]] = {
    **_stats(
        {name: _scalar(name) for name in ("thread_count", "trace_count", "error_rate", "streaming_rate")}
    ),
    **_LATENCIES,
    "FIRST_TOKEN_P50": _seconds("first_token_p50_seconds"),
    "FIRST_TOKEN_P99": _seconds("first_token_p99_seconds"),
    **_stats({"median_tokens": _scalar("median_tokens"), **_USAGE, **_DETAILS}),
    "THREAD_FEEDBACK_STATS": _feedback("thread_feedback_stats"),
}
"""What `select` may name of many threads."""

THREAD_STATS: Final[dict[str, _Stat]] = {
    "TURNS": _Stat("trace_count", "turns", _scalar("trace_count")),
    **_stats({name: _moment(name) for name in ("first_start_time", "last_start_time", "last_end_time")}),
    **_LATENCIES,
    **_stats({**_USAGE, **_RAW_DETAILS}),
    "FEEDBACK_STATS": _feedback("feedback_stats"),
}
"""What `selects` may name of one thread."""


def stats_fields(known: Mapping[str, _Stat], selects: Iterable[str]) -> "list[pb.ThreadStatsField.ValueType]":
    """For the request to the store."""
    return [known[name].field for name in selects]


def show_stats(known: Mapping[str, _Stat], selects: Iterable[str], stats: pb.ThreadStats) -> dict[str, Any]:
    """The selected statistics as JSON content."""
    return {known[name].key: known[name].value(stats) for name in selects}


# --- turns of a thread --------------------------------------------------------------------------------

# Keys of a turn that its root run says, by the key there.
_OF_ROOT: Final = {
    "START_TIME": "start_time",
    "END_TIME": "end_time",
    "LATENCY": "latency_seconds",
    "INPUTS_PREVIEW": "inputs_preview",
    "OUTPUTS_PREVIEW": "outputs_preview",
    "INPUTS": "inputs",
    "OUTPUTS": "outputs",
    "ERROR": "error",
    "NAME": "name",
    "ERROR_PREVIEW": "error_preview",
}
_OF_TRACE: Final[dict[str, Value]] = {
    "FIRST_TOKEN_TIME": _moment("first_token_time"),
    **{name.upper(): value for name, value in {**_USAGE, **_RAW_DETAILS}.items()},
}

THREAD_TRACE_SELECTS: Final = ("THREAD_ID", "TRACE_ID", "OP", *_OF_TRACE, *_OF_ROOT, "TURN_NUMBER")
"""What `selects` may name of a turn."""


class TurnSelection:
    """Which keys of a turn to show, and what to ask the store for them."""

    def __init__(self, selects: Iterable[str], thread_id: str, base_url: str) -> None:
        self._selects = tuple(dict.fromkeys(selects))
        self._thread_id = thread_id
        self._root = run_v2.Selection((_OF_ROOT[key] for key in self._selects if key in _OF_ROOT), base_url)
        self.fields: Final = {run_pb2.RUN_FIELD_ID, *self._root.fields}
        """Of the root run, for the request to the store."""
        if "OP" in self._selects:
            self.fields.add(run_pb2.RUN_FIELD_RUN_TYPE)
        self.with_usage: Final = any(key in _OF_TRACE for key in self._selects)
        self.with_turn_numbers: Final = "TURN_NUMBER" in self._selects

    def show(self, turn: pb.ThreadTrace) -> dict[str, Any]:
        """The turn as JSON content; with its id, whatever was selected."""
        root = self._root.show(turn.trace.root_run)
        shown: dict[str, Any] = {"trace_id": turn.trace.root_run.id}
        for select in self._selects:
            key = select.lower()
            if select in _OF_ROOT:
                shown[key] = root[_OF_ROOT[select]]
            elif select in _OF_TRACE:
                shown[key] = _OF_TRACE[select](turn.trace.usage)
        if "THREAD_ID" in self._selects:
            shown["thread_id"] = self._thread_id
        if "OP" in self._selects:
            # The contract gives no table; these are the numbers of the run types in `run.proto`.
            shown["op"] = turn.trace.root_run.run_type
        if self.with_turn_numbers:
            shown["turn_number"] = turn.turn_number
        return shown
