"""Serves `TenantService`."""

from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.tenant_handles import TenantHandles
from runstore.domain.errors import invalid
from runstore.domain.principals import Role
from runstore.domain.rate_limits import Measure, RateLimiter, RateLimits, TenantLimits
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import set_time
from runstore.v1 import tenant_service_pb2 as pb
from runstore.v1 import tenant_service_pb2_grpc

_ROLES: Final = {
    Role.INGEST_ONLY: pb.ROLE_INGEST_ONLY,
    Role.READER: pb.ROLE_READER,
    Role.EDITOR: pb.ROLE_EDITOR,
    Role.ADMIN: pb.ROLE_ADMIN,
}

_NO_LIMIT: Final = RateLimits(runs=0, bytes=0, queries=0)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TenantServicer(tenant_service_pb2_grpc.TenantServiceServicer):
    """Maps calls to the catalog."""

    def __init__(self, handles: TenantHandles, limiter: RateLimiter) -> None:
        self._handles = handles
        self._limiter = limiter

    async def GetCaller(self, request: pb.GetCallerRequest, context: _Context) -> pb.GetCallerResponse:
        caller = current_principal.get()
        return pb.GetCallerResponse(
            tenant_id=caller.tenant_id,
            key_id=caller.key_id or "",
            role=role_message(caller.role),
            is_operator=caller.is_operator,
        )

    async def GetTenant(self, request: pb.GetTenantRequest, context: _Context) -> pb.GetTenantResponse:
        return pb.GetTenantResponse(tenant=await self._tenant())

    async def SetTenantHandle(
        self, request: pb.SetTenantHandleRequest, context: _Context
    ) -> pb.SetTenantHandleResponse:
        await self._handles.set(current_principal.get().tenant_id, request.handle)
        return pb.SetTenantHandleResponse(tenant=await self._tenant())

    async def GetLimits(self, request: pb.GetLimitsRequest, context: _Context) -> pb.GetLimitsResponse:
        limits = await self._limiter.limits_of(current_principal.get().tenant_id)
        return pb.GetLimitsResponse(limits=effective_limits(limits))

    async def _tenant(self) -> pb.Tenant:
        tenant = await self._handles.tenant(current_principal.get().tenant_id)
        message = pb.Tenant(id=tenant.id, name=tenant.name, handle=await self._handles.of(tenant.id))
        set_time(message.create_time, tenant.created_at_us)
        return message


def role_message(role: Role | None) -> pb.Role.ValueType:
    """The public number of a role."""
    return pb.ROLE_UNSPECIFIED if role is None else _ROLES[role]


def role_of(message: pb.Role.ValueType) -> Role:
    """The role that a caller asks for. Raises INVALID_ARGUMENT for none."""
    for role, number in _ROLES.items():
        if number == message:
            return role
    raise invalid("role", "must be one of the roles")


def limits_message(limits: TenantLimits) -> pb.TenantLimits:
    """What was said of limits."""
    return pb.TenantLimits(key=_rates_message(limits.key), tenant=_rates_message(limits.tenant))


def effective_limits(limits: TenantLimits) -> pb.TenantLimits:
    """What holds: every field is given."""
    return limits_message(limits.over(TenantLimits(key=_NO_LIMIT, tenant=_NO_LIMIT)))


def limits_of(message: pb.TenantLimits) -> TenantLimits:
    """What a message says of limits."""
    return TenantLimits(key=_rates_of(message.key), tenant=_rates_of(message.tenant))


def _rates_message(rates: RateLimits) -> pb.RateLimits:
    return pb.RateLimits(runs_per_s=rates.runs, bytes_per_s=rates.bytes, queries_per_s=rates.queries)


def _rates_of(message: pb.RateLimits) -> RateLimits:
    given = {
        measure.value: getattr(message, f"{measure}_per_s")
        for measure in Measure
        if message.HasField(f"{measure}_per_s")  # type: ignore[arg-type]  # their names, made
    }
    return RateLimits(**given)
