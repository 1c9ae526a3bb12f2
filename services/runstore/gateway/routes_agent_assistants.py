"""The routes of assistants, as `langgraph-sdk` calls them (contract agents, section 1.3)."""

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import Query, Request
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.agent_assistant_json import (
    ASSISTANT_CREATE,
    ASSISTANT_SEARCH,
    ASSISTANT_UPDATE,
    VERSION_CHOSEN,
    VERSIONS_ASKED,
    condition_of,
    create_request,
    search_request,
    show_assistant,
    update_request,
)
from runstore.gateway.agent_bodies import object_bytes, page_headers, selected
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import assistant_service_pb2 as pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Detail, "description": "No worker has the graph."},
    409: {"model": Detail, "description": "The id is taken."},
}
_Recurse = Annotated[bool, Query(description="Also those within subgraphs.")]
_WHOLE_DEPTH: Final = -1


def assistant_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the assistants of `store`."""
    router = GuardedRouter(prefix="/assistants", tags=["Assistants"])
    _add_assistant_routes(router, store)
    _add_version_routes(router, store)
    _add_graph_routes(router, store)
    return router


def _add_assistant_routes(router: GuardedRouter, store: StoreClient) -> None:
    assistants = store.assistants

    @router.post("", openapi_extra=ASSISTANT_CREATE.openapi, responses=_TAKEN)
    async def create_assistant(request: Request) -> Response:
        """Creates an assistant: a graph with a configuration."""
        message = create_request(await ASSISTANT_CREATE.read(request))
        answer = await store.ask_once(assistants.CreateAssistant, message, credentials_of(request.headers))
        return json_response(show_assistant(answer.assistant))

    @router.post("/search", openapi_extra=ASSISTANT_SEARCH.openapi)
    async def search_assistants(request: Request) -> Response:
        """Lists assistants; `X-Pagination-Next` is the next offset while there are more."""
        body = await ASSISTANT_SEARCH.read(request)
        message = search_request(body)
        answer = await store.ask(assistants.SearchAssistants, message, credentials_of(request.headers))
        shown = [selected(show_assistant(each), body.select or ()) for each in answer.assistants]
        return json_response(shown, headers=page_headers(message.offset, len(shown), answer.total_count))

    @router.post("/count", openapi_extra=ASSISTANT_SEARCH.openapi)
    async def count_assistants(request: Request) -> Response:
        """Counts assistants."""
        message = pb.CountAssistantsRequest(condition=condition_of(await ASSISTANT_SEARCH.read(request)))
        answer = await store.ask(assistants.CountAssistants, message, credentials_of(request.headers))
        return json_response(answer.count)

    @router.get("/{assistant_id}", responses=_NOT_FOUND)
    async def read_assistant(request: Request, assistant_id: UUID) -> Response:
        """Reads an assistant."""
        message = pb.GetAssistantRequest(assistant_id=str(assistant_id))
        answer = await store.ask(assistants.GetAssistant, message, credentials_of(request.headers))
        return json_response(show_assistant(answer.assistant))

    @router.patch("/{assistant_id}", openapi_extra=ASSISTANT_UPDATE.openapi, responses=_NOT_FOUND)
    async def update_assistant(request: Request, assistant_id: UUID) -> Response:
        """Makes a new version, which is the one in use from now on."""
        message = update_request(str(assistant_id), await ASSISTANT_UPDATE.read(request))
        answer = await store.ask_once(assistants.UpdateAssistant, message, credentials_of(request.headers))
        return json_response(show_assistant(answer.assistant))

    @router.delete("/{assistant_id}", status_code=204, responses=_NOT_FOUND)
    async def delete_assistant(
        request: Request,
        assistant_id: UUID,
        delete_threads: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    ) -> Response:
        """Deletes an assistant and cancels its runs in flight."""
        message = pb.DeleteAssistantRequest(assistant_id=str(assistant_id), delete_threads=delete_threads)
        await store.ask(assistants.DeleteAssistant, message, credentials_of(request.headers))
        return Response(status_code=204)


def _add_version_routes(router: GuardedRouter, store: StoreClient) -> None:
    assistants = store.assistants

    @router.post("/{assistant_id}/versions", openapi_extra=VERSIONS_ASKED.openapi, responses=_NOT_FOUND)
    async def list_versions(request: Request, assistant_id: UUID) -> Response:
        """Lists the versions of an assistant, the newest first."""
        body = await VERSIONS_ASKED.read(request)
        message = pb.ListAssistantVersionsRequest(
            assistant_id=str(assistant_id),
            metadata=object_bytes("metadata", body.metadata),
            offset=body.offset or 0,
            page_size=body.limit or 0,
        )
        answer = await store.ask(assistants.ListAssistantVersions, message, credentials_of(request.headers))
        return json_response(list(map(show_assistant, answer.versions)))

    @router.post("/{assistant_id}/latest", openapi_extra=VERSION_CHOSEN.openapi, responses=_NOT_FOUND)
    async def set_latest(request: Request, assistant_id: UUID) -> Response:
        """Makes a version the one in use."""
        body = await VERSION_CHOSEN.read(request)
        message = pb.SetLatestAssistantVersionRequest(assistant_id=str(assistant_id), version=body.version)
        answer = await store.ask(
            assistants.SetLatestAssistantVersion, message, credentials_of(request.headers)
        )
        return json_response(show_assistant(answer.assistant))


def _add_graph_routes(router: GuardedRouter, store: StoreClient) -> None:
    assistants = store.assistants

    @router.get("/{assistant_id}/schemas", responses=_NOT_FOUND)
    async def read_schemas(request: Request, assistant_id: UUID) -> Response:
        """Reads the JSON schemas of an assistant's graph."""
        message = pb.GetAssistantSchemasRequest(assistant_id=str(assistant_id))
        answer = await store.ask(assistants.GetAssistantSchemas, message, credentials_of(request.headers))
        return json_response(msgspec.Raw(answer.schemas))

    @router.get("/{assistant_id}/graph", responses=_NOT_FOUND)
    async def read_graph(
        request: Request,
        assistant_id: str,
        xray: Annotated[str, Query(description="Depth to which subgraphs are drawn, or a truth value.")] = "",
    ) -> Response:
        """Draws a graph, named by an assistant or by itself."""
        message = pb.GetAssistantGraphRequest(assistant_id=assistant_id, xray=_depth(xray))
        answer = await store.ask(assistants.GetAssistantGraph, message, credentials_of(request.headers))
        return json_response(msgspec.Raw(answer.graph))

    async def subgraphs(
        request: Request, assistant_id: UUID, namespace: str | None, *, recurse: bool
    ) -> Response:
        message = pb.GetAssistantSubgraphsRequest(
            assistant_id=str(assistant_id), namespace=namespace, recurse=recurse
        )
        answer = await store.ask(assistants.GetAssistantSubgraphs, message, credentials_of(request.headers))
        return json_response(msgspec.Raw(answer.subgraphs))

    @router.get("/{assistant_id}/subgraphs", responses=_NOT_FOUND)
    async def read_subgraphs(request: Request, assistant_id: UUID, recurse: _Recurse = False) -> Response:  # noqa: FBT002 - a query parameter
        """Reads the schemas of a graph's subgraphs."""
        return await subgraphs(request, assistant_id, None, recurse=recurse)

    @router.get("/{assistant_id}/subgraphs/{namespace}", responses=_NOT_FOUND)
    async def read_subgraph(
        request: Request,
        assistant_id: UUID,
        namespace: str,
        recurse: _Recurse = False,  # noqa: FBT002 - a query parameter
    ) -> Response:
        """Reads the schemas of one subgraph."""
        return await subgraphs(request, assistant_id, namespace, recurse=recurse)


def _depth(xray: str) -> int:
    """-1 stands for the whole depth."""
    match xray.lower():
        case "" | "false" | "no":
            return 0
        case "true" | "yes":
            return _WHOLE_DEPTH
    if not (xray.isascii() and xray.isdigit() and len(xray) < 4):
        raise invalid("xray", "neither a depth nor a truth value")
    return int(xray)
