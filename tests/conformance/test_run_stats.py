"""Statistics on the real engine equal those computed in Python from the runs that the oracle expects."""

import asyncio
import json
import math
import random
import statistics
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from runstore.domain.run_stats import (
    Facet,
    FacetField,
    GroupAttribute,
    Grouping,
    GroupStats,
    StatsField,
    StatsQuery,
)
from runstore.domain.runs import RunField, RunPatch, RunQuery, RunType
from runstore.query.binding import parse_condition
from runstore.storage.blobs import BlobStore
from runstore.storage.clickhouse.run_store import ClickHouseRunStore

from .oracle import expected_runs
from .pipeline import Pipeline
from .test_operations import T0_US, Sender

pytestmark = pytest.mark.engine

Run = Mapping[RunField, Any]
_NUMBERS = frozenset(StatsField) - {StatsField.FEEDBACK_STATS, StatsField.SESSION_FEEDBACK_STATS}


class Population:
    """Random runs of one tenant in three projects, with usage, streams, errors, tags and metadata."""

    def __init__(self, tenant_id: str, seed: int) -> None:
        self.tenant_id = tenant_id
        self.chance = random.Random(seed)
        self.project_ids = [str(uuid.UUID(int=self.chance.getrandbits(128), version=4)) for _ in range(3)]
        self.operations: list[RunPatch] = []
        self._runs: list[Run] = []

    async def settle(self, pipeline: Pipeline, runs: int) -> None:
        operations = [step for _ in range(runs) for step in self._run()]
        self.chance.shuffle(operations)
        for start in range(0, len(operations), 50):
            before = len(pipeline.operations)
            await pipeline.flush(operations[start : start + 50])
            self.operations += pipeline.operations[before:]
        self._runs = list(expected_runs(self.operations).values())

    def _run(self) -> list[RunPatch]:
        chance = self.chance
        sender = Sender(self.tenant_id, start_us=T0_US + chance.randrange(1_000_000))
        sender.project_id = chance.choice(self.project_ids)
        create = sender.create(run_type=chance.choice(list(RunType)).value, name=chance.choice("abcdefg"))
        if chance.random() < 0.1:
            return [create]
        update = sender.update(
            end_time_us=sender.start_us + chance.randrange(5_000_000), **self._fields(sender)
        )
        return [create, update]

    def _fields(self, sender: Sender) -> dict[str, Any]:
        chance = self.chance
        fields: dict[str, Any] = {}
        if chance.random() < 0.3:
            fields["error"] = "e"
        if chance.random() < 0.5:
            fields["tags"] = tuple(chance.choices("xyz", k=chance.randrange(3)))
        if chance.random() < 0.6:
            fields["outputs"] = json.dumps({"usage_metadata": self._usage()}).encode()
        if chance.random() < 0.3:
            token_us = sender.start_us + chance.randrange(1_000_000)
            time = f"2026-01-01T00:00:{token_us % 60:02d}.{token_us % 1_000_000:06d}Z"
            fields["events"] = json.dumps([{"name": "new_token", "time": time}]).encode()
        if chance.random() < 0.7:
            metadata = {
                "team": chance.choice(["a", "b", 3, None]),
                "deep": {"er": chance.choice([True, "x"])},
            }
            fields["extra"] = json.dumps({"metadata": metadata}).encode()
        return fields

    def _usage(self) -> dict[str, Any]:
        chance = self.chance
        tokens_in, tokens_out = chance.randrange(1_000), chance.randrange(100)
        usage: dict[str, Any] = {"input_tokens": tokens_in, "output_tokens": tokens_out}
        usage["total_tokens"] = tokens_in + tokens_out
        if chance.random() < 0.5:
            usage["input_token_details"] = {"cache_read": chance.randrange(tokens_in + 1)}
        if chance.random() < 0.5:
            usage |= {"input_cost": tokens_in / 8, "output_cost": tokens_out / 4, "total_cost": 0.5}
            usage["output_cost_details"] = {"reasoning": 0.25}
        return usage

    def query(self, fields: Iterable[StatsField] = _NUMBERS, **parts: Any) -> StatsQuery:
        grouping = parts.pop("grouping", None)
        runs = RunQuery(self.tenant_id, frozenset(), **{"project_ids": tuple(self.project_ids), **parts})
        return StatsQuery(runs, frozenset(fields), grouping)

    def expected(self, condition: Callable[[Run], bool] = lambda _: True) -> list[Run]:
        return [run for run in self._runs if condition(run)]


@pytest.fixture(scope="module")
def population(run_store: ClickHouseRunStore, blobs: BlobStore) -> Population:
    """Some hundred runs, for all tests of this file."""
    population = Population(str(uuid.uuid4()), seed=1)
    asyncio.run(population.settle(Pipeline(run_store, blobs), 200))
    return population


# -- the oracle --------------------------------------------------------------------------------------


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


def assert_stats(found: GroupStats, runs: list[Run], fields: Iterable[StatsField] = _NUMBERS) -> None:
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
            assert shown[field] == value, field


# -- the tests ---------------------------------------------------------------------------------------


async def test_all_runs_together(pipeline: Pipeline, population: Population) -> None:
    """Every statistic of everything, before and after the engine has merged its parts."""
    query = population.query()
    [found] = await pipeline.store.stats.run_stats(query)
    assert found.group == ""
    assert_stats(found, population.expected())
    await pipeline.merge_parts()
    [merged] = await pipeline.store.stats.run_stats(query)
    assert_stats(merged, population.expected())


async def test_each_statistic_alone(pipeline: Pipeline, population: Population) -> None:
    """What is selected alone needs nothing that only its neighbours have read."""
    for field in _NUMBERS:
        [found] = await pipeline.store.stats.run_stats(population.query([field]))
        assert_stats(found, population.expected(), [field])


async def test_conditions_restrict_the_runs(pipeline: Pipeline, population: Population) -> None:
    """Every part of a query means the same as in a list."""
    project_id = population.project_ids[0]
    ids = tuple(run[RunField.ID] for run in population.expected()[:7])
    late_us = T0_US + 500_000
    parts_and_conditions: list[tuple[dict[str, Any], Callable[[Run], bool]]] = [
        ({"project_ids": (project_id,)}, lambda run: run[RunField.PROJECT_ID] == project_id),
        ({"run_type": RunType.LLM}, lambda run: run[RunField.RUN_TYPE] == "llm"),
        ({"has_error": True}, lambda run: run[RunField.STATUS] == "error"),
        ({"min_start_time_us": late_us}, lambda run: run[RunField.START_TIME] >= late_us),
        ({"run_ids": ids, "project_ids": ()}, lambda run: run[RunField.ID] in ids),
        ({"trace_id": ids[0]}, lambda run: run[RunField.TRACE_ID] == ids[0]),
        (
            {"filter": parse_condition("gte(latency, 2)")},
            lambda run: run.get(RunField.LATENCY_SECONDS, 0) >= 2,
        ),
        ({"filter": parse_condition('eq(name, "nobody")')}, lambda _: False),
        ({"project_ids": (str(uuid.uuid4()),)}, lambda _: False),
    ]
    fields = (StatsField.RUN_COUNT, StatsField.TOTAL_COST, StatsField.LATENCY_P50)
    for parts, condition in parts_and_conditions:
        [found] = await pipeline.store.stats.run_stats(population.query(fields, **parts))
        assert_stats(found, population.expected(condition), fields)


def _metadata(run: Run, *path: str) -> list[str]:
    value: Any = run.get(RunField.METADATA, {})
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return []
    return [value if isinstance(value, str) else json.dumps(value)]


@pytest.mark.parametrize(
    ("grouping", "keys"),
    [
        (Grouping(GroupAttribute.NAME, max_groups=3), lambda run: [run[RunField.NAME]]),
        (Grouping(GroupAttribute.RUN_TYPE, max_groups=50), lambda run: [run[RunField.RUN_TYPE]]),
        (Grouping(GroupAttribute.TAG), lambda run: run.get(RunField.TAGS, ())),
        (Grouping(GroupAttribute.METADATA, ("team",)), lambda run: _metadata(run, "team")),
        (Grouping(GroupAttribute.METADATA, ("deep", "er")), lambda run: _metadata(run, "deep", "er")),
        (Grouping(GroupAttribute.METADATA, ("'; --",)), lambda run: []),
        (Grouping(GroupAttribute.PROJECT), lambda run: [run[RunField.PROJECT_ID]]),
    ],
)
async def test_groups(
    pipeline: Pipeline, population: Population, grouping: Grouping, keys: Callable[[Run], Iterable[str]]
) -> None:
    """The largest groups come first, each with the statistics of its runs."""
    found = await pipeline.store.stats.run_stats(population.query(grouping=grouping))
    wanted = grouped(population.expected(), keys, grouping.max_groups)
    assert [group.group for group in found] == [key for key, _ in wanted]
    for group, (_, runs) in zip(found, wanted, strict=True):
        assert_stats(group, runs)


async def test_only_named_groups(pipeline: Pipeline, population: Population) -> None:
    """Named groups come alone; one that has no runs is left out."""
    grouping = Grouping(GroupAttribute.NAME, values=("b", "nobody", "' OR 1"))
    [found] = await pipeline.store.stats.run_stats(population.query(grouping=grouping))
    assert found.group == "b"
    assert_stats(found, population.expected(lambda run: run[RunField.NAME] == "b"))


async def test_other_tenants_do_not_count(pipeline: Pipeline, population: Population) -> None:
    """Another tenant that asks for the same projects sums nothing up."""
    query = population.query()
    foreign = RunQuery(str(uuid.uuid4()), frozenset(), project_ids=query.runs.project_ids)
    [found] = await pipeline.store.stats.run_stats(StatsQuery(foreign, query.fields))
    assert_stats(found, [])
