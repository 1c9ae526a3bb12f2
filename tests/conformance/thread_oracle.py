"""What the contract says of traces and threads (runs-v2.md sections 5 to 10), on merged runs as values."""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from runstore.domain.runs import RunField
from runstore.domain.threads import ThreadStat
from runstore.domain.traces import USAGE_FIELDS

Run = Mapping[RunField, Any]
Runs = Mapping[str, Run]
_Number = TypeVar("_Number", float, Decimal)


def id_order(run_id: str) -> tuple[int, int]:
    """The engine's order of ids: by their second half, then by their first."""
    number = uuid.UUID(run_id).int
    return number & (2**64 - 1), number >> 64


def root_order(run: Run) -> tuple[int, tuple[int, int]]:
    """The order of traces by time."""
    return run[RunField.START_TIME], id_order(run[RunField.ID])


def usage(runs: Iterable[Run]) -> dict[RunField, Any]:
    """Sums of what some runs used, and their earliest first token; what none of them has is absent."""
    runs = list(runs)
    summed: dict[RunField, Any] = {}
    for field in USAGE_FIELDS:
        values = [run[field] for run in runs if field in run]
        if not values:
            continue
        if field is RunField.FIRST_TOKEN_TIME:
            summed[field] = min(values)
        elif isinstance(values[0], Mapping):
            summed[field] = added(values)
        else:
            summed[field] = sum(values)
    return {field: value for field, value in summed.items() if value != {}}


def added(maps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums by category."""
    total: dict[str, Any] = {}
    for each in maps:
        for category, value in each.items():
            total[category] = total.get(category, 0) + value
    return total


def trace_of(runs: Runs, trace_id: str) -> list[Run]:
    """All runs of a trace."""
    return [run for run in runs.values() if run[RunField.TRACE_ID] == trace_id]


def threads(
    runs: Runs, project_id: str, is_in_window: Callable[[Run], bool] = lambda _: True
) -> dict[str, list[Run]]:
    """Root runs by thread, in the order of their starts."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs.values(), key=root_order):
        if (
            run[RunField.IS_ROOT]
            and RunField.THREAD_ID in run
            and run[RunField.PROJECT_ID] == project_id
            and is_in_window(run)
        ):
            found.setdefault(run[RunField.THREAD_ID], []).append(run)
    return found


def stats(runs: Runs, by_thread: Mapping[str, Collection[Run]]) -> dict[ThreadStat, Any]:
    """Everything there is to say of the traces of some threads, but for feedback."""
    roots = [root for roots in by_thread.values() for root in roots]
    used = [usage(trace_of(runs, root[RunField.ID])) for root in roots]
    ended = [root for root in roots if RunField.END_TIME in root]
    starts = [root[RunField.START_TIME] for root in roots]
    latencies = [root[RunField.LATENCY_SECONDS] for root in ended]
    waits = [
        (use[RunField.FIRST_TOKEN_TIME] - root[RunField.START_TIME]) / 1e6
        for root, use in zip(roots, used, strict=True)
        if RunField.FIRST_TOKEN_TIME in use
    ]
    streamed = [
        RunField.FIRST_TOKEN_TIME in use
        for root, use in zip(roots, used, strict=True)
        if RunField.END_TIME in root
    ]
    failed = [RunField.ERROR in root for root in roots]
    tokens = sorted(use[RunField.TOTAL_TOKENS] for use in used if RunField.TOTAL_TOKENS in use)
    values: dict[ThreadStat, Any] = {
        ThreadStat.THREAD_COUNT: sum(1 for roots in by_thread.values() if roots),
        ThreadStat.TRACE_COUNT: len(roots),
        ThreadStat.FAILED_TRACE_COUNT: sum(failed),
        ThreadStat.ERROR_RATE: sum(failed) / len(failed) if failed else None,
        ThreadStat.STREAMING_RATE: sum(streamed) / len(streamed) if streamed else None,
        ThreadStat.FIRST_START_TIME: min(starts, default=None),
        ThreadStat.LAST_START_TIME: max(starts, default=None),
        ThreadStat.LAST_END_TIME: max((root[RunField.END_TIME] for root in ended), default=None),
        ThreadStat.LATENCY_P50: quantile(latencies, 0.5),
        ThreadStat.LATENCY_P99: quantile(latencies, 0.99),
        ThreadStat.FIRST_TOKEN_P50: quantile(waits, 0.5),
        ThreadStat.FIRST_TOKEN_P99: quantile(waits, 0.99),
        ThreadStat.MEDIAN_TOKENS: tokens[len(tokens) // 2] if tokens else None,
    }
    for field in USAGE_FIELDS:
        if field is not RunField.FIRST_TOKEN_TIME:
            values[ThreadStat(field.value)] = _total(field, [use[field] for use in used if field in use])
    return {stat: value for stat, value in values.items() if value is not None and value != {}}


def _total(field: RunField, values: list[Any]) -> Any:
    if field.value.endswith("_details"):
        return added(values)
    return sum(values, start=Decimal(0) if field.value.endswith("_cost") else 0)


def quantile(values: Collection[_Number], level: _Number) -> _Number | None:
    """Interpolated between the two nearest values, the least being level 0 and the greatest level 1."""
    if not values:
        return None
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
