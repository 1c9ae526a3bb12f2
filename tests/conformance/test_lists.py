"""Lists against the oracle: every condition of a query, over random trees of several tenants."""

import itertools
import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from runstore.domain.runs import RunField, RunPatch, RunQuery, RunType
from runstore.query.binding import parse_condition

from .oracle import expected_runs
from .pipeline import Pipeline
from .test_operations import T0_US, Sender

pytestmark = pytest.mark.engine

Run = Mapping[RunField, Any]
EXAMPLES = [str(uuid.UUID(int=number, version=4)) for number in range(1, 4)]


class Forest:
    """Random trees of one tenant, over several projects, stored in a random order of operations."""

    def __init__(self, pipeline: Pipeline, tenant_id: str, seed: int) -> None:
        self._pipeline = pipeline
        self._chance = random.Random(seed)
        self.tenant_id = tenant_id
        self.project_ids = [str(uuid.uuid4()) for _ in range(3)]
        self.operations: list[RunPatch] = []

    async def plant(self, trees: int) -> None:
        operations = [step for _ in range(trees) for step in self._tree()]
        self._chance.shuffle(operations)
        for start in range(0, len(operations), 40):
            before = len(self._pipeline.operations)
            await self._pipeline.flush(operations[start : start + 40])
            self.operations += self._pipeline.operations[before:]

    def _tree(self) -> list[RunPatch]:
        chance = self._chance
        senders = [Sender(self.tenant_id, start_us=T0_US + chance.randrange(20) * 1_000)]
        senders[0].project_id = chance.choice(self.project_ids)
        for _ in range(chance.randrange(5)):
            senders.append(
                Sender(
                    self.tenant_id,
                    start_us=T0_US + chance.randrange(20) * 1_000,
                    parent=chance.choice(senders),
                )
            )
        operations = []
        is_bare = chance.random() < 0.4
        for sender in senders:
            create = sender.bare_create if is_bare else sender.create
            operations.append(create(run_type=chance.choice(list(RunType)).value, name=chance.choice("abc")))
            if chance.random() < 0.6:
                operations.append(sender.bare_update(end_time_us=sender.start_us + 5, **self._fields()))
        return operations

    def _fields(self) -> dict[str, Any]:
        chance = self._chance
        fields: dict[str, Any] = {}
        if chance.random() < 0.3:
            fields["error"] = "e"
        if chance.random() < 0.4:
            fields["reference_example_id"] = chance.choice(EXAMPLES)
        if chance.random() < 0.4:
            fields["tags"] = tuple(chance.sample("xyz", chance.randrange(3)))
        if chance.random() < 0.4:
            fields["extra"] = json.dumps({"metadata": {"session_id": chance.choice("pq")}}).encode()
        return fields


@pytest.fixture
async def forests(pipeline: Pipeline) -> list[Forest]:
    """Two tenants that share project ids, so that nothing but the tenant keeps them apart."""
    planted: list[Forest] = []
    for seed in (1, 2):
        forest = Forest(pipeline, str(uuid.uuid4()), seed)
        if planted:
            forest.project_ids = planted[0].project_ids
        await forest.plant(25)
        planted.append(forest)
    return planted


Condition = tuple[dict[str, Any], Callable[[Run], bool]]


def conditions(runs: Mapping[str, Run], chance: random.Random) -> list[Condition]:
    """One example of each condition, as fields of a query and as what it means."""
    some = chance.sample(sorted(runs), 4)
    parents = sorted({parent for run in runs.values() for parent in run[RunField.PARENT_RUN_IDS][-1:]})
    trace, parent = runs[some[0]][RunField.TRACE_ID], chance.choice(parents)
    examples = tuple(chance.sample(EXAMPLES, 2))
    low, high = T0_US + 5_000, T0_US + 15_000
    run_type = chance.choice(list(RunType))
    return [
        ({"run_ids": (*some, str(uuid.uuid4()))}, lambda run: run[RunField.ID] in some),
        ({"trace_id": trace}, lambda run: run[RunField.TRACE_ID] == trace),
        ({"parent_run_id": parent}, lambda run: run[RunField.PARENT_RUN_IDS][-1:] == [parent]),
        (
            {"reference_example_ids": examples},
            lambda run: run.get(RunField.REFERENCE_EXAMPLE_ID) in examples,
        ),
        ({"run_type": run_type}, lambda run: run[RunField.RUN_TYPE] == run_type),
        ({"is_root": True}, lambda run: run[RunField.IS_ROOT]),
        ({"is_root": False}, lambda run: not run[RunField.IS_ROOT]),
        ({"has_error": True}, lambda run: RunField.ERROR in run),
        ({"has_error": False}, lambda run: RunField.ERROR not in run),
        ({"min_start_time_us": low}, lambda run: run[RunField.START_TIME] >= low),
        ({"max_start_time_us": high}, lambda run: run[RunField.START_TIME] <= high),
        (
            {"filter": parse_condition('and(has(tags, "x"), eq(name, "a"))')},
            lambda run: "x" in run[RunField.TAGS] and run[RunField.NAME] == "a",
        ),
        ({"filter": parse_condition('eq(thread_id, "p")')}, lambda run: run.get(RunField.THREAD_ID) == "p"),
    ]


FINDS = frozenset({"run_ids", "trace_id", "parent_run_id", "reference_example_ids"})
"""Conditions that a query may have instead of projects."""


@pytest.mark.parametrize("some_pairs", [8, pytest.param(60, marks=pytest.mark.slow)])
async def test_conditions_alone_and_in_pairs(
    pipeline: Pipeline, forests: list[Forest], some_pairs: int
) -> None:
    """Any one or two conditions, with and without projects, list exactly the runs that meet them."""
    for forest in forests:
        runs = expected_runs(forest.operations)
        alone = conditions(runs, random.Random(3))
        pairs = [
            ({**a, **b}, (f, g)) for (a, f), (b, g) in itertools.combinations(alone, 2) if not a.keys() & b
        ]
        chosen: list[tuple[dict[str, Any], tuple[Callable[[Run], bool], ...]]] = [
            (fields, (test,)) for fields, test in alone
        ]
        chosen.extend(random.Random(4).sample(pairs, some_pairs))
        for fields, tests in chosen:
            projects = [tuple(forest.project_ids[:2])]
            if FINDS & fields.keys():
                projects.append(())
            for project_ids in projects:
                query = RunQuery(
                    forest.tenant_id, frozenset({RunField.ID}), project_ids=project_ids, **fields
                )
                wanted = {
                    run_id
                    for run_id, run in runs.items()
                    if all(test(run) for test in tests)
                    and (not project_ids or run[RunField.PROJECT_ID] in project_ids)
                }
                for descending, page_size in ((True, 9), (False, 1_000)):
                    found = await pipeline.list(replace(query, descending=descending, limit=page_size))
                    times = [run.position.start_time_us for run in found]
                    assert times == sorted(times, reverse=descending), fields
                    assert sorted(run.position.run_id for run in found) == sorted(wanted), (
                        fields,
                        project_ids,
                    )


async def test_tenants_never_see_each_other(pipeline: Pipeline, forests: list[Forest]) -> None:
    """The ids of one tenant, in whatever condition, find nothing in another, though projects are shared."""
    theirs = expected_runs(forests[0].operations)
    stranger = str(uuid.uuid4())
    for tenant_id in (forests[1].tenant_id, stranger):
        for fields, _ in conditions(theirs, random.Random(5)):
            if not (FINDS - {"reference_example_ids"}) & fields.keys():
                continue
            for project_ids in ((), tuple(forests[0].project_ids)):
                query = RunQuery(tenant_id, frozenset({RunField.ID}), project_ids=project_ids, **fields)
                assert await pipeline.list(query) == [], fields
    query = RunQuery(stranger, frozenset(), project_ids=tuple(forests[0].project_ids))
    assert await pipeline.list(query) == []
    assert await pipeline.store.places(stranger, list(theirs)) == {}


async def test_children_of_a_run_that_never_came(pipeline: Pipeline, tenant_id: str) -> None:
    """Children are found by their parent although it is unknown, with and without the project."""
    root = Sender(tenant_id)
    middle = Sender(tenant_id, start_us=T0_US + 1, parent=root)
    told = Sender(tenant_id, start_us=T0_US + 2, parent=middle)
    guessed = Sender(tenant_id, start_us=T0_US + 3, parent=middle)
    await pipeline.flush([told.create(), guessed.bare_create(trace_id=root.run_id)])
    for project_ids in ((), (root.project_id,)):
        query = RunQuery(tenant_id, frozenset(), project_ids=project_ids, parent_run_id=middle.run_id)
        found = await pipeline.list(query)
        assert {run.position.run_id for run in found} == {told.run_id, guessed.run_id}


async def test_deleted_project_lists_nothing(pipeline: Pipeline, tenant_id: str) -> None:
    """Deleting a project takes its runs from lists and from reads by id; another project keeps its own."""
    gone, kept = Sender(tenant_id), Sender(tenant_id)
    await pipeline.flush([gone.create(outputs=b"1"), kept.create(outputs=b"1")])
    await pipeline.store.delete_project(tenant_id, gone.project_id)
    listed = await pipeline.runs(tenant_id, [gone.project_id, kept.project_id])
    assert listed.keys() == {kept.run_id}
    query = RunQuery(tenant_id, frozenset(), run_ids=(gone.run_id, kept.run_id))
    assert [run.position.run_id for run in await pipeline.list(query)] == [kept.run_id]


async def test_fields_not_selected_are_not_returned(pipeline: Pipeline, tenant_id: str) -> None:
    """A run has the selected fields that it has values for, and no others."""
    sender = Sender(tenant_id)
    await pipeline.flush([sender.create(inputs=b"1", error="e", tags=("t",))])
    for field in RunField:
        query = RunQuery(tenant_id, frozenset({field}), project_ids=(sender.project_id,))
        [run] = await pipeline.list(query)
        assert run.values.keys() <= {field}
