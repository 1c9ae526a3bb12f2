"""Rules of retention, progress and leases in the catalog."""

import pytest
from tests.manual_clock import ManualClock

from runstore.catalog import Catalog
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID
from runstore.domain.retention import (
    NO_RULE,
    Freed,
    RetentionProgress,
    RetentionRule,
    RetentionRules,
    TraceTier,
)

DEPLOYMENT = RetentionRule(short_days=14, long_days=400)
PROJECT = "11111111-1111-4111-8111-111111111111"


async def test_rules_are_set_read_and_removed(catalog: Catalog) -> None:
    """Of a tenant and of a project apart; a tier changes nothing but the tier."""
    retention = catalog.retention
    await retention.set_rule(DEFAULT_TENANT_ID, None, RetentionRule(short_days=3))
    await retention.set_rule(DEFAULT_TENANT_ID, PROJECT, RetentionRule(long_days=0))
    await retention.set_tier(DEFAULT_TENANT_ID, PROJECT, TraceTier.LONGLIVED)
    tiered = RetentionRule(trace_tier=TraceTier.LONGLIVED, long_days=0)
    assert await retention.rule(DEFAULT_TENANT_ID, PROJECT) == tiered
    rules = await retention.rules(DEPLOYMENT)
    of_tenant = {DEFAULT_TENANT_ID: RetentionRule(short_days=3)}
    assert rules == RetentionRules(DEPLOYMENT, of_tenant, {(DEFAULT_TENANT_ID, PROJECT): tiered})
    await retention.set_rule(DEFAULT_TENANT_ID, PROJECT, NO_RULE)
    assert (await retention.rules(DEPLOYMENT)).projects == {}


async def test_another_stores_rule_is_seen_soon(catalog: Catalog, other: Catalog, clock: ManualClock) -> None:
    """Within ten seconds."""
    assert (await catalog.retention.rules(DEPLOYMENT)).tenants == {}
    await other.retention.set_rule(DEFAULT_TENANT_ID, None, RetentionRule(short_days=1))
    clock.advance(10)
    assert (await catalog.retention.rules(DEPLOYMENT)).tenants != {}


@pytest.mark.parametrize("days", [-1, 36_501])
async def test_days_that_are_none_are_refused(catalog: Catalog, days: int) -> None:
    """The field is named."""
    with pytest.raises(RunstoreError) as refused:
        await catalog.retention.set_rule(DEFAULT_TENANT_ID, None, RetentionRule(long_days=days))
    assert (refused.value.reason, refused.value.field) == (ErrorReason.INVALID_ARGUMENT, "long_days")


async def test_unknown_tenant(catalog: Catalog) -> None:
    """Has no rule; what is freed of one is not counted."""
    with pytest.raises(RunstoreError) as refused:
        await catalog.retention.set_rule(PROJECT, None, RetentionRule(long_days=1))
    assert refused.value.reason is ErrorReason.NOT_FOUND
    await catalog.retention.freed(PROJECT, Freed(1, 1))
    assert await catalog.retention.progress() == []


async def test_progress_adds_up(catalog: Catalog, clock: ManualClock) -> None:
    """What is freed is counted on; of sweeps the last counts."""
    for oldest_us in (None, 7):
        await catalog.retention.freed(DEFAULT_TENANT_ID, Freed(rows=2, bytes=30))
        clock.advance(5)
        await catalog.retention.swept(DEFAULT_TENANT_ID, oldest_us)
    [progress] = await catalog.retention.progress()
    assert progress == RetentionProgress(
        tenant_id=DEFAULT_TENANT_ID, swept_at_us=clock.now_us(), oldest_us=7, rows=4, bytes=60
    )


async def test_one_holder_at_a_time(catalog: Catalog, other: Catalog, clock: ManualClock) -> None:
    """Until the holder gives the lease back, or its time is over; it may take it again meanwhile, also after
    it was killed and started again."""
    mine, again, others = catalog.leases("a"), other.leases("a"), other.leases("b")
    assert await mine.take("l", 60)
    assert await mine.take("l", 60)
    assert await again.take("l", 60)
    assert not await others.take("l", 60)
    await others.give_back("l")
    assert not await others.take("l", 60)
    await mine.give_back("l")
    assert await others.take("l", 60)
    clock.advance(60)
    assert await mine.take("l", 60)
