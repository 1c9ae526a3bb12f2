"""The project routes, which v1 calls sessions (contract resources, section 1)."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.times import format_naive
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail, ProjectCreate, ProjectUpdate, TracerSession
from runstore.gateway.run_stats import NO_SESSION_STATS, SessionStatsSelection, StatsName
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_time_us, to_timestamp
from runstore.gateway.trace_tiers import TIER_NAMES, TIERS
from runstore.v1 import project_service_pb2 as pb
from runstore.v1 import run_stats_service_pb2 as stats_pb
from runstore.v1.run_query_service_pb2 import ListRunsRequest

_NO_EXTRA: Final = msgspec.Raw(b"{}")
_ORDERS: Final = {"start_time": pb.PROJECT_ORDER_START_TIME, "name": pb.PROJECT_ORDER_NAME}


class _StatsQuery(BaseModel):
    """Query parameters about statistics."""

    include_stats: bool = Field(default=False, description="With statistics of the runs; null otherwise.")
    stats_start_time: TimeUs | None = Field(None, description="Of runs that started then or later.")
    stats_filter: str | None = Field(None, description="Of runs that satisfy this filter.")
    stats_select: list[StatsName] = Field(default=[], description="Only these; all when absent.")
    use_approx_stats: bool = Field(default=False, description="Without effect: statistics are exact.")


class _ListQuery(_StatsQuery):
    """Query parameters of the list."""

    id: list[UUID] = Field(default=[])
    name: str | None = Field(None, description="The exact name.")
    name_contains: str | None = Field(None, description="Part of the name, in any case.")
    reference_dataset: list[UUID] = Field(default=[], description="Experiments on these datasets.")
    reference_free: bool | None = Field(None, description="No experiments (true), or only those (false).")
    metadata: str | None = Field(None, description="JSON object that the metadata contains.")
    dataset_version: str | None = Field(None, description="What `dataset_version` in the metadata is.")
    sort_by: Literal[
        "start_time", "name", "last_run_start_time", "latency_p50", "latency_p99", "error_rate", "feedback"
    ] = Field("start_time", description="By statistics is not offered.")
    sort_by_desc: bool = True
    filter: str | None = Field(None, description="Not offered.")
    tag_value_id: list[UUID] = Field(default=[], description="With each of these values of tags.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


def session_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the projects of `store`."""
    router = GuardedRouter(prefix="/sessions", tags=["Projects (sessions)"])
    not_found: dict[int | str, dict[str, Any]] = {404: {"model": Detail}}
    taken: dict[int | str, dict[str, Any]] = {409: {"model": Detail, "description": "The name is taken."}}

    @router.post("", response_model=TracerSession, responses=taken)
    async def create_session(
        request: Request,
        body: ProjectCreate,
        upsert: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    ) -> Response:
        """Creates a project. With `upsert`, answers the one of that name when there is one."""
        message = pb.CreateProjectRequest(
            name=body.name,
            id=None if body.id is None else str(body.id),
            description=body.description,
            extra=_json(body.extra),
            reference_dataset_id=_text(body.reference_dataset_id),
            start_time=None if body.start_time is None else to_timestamp(body.start_time),
            upsert=upsert,
            tag_value_ids=map(str, body.tag_value_ids or ()),
            trace_tier=TIERS[body.trace_tier],
        )
        answer = await store.create_project(message, credentials_of(request.headers))
        return json_response(show_session(answer.project))

    @router.get("", response_model=list[TracerSession])
    async def list_sessions(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists projects, the last started first."""
        credentials = credentials_of(request.headers)
        answer = await store.list_projects(_list_request(query), credentials)
        shown = await _show_with_stats(store, credentials, answer.projects, query)
        return json_response(shown)

    @router.get("/{session_id}", response_model=TracerSession, responses=not_found)
    async def read_session(
        request: Request, session_id: UUID, query: Annotated[_StatsQuery, Query()]
    ) -> Response:
        """Reads a project."""
        message = pb.GetProjectRequest(id=str(session_id))
        credentials = credentials_of(request.headers)
        answer = await store.get_project(message, credentials)
        [shown] = await _show_with_stats(store, credentials, [answer.project], query)
        return json_response(shown)

    @router.patch("/{session_id}", response_model=TracerSession, responses={**not_found, **taken})
    async def update_session(request: Request, session_id: UUID, body: ProjectUpdate) -> Response:
        """Changes a project; null and absent keys keep what is there."""
        message = pb.UpdateProjectRequest(
            id=str(session_id),
            name=body.name,
            description=body.description,
            extra=_json(body.extra),
            end_time=None if body.end_time is None else to_timestamp(body.end_time),
            reference_dataset_id=_text(body.reference_dataset_id),
            trace_tier=TIERS[body.trace_tier],
        )
        answer = await store.update_project(message, credentials_of(request.headers))
        return json_response(show_session(answer.project))

    @router.delete("/{session_id}", responses=not_found)
    async def delete_session(request: Request, session_id: UUID) -> Response:
        """Deletes a project and its runs."""
        await store.delete_project(
            pb.DeleteProjectRequest(id=str(session_id)), credentials_of(request.headers)
        )
        return json_response({"message": "Session deleted"})

    return router


def _list_request(query: _ListQuery) -> pb.ListProjectsRequest:
    if query.filter is not None:
        raise RunstoreError(ErrorReason.UNIMPLEMENTED, "projects are not filtered so", field="filter")
    if query.sort_by not in _ORDERS:
        raise RunstoreError(
            ErrorReason.UNIMPLEMENTED, "projects are not sorted by what their runs are like", field="sort_by"
        )
    return pb.ListProjectsRequest(
        ids=map(str, query.id),
        name=query.name,
        name_contains=query.name_contains,
        reference_dataset_ids=map(str, query.reference_dataset),
        reference_free=query.reference_free,
        metadata=None if query.metadata is None else _json_object("metadata", query.metadata),
        dataset_version=query.dataset_version,
        tag_value_ids=map(str, query.tag_value_id),
        order=_ORDERS[query.sort_by],
        oldest_first=not query.sort_by_desc,
        offset=query.offset,
        page_size=query.limit,
    )


async def _show_with_stats(
    store: StoreClient, credentials: Credentials, projects: Sequence[pb.Project], query: _StatsQuery
) -> list[dict[str, Any]]:
    """The projects, with the statistics of all of them from one call if asked for."""
    if not query.include_stats or not projects:
        return [show_session(project) for project in projects]
    selection = SessionStatsSelection(query.stats_select)
    start_time = query.stats_start_time
    runs = ListRunsRequest(
        project_ids=[project.id for project in projects],
        filter=query.stats_filter or "",
        min_start_time=None if start_time is None else to_timestamp(start_time),
    )
    grouping = stats_pb.RunGrouping(attribute=stats_pb.RUN_GROUP_ATTRIBUTE_PROJECT, max_groups=len(projects))
    answer = await store.run_stats(
        stats_pb.RunStatsRequest(runs=runs, fields=selection.fields, grouping=grouping), credentials
    )
    by_project = {group.group: group.stats for group in answer.groups}
    nothing = stats_pb.RunStats(run_count=0)
    return [
        {**show_session(project), **selection.show(by_project.get(project.id, nothing))}
        for project in projects
    ]


def show_session(project: pb.Project) -> dict[str, Any]:
    """A project as JSON content, without statistics."""
    return {
        "id": project.id,
        "tenant_id": project.tenant_id,
        "name": project.name,
        "description": project.description if project.HasField("description") else None,
        "start_time": format_naive(to_time_us(project.start_time)),
        "end_time": format_naive(to_time_us(project.end_time)) if project.HasField("end_time") else None,
        "extra": msgspec.Raw(project.extra) if project.extra else _NO_EXTRA,
        "reference_dataset_id": (
            project.reference_dataset_id if project.HasField("reference_dataset_id") else None
        ),
        "trace_tier": TIER_NAMES.get(project.trace_tier),
        **NO_SESSION_STATS,
    }


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def _json(content: dict[str, Any] | None) -> bytes | None:
    return None if content is None else msgspec.json.encode(content)


def _json_object(field: str, text: str) -> bytes:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(field, "not a JSON object") from error
    return text.encode()
