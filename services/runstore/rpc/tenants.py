"""Serves `TenantService`."""

from typing import Any, TypeAlias

import grpc

from runstore.catalog.tenant_handles import TenantHandles
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import set_time
from runstore.v1 import tenant_service_pb2 as pb
from runstore.v1 import tenant_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TenantServicer(tenant_service_pb2_grpc.TenantServiceServicer):
    """Maps calls to the catalog."""

    def __init__(self, handles: TenantHandles) -> None:
        self._handles = handles

    async def GetTenant(self, request: pb.GetTenantRequest, context: _Context) -> pb.GetTenantResponse:
        return pb.GetTenantResponse(tenant=await self._tenant())

    async def SetTenantHandle(
        self, request: pb.SetTenantHandleRequest, context: _Context
    ) -> pb.SetTenantHandleResponse:
        await self._handles.set(current_principal.get().tenant_id, request.handle)
        return pb.SetTenantHandleResponse(tenant=await self._tenant())

    async def _tenant(self) -> pb.Tenant:
        tenant = await self._handles.tenant(current_principal.get().tenant_id)
        message = pb.Tenant(id=tenant.id, name=tenant.name, handle=await self._handles.of(tenant.id))
        set_time(message.create_time, tenant.created_at_us)
        return message
