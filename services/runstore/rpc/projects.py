"""Serves `ProjectService`."""

import uuid
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import grpc

from runstore.domain import json_text
from runstore.domain.errors import invalid
from runstore.domain.projects import MAX_PROJECT_PAGE, Project, ProjectFilter, ProjectPatch
from runstore.domain.retention import TraceTier
from runstore.ingest.delete_project import DeleteProject
from runstore.ingest.validation import uuid_text
from runstore.query.retention import ReadRetention
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import ids, optional_time_us, project_message
from runstore.rpc.retention import TIERS, tier_of
from runstore.runtime.clock import Clock
from runstore.v1 import project_service_pb2 as pb
from runstore.v1 import project_service_pb2_grpc

_DEFAULT_PAGE_SIZE = 100
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Projects(Protocol):
    """What the service needs of the catalog's projects."""

    async def create(
        self, project: Project, *, upsert: bool = False, tag_value_ids: Sequence[str] = ()
    ) -> Project: ...
    async def get(self, tenant_id: str, project_id: str) -> Project: ...
    async def list(self, tenant_id: str, condition: ProjectFilter) -> list[Project]: ...
    async def update(self, tenant_id: str, project_id: str, patch: ProjectPatch) -> Project: ...


class Tiers(Protocol):
    """What the service needs of the catalog's rules of retention."""

    async def set_tier(self, tenant_id: str, project_id: str, tier: TraceTier) -> None: ...


class ProjectServicer(project_service_pb2_grpc.ProjectServiceServicer):
    """Maps project calls to the catalog; deletes a project's runs and their blobs with it."""

    def __init__(
        self,
        projects: Projects,
        deletion: DeleteProject,
        tiers: Tiers,
        retention: ReadRetention,
        clock: Clock,
    ) -> None:
        self._projects = projects
        self._tiers = tiers
        self._retention = retention
        self._deletion = deletion
        self._clock = clock

    async def CreateProject(
        self, request: pb.CreateProjectRequest, context: _Context
    ) -> pb.CreateProjectResponse:
        now_us, tier = self._clock.now_us(), tier_of(request.trace_tier)
        start_time_us = optional_time_us(request, "start_time")
        project = Project(
            id=uuid_text("id", request.id) if request.HasField("id") else str(uuid.uuid4()),
            tenant_id=current_principal.get().tenant_id,
            name=request.name,
            description=request.description if request.HasField("description") else None,
            extra=_extra(request) or b"{}",
            reference_dataset_id=_dataset(request),
            start_time_us=now_us if start_time_us is None else start_time_us,
            created_at_us=now_us,
            modified_at_us=now_us,
        )
        created = await self._projects.create(
            project, upsert=request.upsert, tag_value_ids=ids("tag_value_ids", request.tag_value_ids)
        )
        if tier is not None and created.id == project.id:
            await self._tiers.set_tier(created.tenant_id, created.id, tier)
        return pb.CreateProjectResponse(project=await self._message(created))

    async def GetProject(self, request: pb.GetProjectRequest, context: _Context) -> pb.GetProjectResponse:
        tenant_id = current_principal.get().tenant_id
        project = await self._projects.get(tenant_id, uuid_text("id", request.id))
        return pb.GetProjectResponse(project=await self._message(project))

    async def ListProjects(
        self, request: pb.ListProjectsRequest, context: _Context
    ) -> pb.ListProjectsResponse:
        for field in ("offset", "page_size"):
            if getattr(request, field) < 0:
                raise invalid(field, "must not be negative")
        condition = ProjectFilter(
            ids=tuple(uuid_text(f"ids[{index}]", value) for index, value in enumerate(request.ids)),
            name=request.name if request.HasField("name") else None,
            name_contains=request.name_contains if request.HasField("name_contains") else None,
            reference_dataset_ids=tuple(
                uuid_text(f"reference_dataset_ids[{index}]", value)
                for index, value in enumerate(request.reference_dataset_ids)
            ),
            reference_free=request.reference_free if request.HasField("reference_free") else None,
            metadata=_metadata(request),
            tag_value_ids=ids("tag_value_ids", request.tag_value_ids),
            dataset_version=request.dataset_version if request.HasField("dataset_version") else None,
            by_name=request.order == pb.PROJECT_ORDER_NAME,
            descending=not request.oldest_first,
            offset=request.offset,
            limit=min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_PROJECT_PAGE),
        )
        projects = await self._projects.list(current_principal.get().tenant_id, condition)
        return pb.ListProjectsResponse(projects=[await self._message(project) for project in projects])

    async def UpdateProject(
        self, request: pb.UpdateProjectRequest, context: _Context
    ) -> pb.UpdateProjectResponse:
        patch = ProjectPatch(
            name=request.name if request.HasField("name") else None,
            description=request.description if request.HasField("description") else None,
            extra=_extra(request),
            end_time_us=optional_time_us(request, "end_time"),
            reference_dataset_id=_dataset(request),
        )
        tenant_id = current_principal.get().tenant_id
        tier = tier_of(request.trace_tier)
        project = await self._projects.update(tenant_id, uuid_text("id", request.id), patch)
        if tier is not None:
            await self._tiers.set_tier(tenant_id, project.id, tier)
        if patch.name is not None:
            # Whoever writes to the old name from now on means another project.
            await self._deletion.forgotten()
        return pb.UpdateProjectResponse(project=await self._message(project))

    async def DeleteProject(
        self, request: pb.DeleteProjectRequest, context: _Context
    ) -> pb.DeleteProjectResponse:
        await self._deletion.delete(current_principal.get().tenant_id, uuid_text("id", request.id))
        return pb.DeleteProjectResponse()

    async def _message(self, project: Project) -> pb.Project:
        message = project_message(project)
        retention = await self._retention.of_project(project.tenant_id, project.id)
        message.trace_tier = TIERS[retention.trace_tier]
        return message


def _extra(request: Any) -> bytes | None:
    return _json(request, "extra")


def _metadata(request: pb.ListProjectsRequest) -> str | None:
    raw = _json(request, "metadata")
    return raw.decode() if raw is not None else None


def _json(request: Any, field: str) -> bytes | None:
    if not request.HasField(field):
        return None
    raw: bytes = getattr(request, field)
    json_text.check(field, raw)
    if not raw.lstrip().startswith(b"{"):
        raise invalid(field, "must be a JSON object")
    return raw


def _dataset(request: pb.CreateProjectRequest | pb.UpdateProjectRequest) -> str | None:
    if not request.HasField("reference_dataset_id"):
        return None
    return uuid_text("reference_dataset_id", request.reference_dataset_id)
