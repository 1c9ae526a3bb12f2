"""Evaluators, registered agents, and what examples say of runs, under concurrent writers and by tenant."""

import asyncio
import uuid
from dataclasses import replace

import pytest

from runstore.catalog import Catalog
from runstore.domain.agent_registry import Agent, AgentFilter, AgentPatch, SourceType
from runstore.domain.datasets import Dataset
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.examples import ExampleChange
from runstore.domain.online_evaluators import EvaluatorFilter, EvaluatorOrder, EvaluatorType, OnlineEvaluator
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT

AGENT = Agent(id="support", tenant_id=TENANT, name="Support", created_at_us=1)


def evaluator(name: str, number: int = 0) -> OnlineEvaluator:
    return OnlineEvaluator(
        id=str(uuid.UUID(int=number)), tenant_id=TENANT, name=name, type=EvaluatorType.CODE,
        definition=b'{"code":"pass"}', created_at_us=number, updated_at_us=100 - number,
    )  # fmt: skip


async def test_one_of_two_registrations_of_an_id_wins(catalog: Catalog, other: Catalog) -> None:
    """Two processes register an agent: one does, the other hears that the id is taken; tenants are apart."""
    results = await asyncio.gather(
        catalog.agent_registry.register(AGENT),
        other.agent_registry.register(AGENT),
        return_exceptions=True,
    )
    [refusal] = [result for result in results if isinstance(result, RunstoreError)]
    assert refusal.reason is ErrorReason.ALREADY_EXISTS
    tenant = await catalog.keys.create_tenant("research")
    await catalog.agent_registry.register(replace(AGENT, tenant_id=tenant.id))
    assert await other.agent_registry.list(TENANT, AgentFilter()) == [AGENT]


async def test_changes_of_one_agent_at_one_moment_are_all_kept(catalog: Catalog, other: Catalog) -> None:
    """Fields that a change leaves out stay; what runs an agent changes once."""
    await catalog.agent_registry.register(AGENT)
    await asyncio.gather(
        catalog.agent_registry.update(TENANT, AGENT.id, AgentPatch(name="New")),
        other.agent_registry.update(TENANT, AGENT.id, AgentPatch(owner_id="me", source_type=SourceType.LSD)),
    )
    changed = await catalog.agent_registry.get(TENANT, AGENT.id)
    assert (changed.name, changed.owner_id, changed.source_type) == ("New", "me", SourceType.LSD)
    with pytest.raises(RunstoreError) as refused:
        await catalog.agent_registry.update(TENANT, AGENT.id, AgentPatch(source_type=SourceType.MDA))
    assert refused.value.field == "source_type"
    cleared = await catalog.agent_registry.update(TENANT, AGENT.id, AgentPatch(owner_id=""))
    assert cleared.owner_id is None


async def test_keys_of_a_definition_change_one_by_one(catalog: Catalog, other: Catalog) -> None:
    """Two processes that change different keys at one moment do not undo each other."""
    made = evaluator("e")
    await catalog.online_evaluators.create(made)

    async def change(where: Catalog, key: str) -> None:
        definition = (EvaluatorType.CODE, b'{"%s":1}' % key.encode())
        await where.online_evaluators.update(TENANT, made.id, definition=definition)

    await asyncio.gather(*(change((catalog, other)[n % 2], f"k{n}") for n in range(8)))
    stored = (await catalog.online_evaluators.get(TENANT, made.id)).definition
    assert [f'"k{n}":1'.encode() in stored for n in range(8)] == [True] * 8
    assert b'"code":"pass"' in stored


async def test_evaluators_are_listed_in_each_order(catalog: Catalog) -> None:
    """By creation, change and name, in both directions, with the number of all."""
    for number, name in enumerate(["b", "A", "c"]):
        await catalog.online_evaluators.create(evaluator(name, number))

    async def names(order: EvaluatorOrder, *, descending: bool = False) -> str:
        condition = EvaluatorFilter(order=order, descending=descending)
        found, count = await catalog.online_evaluators.list(TENANT, condition)
        assert count == 3
        return "".join(each.name for each in found)

    assert await names(EvaluatorOrder.CREATED) == "bAc"
    assert await names(EvaluatorOrder.UPDATED) == "cAb"
    assert await names(EvaluatorOrder.NAME) == "Abc"
    assert await names(EvaluatorOrder.NAME, descending=True) == "cbA"
    page, count = await catalog.online_evaluators.list(TENANT, EvaluatorFilter(limit=1, offset=1))
    assert ([each.name for each in page], count) == (["A"], 3)
    tenant = await catalog.keys.create_tenant("research")
    assert await catalog.online_evaluators.list(tenant.id, EvaluatorFilter()) == ([], 0)
    assert await catalog.online_evaluators.delete(tenant.id, [str(uuid.UUID(int=0))]) == []


async def test_examples_made_of_runs_are_seen_at_once(catalog: Catalog) -> None:
    """Asking remembers that a tenant has no such examples, until it has one."""
    dataset = Dataset(id=str(uuid.uuid4()), tenant_id=TENANT, name="d", created_at_us=1, modified_at_us=1)
    await catalog.datasets.create(dataset)
    run_id, example_id = str(uuid.uuid4()), str(uuid.uuid4())

    async def sources() -> set[str]:
        return await catalog.example_sources.runs_in_datasets(TENANT, [run_id, TENANT])

    assert await sources() == set()
    change = ExampleChange(id=example_id, is_create=True, inputs=b"{}", source_run_id=run_id)
    await catalog.examples.write(TENANT, dataset.id, [change])
    assert await sources() == {run_id}
    assert await catalog.example_sources.datasets_of(TENANT, [example_id, run_id]) == {example_id: dataset.id}
    await catalog.examples.delete(TENANT, [example_id])
    assert await sources() == set()
    tenant = await catalog.keys.create_tenant("research")
    assert await catalog.example_sources.datasets_of(tenant.id, [example_id]) == {}
