"""The routes of schedules of runs, as `langgraph-sdk` calls them (contract agents, section 1.5)."""

from typing import Any, Final
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from runstore.gateway.agent_bodies import page_headers, selected
from runstore.gateway.agent_cron_json import (
    CRON_CREATE,
    CRON_SEARCH,
    CRON_UPDATE,
    create_cron_request,
    cron_condition,
    search_crons_request,
    show_cron,
    update_cron_request,
)
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import cron_service_pb2 as pb

_CRON: Final = "/runs/crons/{cron_id}"
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}


def agent_cron_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the crons of `store`."""
    router = GuardedRouter(tags=["Agent crons"])
    _add_creating_routes(router, store)
    _add_searching_routes(router, store)
    _add_cron_routes(router, store)
    return router


def _add_creating_routes(router: GuardedRouter, store: StoreClient) -> None:
    async def create(request: Request, thread_id: str) -> Response:
        message = create_cron_request(await CRON_CREATE.read(request), thread_id)
        answer = await store.ask_once(store.crons.CreateCron, message, credentials_of(request.headers))
        return json_response(show_cron(answer.cron))

    @router.post("/runs/crons", openapi_extra=CRON_CREATE.openapi, responses=_NOT_FOUND)
    async def create_cron(request: Request) -> Response:
        """Creates a cron whose runs have threads of their own."""
        return await create(request, "")

    @router.post("/threads/{thread_id}/runs/crons", openapi_extra=CRON_CREATE.openapi, responses=_NOT_FOUND)
    async def create_cron_for_thread(request: Request, thread_id: UUID) -> Response:
        """Creates a cron whose runs are on one thread."""
        return await create(request, str(thread_id))


def _add_searching_routes(router: GuardedRouter, store: StoreClient) -> None:
    @router.post("/runs/crons/search", openapi_extra=CRON_SEARCH.openapi)
    async def search_crons(request: Request) -> Response:
        """Lists crons, the last created first unless told."""
        body = await CRON_SEARCH.read(request)
        message = search_crons_request(body)
        answer = await store.ask(store.crons.SearchCrons, message, credentials_of(request.headers))
        shown = [selected(show_cron(each), body.select or ()) for each in answer.crons]
        return json_response(shown, headers=page_headers(message.offset, len(shown), answer.total_count))

    @router.post("/runs/crons/count", openapi_extra=CRON_SEARCH.openapi)
    async def count_crons(request: Request) -> Response:
        """Counts crons."""
        message = pb.CountCronsRequest(condition=cron_condition(await CRON_SEARCH.read(request)))
        answer = await store.ask(store.crons.CountCrons, message, credentials_of(request.headers))
        return json_response(answer.count)


def _add_cron_routes(router: GuardedRouter, store: StoreClient) -> None:
    @router.get(_CRON, responses=_NOT_FOUND)
    async def read_cron(request: Request, cron_id: UUID) -> Response:
        """Reads a cron."""
        message = pb.GetCronRequest(cron_id=str(cron_id))
        answer = await store.ask(store.crons.GetCron, message, credentials_of(request.headers))
        return json_response(show_cron(answer.cron))

    @router.patch(_CRON, openapi_extra=CRON_UPDATE.openapi, responses=_NOT_FOUND)
    async def update_cron(request: Request, cron_id: UUID) -> Response:
        """Changes a cron."""
        message = update_cron_request(str(cron_id), await CRON_UPDATE.read(request))
        answer = await store.ask(store.crons.UpdateCron, message, credentials_of(request.headers))
        return json_response(show_cron(answer.cron))

    @router.delete(_CRON, status_code=204, responses=_NOT_FOUND)
    async def delete_cron(request: Request, cron_id: UUID) -> Response:
        """Deletes a cron; its runs stay."""
        message = pb.DeleteCronRequest(cron_id=str(cron_id))
        await store.ask(store.crons.DeleteCron, message, credentials_of(request.headers))
        return Response(status_code=204)
