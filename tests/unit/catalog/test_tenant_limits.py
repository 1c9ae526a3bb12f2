"""Limits of single tenants: kept, replaced, taken away."""

import pytest

from runstore.catalog import Catalog
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID
from runstore.domain.rate_limits import RateLimits, TenantLimits

LIMITS = TenantLimits(key=RateLimits(runs=0, bytes=1.5), tenant=RateLimits(queries=100))


async def test_limits_are_replaced(catalog: Catalog, other: Catalog) -> None:
    """The last ones hold, in every process and for this tenant alone."""
    assert await catalog.tenant_limits.of(DEFAULT_TENANT_ID) == TenantLimits()
    await catalog.tenant_limits.set(DEFAULT_TENANT_ID, TenantLimits(key=RateLimits(queries=3)))
    await catalog.tenant_limits.set(DEFAULT_TENANT_ID, LIMITS)
    assert await other.tenant_limits.of(DEFAULT_TENANT_ID) == LIMITS
    tenant = await catalog.keys.create_tenant("research")
    assert await other.tenant_limits.of(tenant.id) == TenantLimits()
    await other.tenant_limits.set(DEFAULT_TENANT_ID, TenantLimits())
    assert await catalog.tenant_limits.of(DEFAULT_TENANT_ID) == TenantLimits()


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
async def test_what_is_no_limit(catalog: Catalog, value: float) -> None:
    """Numbers that cannot be a rate are refused by name."""
    with pytest.raises(RunstoreError) as refused:
        await catalog.tenant_limits.set(DEFAULT_TENANT_ID, TenantLimits(tenant=RateLimits(bytes=value)))
    assert (refused.value.reason, refused.value.field) == (ErrorReason.INVALID_ARGUMENT, "tenant_bytes_per_s")


async def test_of_no_tenant(catalog: Catalog) -> None:
    """There is nothing to limit."""
    with pytest.raises(RunstoreError) as refused:
        await catalog.tenant_limits.set("11111111-1111-4111-8111-111111111111", LIMITS)
    assert refused.value.reason is ErrorReason.NOT_FOUND
