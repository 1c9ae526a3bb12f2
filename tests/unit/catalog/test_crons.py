"""Crons in the catalog."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest
from tests.manual_clock import ManualClock

from runstore.catalog import Catalog
from runstore.domain.assistants import Graph, default_assistant_id
from runstore.domain.crons import Cron, CronFilter, CronOrder
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT


@pytest.fixture(autouse=True)
async def graphs(catalog: Catalog) -> None:
    await catalog.assistants.register(TENANT, [Graph("steps", "steps"), Graph("intr", "intr")])


async def given_cron(catalog: Catalog, **fields: Any) -> Cron:
    """A cron that is due now."""
    now_us = catalog.crons._clock.now_us()
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "tenant_id": TENANT,
        "assistant_id": default_assistant_id("steps"),
        "thread_id": None,
        "user_id": None,
        "schedule": "* * * * *",
        "timezone": None,
        "end_time_us": None,
        "enabled": True,
        "run": b"",
        "metadata": b"{}",
        "next_run_at_us": now_us,
        "created_at_us": now_us,
        "updated_at_us": now_us,
    }
    cron = Cron(**{**values, **fields})
    await catalog.crons.create(cron)
    return cron


async def found(catalog: Catalog, **condition: Any) -> list[str]:
    crons, total = await catalog.crons.search(TENANT, CronFilter(**condition))
    assert total >= len(crons)
    return [cron.id for cron in crons]


async def test_create_read_change_delete(catalog: Catalog, clock: ManualClock) -> None:
    """A change answers what is stored; deleting twice is refused; other tenants see nothing."""
    cron = await given_cron(catalog)
    assert await catalog.crons.get(TENANT, cron.id) == cron
    clock.advance(1)
    after = await catalog.crons.replace(cron, replace(cron, enabled=False, next_run_at_us=None))
    assert after.updated_at_us == cron.updated_at_us + 1_000_000
    assert await catalog.crons.get(TENANT, cron.id) == after
    other = (await catalog.keys.create_tenant("other")).id
    for call in (catalog.crons.get(other, cron.id), catalog.crons.delete(other, cron.id)):
        with pytest.raises(RunstoreError):
            await call
    assert (await catalog.crons.search(other, CronFilter()))[1] == 0
    await catalog.crons.delete(TENANT, cron.id)
    with pytest.raises(RunstoreError) as refusal:
        await catalog.crons.delete(TENANT, cron.id)
    assert refusal.value.reason is ErrorReason.NOT_FOUND


async def test_changes_do_not_overwrite_each_other(catalog: Catalog, other: Catalog) -> None:
    """Of two changes to what both have read one is refused, though the clock stands still."""
    cron = await given_cron(catalog)
    results = await asyncio.gather(
        *(
            each.crons.replace(cron, replace(cron, schedule=f"{n} * * * *"))
            for n, each in enumerate((catalog, other))
        ),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, RunstoreError)]
    assert [error.reason for error in refused] == [ErrorReason.CONFLICT]


async def test_due_crons(catalog: Catalog, clock: ManualClock) -> None:
    """Those whose time has come, the longest waiting first; once advanced they are not due."""
    now_us = clock.now_us()
    late = await given_cron(catalog, next_run_at_us=now_us - 5)
    due = await given_cron(catalog)
    await given_cron(catalog, next_run_at_us=now_us + 1)
    await given_cron(catalog, next_run_at_us=None, enabled=False)
    assert await catalog.crons.due(10) == [late, due]
    await catalog.crons.advance(late, now_us + 60_000_000)
    assert await catalog.crons.due(10) == [due]
    # A store that was slower than another changes nothing.
    await catalog.crons.advance(late, now_us)
    assert await catalog.crons.due(10) == [due]
    changed = await catalog.crons.replace(due, replace(due, next_run_at_us=now_us + 7))
    await catalog.crons.advance(due, None)
    assert await catalog.crons.get(TENANT, due.id) == changed


async def test_search(catalog: Catalog, clock: ManualClock) -> None:
    """All conditions hold together; every order puts what is absent at the low end."""
    thread = "11111111-1111-4111-8111-111111111111"
    await catalog.agent_threads.create(TENANT, thread, {})
    first = await given_cron(catalog, thread_id=thread, metadata=b'{"a":{"b":1},"c":2}')
    clock.advance(1)
    second = await given_cron(
        catalog, assistant_id=default_assistant_id("intr"), enabled=False, next_run_at_us=None
    )
    assert await found(catalog) == [second.id, first.id]
    assert await found(catalog, ascending=True, limit=1) == [first.id]
    assert await found(catalog, thread_id=thread) == [first.id]
    assert await found(catalog, assistant_id=default_assistant_id("intr")) == [second.id]
    assert await found(catalog, enabled=True) == [first.id]
    assert await found(catalog, metadata={"a": {"b": 1}}) == [first.id]
    assert await found(catalog, metadata={"a": {"b": 1}}, enabled=False) == []
    assert await found(catalog, order=CronOrder.NEXT_RUN_TIME, ascending=True) == [second.id, first.id]
    assert await found(catalog, order=CronOrder.THREAD_ID) == [first.id, second.id]
    for order in CronOrder:
        assert len(await found(catalog, order=order)) == 2


async def test_crons_go_with_their_assistant_and_thread(catalog: Catalog) -> None:
    """A cron whose assistant or thread is deleted is gone; without them none is made."""
    thread = "11111111-1111-4111-8111-111111111111"
    await catalog.agent_threads.create(TENANT, thread, {})
    of_thread = await given_cron(catalog, thread_id=thread)
    of_assistant = await given_cron(catalog, assistant_id=default_assistant_id("intr"))
    await catalog.agent_threads.delete(TENANT, thread)
    assert await found(catalog) == [of_assistant.id]
    await catalog.assistants.delete(TENANT, of_assistant.assistant_id)
    assert await found(catalog) == []
    for fields in ({"thread_id": of_thread.thread_id}, {"assistant_id": of_assistant.assistant_id}):
        with pytest.raises(RunstoreError) as refusal:
            await given_cron(catalog, **fields)
        assert refusal.value.reason is ErrorReason.NOT_FOUND
