"""Serves `AgentItemService`."""

from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.agent_items import AgentItemCatalog
from runstore.catalog.texts import json_object
from runstore.domain.agent_items import AgentItem, ItemQuery, NamespaceQuery, check_filter
from runstore.domain.errors import invalid
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import set_time
from runstore.v1 import agent_item_service_pb2 as pb
from runstore.v1 import agent_item_service_pb2_grpc

_DEFAULT_ITEMS: Final = 10
_DEFAULT_NAMESPACES: Final = 100

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AgentItemServicer(agent_item_service_pb2_grpc.AgentItemServiceServicer):
    """Maps calls to the catalog."""

    def __init__(self, items: AgentItemCatalog) -> None:
        self._items = items

    async def PutAgentItem(
        self, request: pb.PutAgentItemRequest, context: _Context
    ) -> pb.PutAgentItemResponse:
        ttl_minutes = request.ttl_minutes if request.HasField("ttl_minutes") else None
        namespace = tuple(request.namespace)
        await self._items.put(_tenant_id(), namespace, request.key, request.value, ttl_minutes)
        return pb.PutAgentItemResponse()

    async def GetAgentItem(
        self, request: pb.GetAgentItemRequest, context: _Context
    ) -> pb.GetAgentItemResponse:
        item = await self._items.get(
            _tenant_id(), tuple(request.namespace), request.key, refreshes_ttl=not request.keeps_ttl
        )
        return pb.GetAgentItemResponse(item=_message(item) if item else None)

    async def DeleteAgentItem(
        self, request: pb.DeleteAgentItemRequest, context: _Context
    ) -> pb.DeleteAgentItemResponse:
        await self._items.delete(_tenant_id(), tuple(request.namespace), request.key)
        return pb.DeleteAgentItemResponse()

    async def SearchAgentItems(
        self, request: pb.SearchAgentItemsRequest, context: _Context
    ) -> pb.SearchAgentItemsResponse:
        _check_not_negative(request, "offset", "page_size")
        condition = json_object("filter", request.filter) if request.filter else None
        if condition:
            check_filter(condition)
        query = ItemQuery(
            namespace_prefix=tuple(request.namespace_prefix),
            filter=condition,
            offset=request.offset,
            limit=request.page_size or _DEFAULT_ITEMS,
            refreshes_ttl=not request.keeps_ttl,
        )
        items = await self._items.search(_tenant_id(), query)
        return pb.SearchAgentItemsResponse(items=map(_message, items))

    async def ListAgentItemNamespaces(
        self, request: pb.ListAgentItemNamespacesRequest, context: _Context
    ) -> pb.ListAgentItemNamespacesResponse:
        _check_not_negative(request, "max_depth", "offset", "page_size")
        query = NamespaceQuery(
            prefix=tuple(request.prefix),
            suffix=tuple(request.suffix),
            max_depth=request.max_depth or None,
            offset=request.offset,
            limit=request.page_size or _DEFAULT_NAMESPACES,
        )
        namespaces = await self._items.namespaces(_tenant_id(), query)
        return pb.ListAgentItemNamespacesResponse(
            namespaces=[pb.AgentItemNamespace(labels=labels) for labels in namespaces]
        )


def _tenant_id() -> str:
    return current_principal.get().tenant_id


def _check_not_negative(request: Any, *fields: str) -> None:
    for field in fields:
        if getattr(request, field) < 0:
            raise invalid(field, "must not be negative")


def _message(item: AgentItem) -> pb.AgentItem:
    message = pb.AgentItem(namespace=item.namespace, key=item.key, value=item.value)
    set_time(message.create_time, item.created_at_us)
    set_time(message.update_time, item.updated_at_us)
    return message
