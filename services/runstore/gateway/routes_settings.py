"""The routes about the caller's workspace (contract resources, section 7: settings)."""

from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from runstore.domain.times import format_time
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import tenant_service_pb2 as pb


class _Handle(BaseModel):
    tenant_handle: str


def settings_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the tenants of `store`."""
    router = GuardedRouter(prefix="/settings", tags=["Prompts"])
    taken: dict[int | str, dict[str, Any]] = {409: {"model": Detail, "description": "The handle is taken."}}

    @router.get("")
    async def read_settings(request: Request) -> Response:
        """Reads the caller's workspace."""
        answer = await store.ask(
            store.tenants.GetTenant, pb.GetTenantRequest(), credentials_of(request.headers)
        )
        return json_response(_show(answer.tenant))

    @router.post("/handle", responses=taken)
    async def set_handle(request: Request, body: _Handle) -> Response:
        """Gives the caller's workspace another handle; addresses of its prompts change with it."""
        message = pb.SetTenantHandleRequest(handle=body.tenant_handle)
        answer = await store.ask(store.tenants.SetTenantHandle, message, credentials_of(request.headers))
        return json_response(_show(answer.tenant))

    return router


def _show(tenant: pb.Tenant) -> dict[str, Any]:
    return {
        "id": tenant.id,
        "display_name": tenant.name,
        "tenant_handle": tenant.handle,
        "created_at": format_time(to_time_us(tenant.create_time)),
    }
