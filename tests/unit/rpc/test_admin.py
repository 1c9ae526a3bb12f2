"""Limits of tenants as operators set them, on a real catalog."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from runstore.catalog import Catalog, open_catalog
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID, Principal
from runstore.domain.rate_limits import RateLimiter, RateLimits, TenantLimits
from runstore.rpc.admin import AdminServicer
from runstore.rpc.authentication import current_principal
from runstore.rpc.tenants import TenantServicer
from runstore.runtime.clock import SystemClock
from runstore.v1 import admin_service_pb2 as pb
from runstore.v1 import tenant_service_pb2 as tenant_pb

CONTEXT = cast("Any", None)
SETTINGS = TenantLimits(tenant=RateLimits(runs=100, bytes=0))


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite") as catalog:
        yield catalog


@pytest.fixture
def limiter(catalog: Catalog) -> RateLimiter:
    return RateLimiter(SETTINGS, catalog.tenant_limits, SystemClock())


@pytest.fixture
def admin(catalog: Catalog, limiter: RateLimiter) -> AdminServicer:
    nothing = cast("Any", None)
    return AdminServicer(
        nothing, catalog.keys, nothing, nothing, nothing, nothing, catalog.tenant_limits, limiter
    )


async def test_limits_hold_at_once(catalog: Catalog, limiter: RateLimiter, admin: AdminServicer) -> None:
    """Replaced whole, shown as they were set and as they hold, also to the tenant; listed by name."""
    tenant = await catalog.keys.create_tenant("research")
    await catalog.keys.create_tenant("marketing")
    own = tenant_pb.TenantLimits(
        key=tenant_pb.RateLimits(queries_per_s=0.5), tenant=tenant_pb.RateLimits(runs_per_s=0)
    )
    read = pb.GetTenantLimitsRequest(tenant_id=tenant.id)
    before = await admin.GetTenantLimits(read, CONTEXT)
    assert before.limits == tenant_pb.TenantLimits(key=tenant_pb.RateLimits(), tenant=tenant_pb.RateLimits())
    assert before.effective.tenant.runs_per_s == 100
    done = await admin.SetTenantLimits(pb.SetTenantLimitsRequest(tenant_id=tenant.id, limits=own), CONTEXT)
    holds = tenant_pb.TenantLimits(
        key=tenant_pb.RateLimits(runs_per_s=0, bytes_per_s=0, queries_per_s=0.5),
        tenant=tenant_pb.RateLimits(runs_per_s=0, bytes_per_s=0, queries_per_s=0),
    )
    assert done.effective == holds
    after = await admin.GetTenantLimits(read, CONTEXT)
    assert (after.limits, after.effective) == (own, holds)
    current_principal.set(Principal(tenant.id, "key"))
    servicer = TenantServicer(catalog.tenant_handles, limiter)
    assert (await servicer.GetLimits(tenant_pb.GetLimitsRequest(), CONTEXT)).limits == holds
    listed = await admin.ListTenantLimits(pb.ListTenantLimitsRequest(), CONTEXT)
    assert [(each.tenant_id, each.name, each.limits) for each in listed.tenants] == [
        (tenant.id, "research", own)
    ]
    tenants = await admin.ListTenants(pb.ListTenantsRequest(), CONTEXT)
    assert [each.name for each in tenants.tenants] == ["default", "marketing", "research"]


async def test_what_is_no_limit_or_no_tenant(admin: AdminServicer) -> None:
    """The field is named; nothing is set."""
    negative = tenant_pb.TenantLimits(tenant=tenant_pb.RateLimits(bytes_per_s=-1))
    refusals = {
        (DEFAULT_TENANT_ID, ErrorReason.INVALID_ARGUMENT, "tenant_bytes_per_s"),
        ("11111111-1111-4111-8111-111111111111", ErrorReason.NOT_FOUND, "tenant_id"),
        ("x", ErrorReason.INVALID_ARGUMENT, "tenant_id"),
    }
    for tenant_id, reason, field in refusals:
        request = pb.SetTenantLimitsRequest(tenant_id=tenant_id, limits=negative)
        with pytest.raises(RunstoreError) as refused:
            await admin.SetTenantLimits(request, CONTEXT)
        assert (refused.value.reason, refused.value.field) == (reason, field)
    assert not (await admin.ListTenantLimits(pb.ListTenantLimitsRequest(), CONTEXT)).tenants
