"""The v2 routes that read runs: `POST /api/v2/runs/query`, `GET /api/v2/runs/{id}` and `…/url`.

Contract runs-v2, sections 1 to 3.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.ai_search import Search, search_of
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.dialects import json_response
from runstore.gateway.experiments import experiments_on
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Problem, RunPageV2, RunsQueryV2, RunV2, SelectV2
from runstore.gateway.models_threads import RunUrl
from runstore.gateway.patch_streams import Part, list_response
from runstore.gateway.run_json import RUN_TYPES
from runstore.gateway.run_v2 import Selection
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_time_us, to_timestamp
from runstore.gateway.windows import Window, set_feedback_window, window_of
from runstore.v1 import project_service_pb2 as projects_pb
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as pb

_DEFAULT_PAGE_SIZE: Final = 100
_URL_FIELDS: Final = (run_pb2.RUN_FIELD_APP_PATH, run_pb2.RUN_FIELD_TRACE_ID)

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "A missing or invalid parameter, filter or cursor."},
    422: {"model": Problem, "description": "A malformed UUID."},
}


def run_routes_v2(store: StoreClient, now_us: Callable[[], int]) -> GuardedRouter:
    """The routes, reading from `store`; `now_us` gives the time that the default window ends at."""
    router = GuardedRouter(tags=["Runs (v2)"])
    _add_query(router, store, now_us)
    _add_read(router, store)
    _add_url(router, store)
    return router


def _add_query(router: GuardedRouter, store: StoreClient, now_us: Callable[[], int]) -> None:
    @router.post(
        "/api/v2/runs/query",
        response_model=RunPageV2,
        responses={
            **_PROBLEMS,
            404: {"model": Problem, "description": "No run, and one of the projects does not exist."},
            501: {"model": Problem, "description": "Not offered."},
        },
    )
    async def query_runs_v2(request: Request, body: RunsQueryV2) -> Response:
        """Lists the runs of projects, newest first, a page at a time.

        With `Accept: text/event-stream` the answer is a stream of JSON Patches. **Careful:** without
        `min_start_time` only the last day is looked at.
        """
        credentials = credentials_of(request.headers)
        search = await search_of(request, body.ai_search, body.cursor, store, credentials)
        selection = Selection(body.selects or (), str(request.base_url))
        window = window_of(body, now_us(), search.cursor)
        project_ids = [str(project_id) for project_id in body.project_ids or ()]
        if body.reference_dataset_id is not None:
            experiments = await experiments_on(store, str(body.reference_dataset_id), window, credentials)
            project_ids = [experiment.id for experiment in experiments]
            if body.min_start_time is None and not body.cursor:
                window = window.since(to_time_us(each.start_time) for each in experiments)
        query = _list_request(body, project_ids, selection, window, search)

        async def read(size: int, page_token: str) -> Part:
            if not project_ids:  # A dataset without experiments.
                return Part([], "")
            query.page_size, query.page_token = size, page_token
            page = await store.list_runs(query, credentials)
            if body.project_ids and not (page.runs or page_token):
                await _check_projects(store, project_ids, credentials)
            add_call_facts(request.scope, runs=len(page.runs))
            items = [{**selection.show(run), "query_metadata": search.metadata} for run in page.runs]
            return Part(items, page.next_page_token)

        size = body.page_size or _DEFAULT_PAGE_SIZE
        return await list_response(
            request,
            store,
            read,
            size,
            window.page_token,
            lambda token: search.wrap(window.next_cursor(token)),
        )


async def _check_projects(store: StoreClient, project_ids: list[str], credentials: Credentials) -> None:
    """Raises NOT_FOUND for a project that does not exist. Asked where no run was found: other lists need not
    wait for it."""
    query = projects_pb.ListProjectsRequest(ids=project_ids, page_size=len(project_ids))
    known = {project.id for project in (await store.list_projects(query, credentials)).projects}
    for project_id in project_ids:
        if project_id not in known:
            raise RunstoreError(
                ErrorReason.NOT_FOUND, f"there is no project {project_id}", field="project_ids"
            )


def _add_read(router: GuardedRouter, store: StoreClient) -> None:
    @router.get(
        "/api/v2/runs/{run_id}",
        response_model=RunV2,
        responses={**_PROBLEMS, 404: {"model": Problem, "description": "No such run in the project."}},
    )
    async def read_run_v2(
        request: Request,
        run_id: UUID,
        project_id: UUID,
        selects: Annotated[list[SelectV2] | None, Query(description="Only `id` when absent.")] = None,
        start_time: Annotated[TimeUs | None, Query(description="A hint; not needed here.")] = None,  # noqa: ARG001 - documented, and checked
    ) -> Response:
        """Reads one run of a project; exactly the selected keys."""
        selection = Selection(selects or (), str(request.base_url))
        query = pb.GetRunRequest(id=str(run_id), project_id=str(project_id), fields=selection.fields)
        answer = await store.get_run(query, credentials_of(request.headers))
        return runs_response(selection.show(answer.run), store)


def _add_url(router: GuardedRouter, store: StoreClient) -> None:
    @router.get(
        "/api/v2/runs/{run_id}/url",
        response_model=RunUrl,
        responses={**_PROBLEMS, 404: {"model": Problem, "description": "No such run in the trace."}},
    )
    async def run_url(
        request: Request,
        run_id: UUID,
        project_id: UUID,
        trace_id: UUID,
        start_time: Annotated[TimeUs | None, Query(description="A hint; not needed here.")] = None,  # noqa: ARG001 - documented, and checked
    ) -> Response:
        """Says where a user interface shows a run."""
        query = pb.GetRunRequest(id=str(run_id), project_id=str(project_id), fields=_URL_FIELDS)
        run = (await store.get_run(query, credentials_of(request.headers))).run
        if run.trace_id != str(trace_id):
            raise RunstoreError(
                ErrorReason.NOT_FOUND, f"there is no run {run_id} in the trace", field="trace_id"
            )
        return json_response({"url": str(request.base_url).rstrip("/") + run.app_path})


def _list_request(
    body: RunsQueryV2, project_ids: list[str], selection: Selection, window: Window, search: Search
) -> pb.ListRunsRequest:
    request = pb.ListRunsRequest(
        project_ids=project_ids,
        ids=map(str, body.ids or ()),
        reference_example_ids=map(str, body.reference_examples or ()),
        trace_id=None if body.trace_id is None else str(body.trace_id),
        is_root=body.is_root,
        has_error=body.has_error,
        min_start_time=to_timestamp(window.min_start_time_us),
        max_start_time=to_timestamp(window.max_start_time_us),
        filter=search.beside(body.filter),
        trace_filter=body.trace_filter or "",
        tree_filter=body.tree_filter or "",
        fields=selection.fields,
        with_subtree_usage=bool(body.include_subtree_usage),
        sort_order=run_pb2.SORT_ORDER_ASC if body.sort_order == "asc" else run_pb2.SORT_ORDER_DESC,
    )
    set_feedback_window(request, body)
    if body.run_type is not None:
        request.run_type = RUN_TYPES[body.run_type]
    return request
