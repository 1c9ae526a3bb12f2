"""Serves `ShareService` and `SharedRunService`."""

from typing import Any, TypeAlias

import grpc

from runstore.catalog.projects import ProjectCatalog
from runstore.catalog.shares import ShareCatalog
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.runs import RunField
from runstore.domain.shares import ShareSubject
from runstore.ingest.validation import uuid_text
from runstore.query.shared_runs import SharedRuns
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import ids, optional_time_us, run_fields
from runstore.rpc.run_messages import RunMessages
from runstore.v1 import share_service_pb2 as pb
from runstore.v1 import share_service_pb2_grpc

_MAX_THREAD_ID_CHARACTERS = 1_024
# Not for whoever was shown something: a run below may have a token of its own.
_PRIVATE = frozenset({RunField.SHARE_URL, RunField.IS_IN_DATASET})

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ShareServicer(share_service_pb2_grpc.ShareServiceServicer):
    """Shares runs and threads of the caller's tenant."""

    def __init__(self, shares: ShareCatalog, projects: ProjectCatalog, runs: SharedRuns) -> None:
        self._shares = shares
        self._projects = projects
        self._runs = runs

    async def ShareRun(self, request: pb.ShareRunRequest, context: _Context) -> pb.ShareRunResponse:
        tenant_id = current_principal.get().tenant_id
        project_id = uuid_text("project_id", request.project_id) if request.HasField("project_id") else None
        token = uuid_text("share_token", request.share_token) if request.HasField("share_token") else None
        subject = await self._runs.subject(tenant_id, uuid_text("run_id", request.run_id), project_id)
        return pb.ShareRunResponse(share_token=await self._shares.share(tenant_id, subject, token))

    async def ShareThread(self, request: pb.ShareThreadRequest, context: _Context) -> pb.ShareThreadResponse:
        tenant_id = current_principal.get().tenant_id
        subject = _thread(request.project_id, request.thread_id)
        if not await self._projects.exists(tenant_id, subject.project_id or ""):
            raise RunstoreError(
                ErrorReason.NOT_FOUND, f"no project with id {subject.project_id}", field="project_id"
            )
        return pb.ShareThreadResponse(share_token=await self._shares.share(tenant_id, subject))

    async def GetShare(self, request: pb.GetShareRequest, context: _Context) -> pb.GetShareResponse:
        token = await self._shares.token(current_principal.get().tenant_id, _subject(request.subject))
        return pb.GetShareResponse(share_token=token)

    async def Unshare(self, request: pb.UnshareRequest, context: _Context) -> pb.UnshareResponse:
        await self._shares.unshare(current_principal.get().tenant_id, _subject(request.subject))
        return pb.UnshareResponse()


class SharedRunServicer(share_service_pb2_grpc.SharedRunServiceServicer):
    """Reads under a token, which is the only credential."""

    def __init__(self, runs: SharedRuns, messages: RunMessages) -> None:
        self._runs = runs
        self._messages = messages

    async def ListSharedRuns(
        self, request: pb.ListSharedRunsRequest, context: _Context
    ) -> pb.ListSharedRunsResponse:
        fields = run_fields(request.fields)
        tenant_id, page = await self._runs.page(
            uuid_text("share_token", request.share_token),
            fields,
            run_ids=ids("ids", request.ids),
            shared_run_only=request.shared_run_only,
            start_time_us=optional_time_us(request, "start_time"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListSharedRunsResponse(
            runs=await self._messages.messages(tenant_id, page.runs, fields - _PRIVATE),
            next_page_token=page.next_page_token,
        )


def _subject(message: pb.ShareSubject) -> ShareSubject:
    if message.HasField("run_id"):
        return ShareSubject(run_id=uuid_text("run_id", message.run_id))
    return _thread(message.project_id, message.thread_id)


def _thread(project_id: str, thread_id: str) -> ShareSubject:
    if not 0 < len(thread_id) <= _MAX_THREAD_ID_CHARACTERS or "\0" in thread_id:
        raise invalid("thread_id", f"1 to {_MAX_THREAD_ID_CHARACTERS} characters are needed")
    return ShareSubject(project_id=uuid_text("project_id", project_id), thread_id=thread_id)
