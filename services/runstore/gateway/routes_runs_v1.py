"""The v1 routes that read runs: `GET /runs/{id}`, `POST /runs/query` (contract runs-v1, sections 5 and 6)."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from runstore.gateway.call_log import add_call_facts
from runstore.gateway.conditions_v1 import run_conditions, with_question
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Detail, RunPageV1, RunsQueryV1, RunV1
from runstore.gateway.run_v1 import DEFAULT_SELECTION, SELECTABLE, Selection
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as pb

_MAX_LIMIT: Final = 100
_WITHOUT_SERIALIZED: Final = Selection(
    key for key in SELECTABLE if key in DEFAULT_SELECTION.keys and key not in ("serialized", "manifest")
)


def run_routes_v1(store: StoreClient) -> GuardedRouter:
    """The routes, reading from `store`."""
    router = GuardedRouter(tags=["Runs (v1)"])
    not_found: dict[int | str, dict[str, Any]] = {404: {"model": Detail}}

    @router.get("/runs/{run_id}", response_model=RunV1, responses=not_found)
    async def read_run(
        request: Request,
        run_id: UUID,
        session_id: Annotated[UUID | None, Query(description="The run's project.")] = None,
        start_time: Annotated[TimeUs | None, Query(description="A hint; not needed here.")] = None,  # noqa: ARG001 - documented, and checked
        exclude_s3_stored_attributes: Annotated[  # noqa: ARG001, FBT002 - part of the contract
            bool, Query(description="Without effect: nothing is stored outside.")
        ] = False,
        exclude_serialized: bool = False,  # noqa: FBT001, FBT002 - a query parameter
        include_messages: bool = False,  # noqa: ARG001, FBT001, FBT002 - part of the contract
    ) -> Response:
        """Reads one run, complete."""
        selection = _WITHOUT_SERIALIZED if exclude_serialized else DEFAULT_SELECTION
        query = pb.GetRunRequest(
            id=str(run_id),
            project_id=None if session_id is None else str(session_id),
            fields=selection.fields,
        )
        answer = await store.get_run(query, credentials_of(request.headers))
        return runs_response(selection.show(answer.run, str(request.base_url)), store)

    @router.post(
        "/runs/query",
        response_model=RunPageV1,
        responses={400: {"model": Detail, "description": "Bad filter or cursor, or no bound."}},
    )
    async def query_runs(request: Request, body: RunsQueryV1) -> Response:
        """Lists runs, newest first unless told, a page at a time.

        At least one of `session`, `id`, `parent_run`, `trace` and `reference_example` is needed.
        """
        selection = DEFAULT_SELECTION if body.select is None else Selection(body.select)
        credentials = credentials_of(request.headers)
        query = _list_request(body, selection)
        understood = await with_question(query, body, body.cursor, store, credentials)
        if understood is not None:
            query.page_token = understood.cursor
        page = await store.list_runs(query, credentials)
        add_call_facts(request.scope, runs=len(page.runs))
        base_url = str(request.base_url)
        following = None if body.skip_pagination else page.next_page_token or None
        previous = None
        if not (body.skip_pagination or body.skip_prev_cursor):
            previous = page.previous_page_token or None
        if understood is not None:
            following, previous = understood.wrap(following), understood.wrap(previous)
        content = {
            "runs": [selection.show(run, base_url) for run in page.runs],
            "cursors": {"next": following, "prev": previous},
            "search_cursors": None,
            "parsed_query": None if understood is None else understood.filter,
        }
        return runs_response(content, store)

    return router


def _list_request(body: RunsQueryV1, selection: Selection) -> pb.ListRunsRequest:
    limit = _MAX_LIMIT if body.limit is None else min(max(body.limit, 1), _MAX_LIMIT)
    request = run_conditions(body)
    request.fields.extend(selection.fields)
    request.sort_order = run_pb2.SORT_ORDER_ASC if body.order == "asc" else run_pb2.SORT_ORDER_DESC
    request.page_size = limit
    request.page_token = body.cursor or ""
    return request
