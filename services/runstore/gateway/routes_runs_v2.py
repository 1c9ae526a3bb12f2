"""The v2 routes that read runs: `POST /api/v2/runs/query`, `GET /api/v2/runs/{id}`.

Contract runs-v2, sections 1 and 2.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Problem, RunPageV2, RunsQueryV2, RunV2, SelectV2
from runstore.gateway.run_json import RUN_TYPES
from runstore.gateway.run_v2 import Selection
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_timestamp
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as pb

_DAY_US: Final = 24 * 3600 * 1_000_000
_DEFAULT_PAGE_SIZE: Final = 100
_CURSOR: Final = re.compile(r"w(-?\d{1,17})\.(-?\d{1,17})\.(.+)", re.ASCII)

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "A missing or invalid parameter, filter or cursor."},
    422: {"model": Problem, "description": "A malformed UUID."},
}


def run_routes_v2(store: StoreClient, now_us: Callable[[], int]) -> APIRouter:
    """The routes, reading from `store`; `now_us` gives the time that the default window ends at."""
    router = APIRouter(tags=["Runs (v2)"])

    @router.post(
        "/api/v2/runs/query",
        response_model=RunPageV2,
        responses={**_PROBLEMS, 501: {"model": Problem, "description": "Not offered."}},
    )
    async def query_runs_v2(request: Request, body: RunsQueryV2) -> Response:
        """Lists the runs of projects, newest first, a page at a time.

        **Careful:** without `min_start_time` only the last day is looked at.
        """
        _refuse_what_is_missing(request, body)
        selection = Selection(body.selects or (), str(request.base_url))
        position = _position(body, now_us())
        query = _list_request(body, selection, position)
        page = await store.list_runs(query, credentials_of(request.headers))
        add_call_facts(request.scope, runs=len(page.runs))
        items = [{**selection.show(run), "query_metadata": None} for run in page.runs]
        content = {"items": items, "next_cursor": position.next_cursor(page.next_page_token)}
        return runs_response(content, store)

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

    return router


class _Position(NamedTuple):
    """A window of start times and a place in it.

    The store refuses a page token that comes with other bounds, but a client that relies on the
    default window repeats no bounds, and "now" has moved on. So the window travels in the cursor;
    the store's own signature covers it.
    """

    min_start_time_us: int
    max_start_time_us: int
    page_token: str

    def next_cursor(self, next_page_token: str) -> str | None:
        """What the client sends for the next page; None at the end."""
        if not next_page_token:
            return None
        return f"w{self.min_start_time_us}.{self.max_start_time_us}.{next_page_token}"


def _position(body: RunsQueryV2, now_us: int) -> _Position:
    first, last, token = now_us - _DAY_US, now_us, ""
    if body.cursor:
        parsed = _CURSOR.fullmatch(body.cursor)
        if parsed is None:
            raise RunstoreError(ErrorReason.INVALID_CURSOR, "not a cursor of this server", field="cursor")
        first, last, token = int(parsed[1]), int(parsed[2]), parsed[3]
    return _Position(
        first if body.min_start_time is None else body.min_start_time,
        last if body.max_start_time is None else body.max_start_time,
        token,
    )


def _refuse_what_is_missing(request: Request, body: RunsQueryV2) -> None:
    missing = {
        "reference_dataset_id": body.reference_dataset_id is not None,
        "min_feedback_modified_at": body.min_feedback_modified_at is not None,
        "max_feedback_modified_at": body.max_feedback_modified_at is not None,
        "include_subtree_usage": bool(body.include_subtree_usage),
        "ai_search": body.ai_search is not None,
        "text/event-stream": "text/event-stream" in request.headers.get("accept", ""),
    }
    for name, is_asked in missing.items():
        if is_asked:
            raise RunstoreError(ErrorReason.UNIMPLEMENTED, "not offered by this version", field=name)


def _list_request(body: RunsQueryV2, selection: Selection, position: _Position) -> pb.ListRunsRequest:
    request = pb.ListRunsRequest(
        project_ids=map(str, body.project_ids or ()),
        ids=map(str, body.ids or ()),
        reference_example_ids=map(str, body.reference_examples or ()),
        trace_id=None if body.trace_id is None else str(body.trace_id),
        is_root=body.is_root,
        has_error=body.has_error,
        min_start_time=to_timestamp(position.min_start_time_us),
        max_start_time=to_timestamp(position.max_start_time_us),
        filter=body.filter or "",
        trace_filter=body.trace_filter or "",
        tree_filter=body.tree_filter or "",
        fields=selection.fields,
        sort_order=run_pb2.SORT_ORDER_ASC if body.sort_order == "asc" else run_pb2.SORT_ORDER_DESC,
        page_size=body.page_size or _DEFAULT_PAGE_SIZE,
        page_token=position.page_token,
    )
    if body.run_type is not None:
        request.run_type = RUN_TYPES[body.run_type]
    return request
