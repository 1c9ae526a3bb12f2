"""Statistics on the real engine equal those computed in Python from the runs that the oracle expects."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from runstore.domain.run_stats import (
    GroupAttribute,
    Grouping,
    StatsField,
    StatsQuery,
)
from runstore.domain.runs import RunField, RunPatch, RunQuery, RunType
from runstore.query.binding import parse_condition
from runstore.storage.blobs import BlobStore
from runstore.storage.clickhouse.run_store import ClickHouseRunStore

from .oracle import expected_runs
from .pipeline import Pipeline
from .stats_oracle import NUMBERS, Run, assert_stats, grouped, metadata_text
from .test_operations import T0_US, Sender

pytestmark = pytest.mark.engine


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

    def query(self, fields: Iterable[StatsField] = NUMBERS, **parts: Any) -> StatsQuery:
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
    """What is selected alone needs nothing that only its neighbours have read; there may be no runs."""
    for field in NUMBERS:
        [found] = await pipeline.store.stats.run_stats(population.query([field]))
        assert_stats(found, population.expected(), [field])
        [none] = await pipeline.store.stats.run_stats(
            population.query([field], project_ids=(str(uuid.uuid4()),))
        )
        assert_stats(none, [], [field])


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


@pytest.mark.parametrize(
    ("grouping", "keys"),
    [
        (Grouping(GroupAttribute.NAME, max_groups=3), lambda run: [run[RunField.NAME]]),
        (Grouping(GroupAttribute.RUN_TYPE, max_groups=50), lambda run: [run[RunField.RUN_TYPE]]),
        (Grouping(GroupAttribute.TAG), lambda run: run.get(RunField.TAGS, ())),
        (Grouping(GroupAttribute.METADATA, ("team",)), lambda run: metadata_text(run, "team")),
        (Grouping(GroupAttribute.METADATA, ("deep", "er")), lambda run: metadata_text(run, "deep", "er")),
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
