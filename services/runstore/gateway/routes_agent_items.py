"""The routes of what agents remember across threads (contract agents, section 1.4)."""

from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Query, Request
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.agent_bodies import JsonObject, absent_json, body_of, object_bytes
from runstore.gateway.dataset_json import show_time
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import agent_item_service_pb2 as pb

_Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Labels = Annotated[list[str], msgspec.Meta(description="Labels of the path; none empty, none with a dot.")]


class ItemPut(msgspec.Struct):
    """What to keep."""

    namespace: _Labels
    key: str
    value: JsonObject
    index: Literal[False] | list[str] | None = None
    """Without effect: items are found by namespace and filter."""
    ttl: Annotated[float, msgspec.Meta(description="Minutes; for ever when absent.")] | None = None


class ItemNamed(msgspec.Struct):
    """Which item."""

    namespace: _Labels
    key: str


class ItemSearch(msgspec.Struct):
    """Conditions, which all must hold."""

    namespace_prefix: _Labels = []
    filter: JsonObject = absent_json()
    limit: _Limit | None = None
    offset: _Offset | None = None
    query: str | None = None
    """Without effect: no embedding model ranks items."""
    refresh_ttl: bool | None = None


class NamespaceSearch(msgspec.Struct):
    """Which namespaces; `*` is any label."""

    prefix: list[str] | None = None
    suffix: list[str] | None = None
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    limit: _Limit | None = None
    offset: _Offset | None = None


_PUT: Final = body_of(ItemPut)
_NAMED: Final = body_of(ItemNamed)
_SEARCH: Final = body_of(ItemSearch)
_NAMESPACES: Final = body_of(NamespaceSearch)


def agent_item_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the items of `store`."""
    router = GuardedRouter(prefix="/store", tags=["Agent items"])
    _add_item_routes(router, store)
    _add_search_routes(router, store)
    return router


def _add_item_routes(router: GuardedRouter, store: StoreClient) -> None:
    items = store.agent_items

    @router.put("/items", status_code=204, openapi_extra=_PUT.openapi)
    async def put_item(request: Request) -> Response:
        """Creates an item or replaces its value."""
        body = await _PUT.read(request)
        value = object_bytes("value", body.value)
        if value is None:
            raise invalid("value", "must be an object")
        message = pb.PutAgentItemRequest(
            namespace=body.namespace, key=body.key, value=value, ttl_minutes=body.ttl
        )
        await store.ask(items.PutAgentItem, message, credentials_of(request.headers))
        return Response(status_code=204)

    @router.get("/items")
    async def get_item(
        request: Request,
        key: str,
        namespace: Annotated[str, Query(description="Labels with dots between them.")] = "",
        refresh_ttl: Annotated[bool | None, Query(description="False: reading does not renew it.")] = None,
    ) -> Response:
        """An item, or `null`."""
        message = pb.GetAgentItemRequest(
            namespace=namespace.split(".") if namespace else [], key=key, keeps_ttl=refresh_ttl is False
        )
        answer = await store.ask(items.GetAgentItem, message, credentials_of(request.headers))
        return json_response(_shown(answer.item) if answer.HasField("item") else None)

    @router.delete("/items", status_code=204, openapi_extra=_NAMED.openapi)
    async def delete_item(request: Request) -> Response:
        """Deletes an item, if there is one."""
        body = await _NAMED.read(request)
        message = pb.DeleteAgentItemRequest(namespace=body.namespace, key=body.key)
        await store.ask(items.DeleteAgentItem, message, credentials_of(request.headers))
        return Response(status_code=204)


def _add_search_routes(router: GuardedRouter, store: StoreClient) -> None:
    items = store.agent_items

    @router.post("/items/search", openapi_extra=_SEARCH.openapi)
    async def search_items(request: Request) -> Response:
        """Items below a namespace, the last changed first."""
        body = await _SEARCH.read(request)
        message = pb.SearchAgentItemsRequest(
            namespace_prefix=body.namespace_prefix,
            filter=object_bytes("filter", body.filter) or b"",
            offset=body.offset or 0,
            page_size=body.limit or 0,
            keeps_ttl=body.refresh_ttl is False,
        )
        answer = await store.ask(items.SearchAgentItems, message, credentials_of(request.headers))
        return json_response({"items": [{**_shown(item), "score": None} for item in answer.items]})

    @router.post("/namespaces", openapi_extra=_NAMESPACES.openapi)
    async def list_namespaces(request: Request) -> Response:
        """The namespaces that hold items."""
        body = await _NAMESPACES.read(request)
        message = pb.ListAgentItemNamespacesRequest(
            prefix=body.prefix,
            suffix=body.suffix,
            max_depth=body.max_depth or 0,
            offset=body.offset or 0,
            page_size=body.limit or 0,
        )
        answer = await store.ask(items.ListAgentItemNamespaces, message, credentials_of(request.headers))
        return json_response({"namespaces": [list(each.labels) for each in answer.namespaces]})


def _shown(item: pb.AgentItem) -> dict[str, Any]:
    return {
        "namespace": list(item.namespace),
        "key": item.key,
        "value": msgspec.Raw(item.value),
        "created_at": show_time(item, "create_time"),
        "updated_at": show_time(item, "update_time"),
    }
