"""What the contract says of many runs together (runs-v1.md section 7), computed in Python."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from runstore.domain.run_stats import Facet, FacetField, GroupStats, StatsField
from runstore.domain.runs import RunField

from .filter_oracle import Feedback, compact

Run = Mapping[RunField, Any]
NUMBERS = frozenset(StatsField) - {StatsField.FEEDBACK_STATS, StatsField.SESSION_FEEDBACK_STATS}


def percentile(values: list[float], level: float) -> float | None:
    """Interpolated between the two nearest."""
    if not values:
        return None
    values = sorted(values)
    place = level * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def whole_percentile(values: list[int], level: float) -> int | None:
    """The value at that place."""
    return sorted(values)[int(level * len(values))] if values else None


def summed(details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for detail in details:
        for category, amount in detail.items():
            total[category] = total.get(category, 0) + amount
    return {category: amount for category, amount in total.items() if amount}


def stats_of(runs: list[Run]) -> dict[StatsField, Any]:
    """What the contract says of some runs."""

    def each(field: RunField) -> list[Any]:
        return [run[field] for run in runs if field in run]

    tokens = {name: each(RunField(f"{name}_tokens")) for name in ("total", "prompt", "completion")}
    costs = [float(cost) for cost in each(RunField.TOTAL_COST)]
    latencies = each(RunField.LATENCY_SECONDS)
    first_tokens = [
        (run[RunField.FIRST_TOKEN_TIME] - run[RunField.START_TIME]) / 1e6
        for run in runs
        if RunField.FIRST_TOKEN_TIME in run
    ]
    found: dict[StatsField, Any] = {
        StatsField.RUN_COUNT: len(runs),
        StatsField.LATENCY_P50: percentile(latencies, 0.5),
        StatsField.LATENCY_P99: percentile(latencies, 0.99),
        StatsField.LATENCY_AVG: statistics.fmean(latencies) if latencies else None,
        StatsField.FIRST_TOKEN_P50: percentile(first_tokens, 0.5),
        StatsField.FIRST_TOKEN_P99: percentile(first_tokens, 0.99),
        StatsField.MEDIAN_TOKENS: whole_percentile(tokens["total"], 0.5),
        StatsField.TOKENS_P99: whole_percentile(tokens["total"], 0.99),
        StatsField.LAST_RUN_START_TIME: max(each(RunField.START_TIME), default=None),
        StatsField.ERROR_RATE: None,
        StatsField.STREAMING_RATE: None,
        StatsField.COST_P50: percentile(costs, 0.5),
        StatsField.COST_P99: percentile(costs, 0.99),
        StatsField.RUN_FACETS: facets(runs),
    }
    if runs:
        found[StatsField.ERROR_RATE] = each(RunField.STATUS).count("error") / len(runs)
        found[StatsField.STREAMING_RATE] = len(first_tokens) / len(runs)
    for name in ("prompt", "completion"):
        found[StatsField(f"{name}_tokens_p50")] = whole_percentile(tokens[name], 0.5)
        found[StatsField(f"{name}_tokens_p99")] = whole_percentile(tokens[name], 0.99)
        for details in (f"{name}_token_details", f"{name}_cost_details"):
            found[StatsField(details)] = summed(each(RunField(details)))
    for name in ("total", "prompt", "completion"):
        found[StatsField(f"{name}_tokens")] = sum(tokens[name])
        found[StatsField(f"{name}_cost")] = sum(each(RunField(f"{name}_cost")), Decimal(0))
    return {field: value for field, value in found.items() if value is not None}


def facets(runs: list[Run]) -> list[Facet]:
    counts = Counter(
        (field, value)
        for run in runs
        for field, values in (
            (FacetField.NAME, {run[RunField.NAME]}),
            (FacetField.RUN_TYPE, {run[RunField.RUN_TYPE]}),
            (FacetField.STATUS, {run[RunField.STATUS]}),
            (FacetField.TAGS, set(run.get(RunField.TAGS, ()))),
        )
        for value in values
    )
    found = [Facet(field, value, count) for (field, value), count in counts.items()]
    return sorted(found, key=lambda facet: (-facet.count, facet.value, facet.field))


def grouped(runs: list[Run], keys: Callable[[Run], Iterable[str]], most: int) -> list[tuple[str, list[Run]]]:
    """The largest groups, of equal ones the first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        for key in set(keys(run)):
            groups.setdefault(key, []).append(run)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:most]


def assert_stats(found: GroupStats, runs: list[Run], fields: Iterable[StatsField] = NUMBERS) -> None:
    wanted = {field: value for field, value in stats_of(runs).items() if field in fields}
    shown = dict(found.values)
    if StatsField.RUN_FACETS in shown:
        facets_found = shown[StatsField.RUN_FACETS]
        shown[StatsField.RUN_FACETS] = sorted(
            facets_found, key=lambda facet: (-facet.count, facet.value, facet.field)
        )
    assert shown.keys() == wanted.keys()
    for field, value in wanted.items():
        if isinstance(value, float):
            assert shown[field] == pytest.approx(value, rel=1e-12), field
        else:
            assert shown[field] == value, f"{field}: {shown[field]}, wanted {value}"


def metadata_text(run: Run, *path: str) -> list[str]:
    """The text of a metadata value, if there is one."""
    value: Any = run.get(RunField.METADATA, {})
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return []
    return [value if isinstance(value, str) else compact(value)]


class Sample:
    """Equal to any ten of some texts, or to all if they are fewer, in any order."""

    MOST = 10

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = Counter(texts)

    def __eq__(self, other: object) -> bool:
        shown = Counter(other) if isinstance(other, list) else Counter()
        return shown <= self._texts and shown.total() == min(self._texts.total(), self.MOST)

    __hash__ = None  # type: ignore[assignment] # as of everything that equals many things

    def __repr__(self) -> str:
        return f"Sample({list(self._texts.elements())})"


def feedback_stats(records: Sequence[Feedback]) -> dict[str, dict[str, Any]]:
    """Records summed up by key (runs-v2.md section 1, FeedbackStats); what is zero or empty is left out, but
    for scores."""
    found = {}
    for key in {record.key for record in records}:
        of_key = [record for record in records if record.key == key]
        scores = [record.score for record in of_key if record.score is not None]
        labels = Counter(record.value for record in of_key if isinstance(record.value, str))
        counts: dict[str, Any] = {
            "n": len(scores) or labels.total(),
            "values": dict(labels),
            "errors": sum(record.error for record in of_key),
            "sources": sorted({record.source for record in of_key}),
        }
        if comments := [record.comment for record in of_key if record.comment]:
            counts["comments"] = Sample(comments)
        found[key] = {name: value for name, value in counts.items() if value}
        if scores:
            found[key] |= {"avg": statistics.fmean(scores), "min": min(scores), "max": max(scores)}
        if len(scores) > 1:
            found[key]["stdev"] = statistics.stdev(scores)
    return found
