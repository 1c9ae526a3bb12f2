"""The outbox of webhooks: what is put there is handed out until it is removed, to one at a time."""

import asyncio
from dataclasses import replace

from tests.manual_clock import ManualClock

from runstore.catalog import Catalog
from runstore.catalog.webhook_outbox import put_webhook
from runstore.domain.agent_runs import AgentRun, AgentRunStatus, MultitaskStrategy
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT

LEASE_S = 60.0


async def given_webhooks(catalog: Catalog, count: int) -> None:
    """Puts calls with the numbers of their runs."""
    now_us = catalog._clock.now_us()
    run = AgentRun(
        run_id="",
        tenant_id=TENANT,
        thread_id="",
        assistant_id="",
        graph_id="",
        status=AgentRunStatus.SUCCESS,
        metadata=b"{}",
        kwargs=b"{}",
        multitask_strategy=MultitaskStrategy.ENQUEUE,
        created_at_us=now_us,
        due_at_us=now_us,
        updated_at_us=now_us,
        webhook="https://example.com/",
    )
    async with catalog._database.write() as connection:
        for number in range(count):
            await put_webhook(connection, replace(run, run_id=str(number)), b"{}", now_us)


async def test_a_call_is_handed_out_once(catalog: Catalog, other: Catalog, clock: ManualClock) -> None:
    """Two processes that ask at the same time get different calls, all of them together."""
    await given_webhooks(catalog, 6)
    claims = await asyncio.gather(
        *(each.webhook_outbox.claim(4, LEASE_S) for each in (catalog, other, catalog, other))
    )
    claims.append(await other.webhook_outbox.claim(6, LEASE_S))
    assert sorted(webhook.run_id for claim in claims for webhook in claim) == list("012345")
    assert all(webhook.attempts == 1 for claim in claims for webhook in claim)


async def test_a_lost_claim_is_handed_out_again(catalog: Catalog, other: Catalog, clock: ManualClock) -> None:
    """Whoever dies with a call keeps it for the lease only; coming late, they change nothing."""
    await given_webhooks(catalog, 1)
    (first,) = await catalog.webhook_outbox.claim(1, LEASE_S)
    clock.advance(LEASE_S - 1)
    assert await other.webhook_outbox.claim(1, LEASE_S) == []
    clock.advance(1)
    (second,) = await other.webhook_outbox.claim(1, LEASE_S)
    assert (second.id, second.attempts) == (first.id, 2)
    await catalog.webhook_outbox.remove(first)
    await catalog.webhook_outbox.put_off(first, 0)
    await catalog.webhook_outbox.give_back(first)
    assert await other.webhook_outbox.claim(1, LEASE_S) == []
    clock.advance(LEASE_S)
    (third,) = await other.webhook_outbox.claim(1, LEASE_S)
    assert third.attempts == 3
    await other.webhook_outbox.remove(third)
    clock.advance(LEASE_S)
    assert await other.webhook_outbox.claim(1, LEASE_S) == []


async def test_put_off_and_given_back(catalog: Catalog, clock: ManualClock) -> None:
    """A failed call waits and counts; one that was given back does neither."""
    await given_webhooks(catalog, 1)
    outbox = catalog.webhook_outbox
    (webhook,) = await outbox.claim(1, LEASE_S)
    await outbox.put_off(webhook, 5.0)
    clock.advance(4.9)
    assert await outbox.claim(1, LEASE_S) == []
    clock.advance(0.1)
    (webhook,) = await outbox.claim(1, LEASE_S)
    assert webhook.attempts == 2
    await outbox.give_back(webhook)
    (webhook,) = await outbox.claim(1, LEASE_S)
    assert webhook.attempts == 2
