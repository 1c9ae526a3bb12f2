"""Serves `RunQueryService`."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, TypeAlias

import grpc

from runstore.domain.runs import RunField, StoredRun
from runstore.ingest.validation import uuid_text
from runstore.query.list_runs import ListRuns
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import run_fields, run_query
from runstore.rpc.run_messages import RunMessages
from runstore.v1 import run_pb2, run_query_service_pb2_grpc
from runstore.v1 import run_query_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Shares(Protocol):
    """What the service needs of the catalog's shares."""

    async def tokens_of(self, tenant_id: str, run_ids: Sequence[str]) -> dict[str, str]: ...


class RunQueryServicer(run_query_service_pb2_grpc.RunQueryServiceServicer):
    """Maps questions in and runs out."""

    def __init__(self, runs: ListRuns, messages: RunMessages, shares: Shares) -> None:
        self._runs = runs
        self._shares = shares
        self._message = messages.message

    async def ListRuns(self, request: pb.ListRunsRequest, context: _Context) -> pb.ListRunsResponse:
        tenant_id = current_principal.get().tenant_id
        query = run_query(request, tenant_id)
        page = await self._runs.page(query, request.page_size, request.page_token)
        messages = [self._message(tenant_id, run, query.fields) for run in page.runs]
        if RunField.SHARE_URL in query.fields:
            await self._add_shares(tenant_id, page.runs, messages)
        return pb.ListRunsResponse(
            runs=messages,
            next_page_token=page.next_page_token,
            previous_page_token=page.previous_page_token,
        )

    async def GetRun(self, request: pb.GetRunRequest, context: _Context) -> pb.GetRunResponse:
        tenant_id = current_principal.get().tenant_id
        fields = run_fields(request.fields)
        project_id = uuid_text("project_id", request.project_id) if request.HasField("project_id") else None
        run = await self._runs.get(tenant_id, uuid_text("id", request.id), project_id, fields)
        message = self._message(tenant_id, run, fields)
        if RunField.SHARE_URL in fields:
            await self._add_shares(tenant_id, [run], [message])
        return pb.GetRunResponse(run=message)

    async def _add_shares(
        self, tenant_id: str, runs: Sequence[StoredRun], messages: Sequence[run_pb2.Run]
    ) -> None:
        run_ids = [run.position.run_id for run in runs]
        tokens = await self._shares.tokens_of(tenant_id, run_ids)
        for run_id, message in zip(run_ids, messages, strict=True):
            if (token := tokens.get(run_id)) is not None:
                message.share_url = f"/public/{token}/r"

    async def ExportRuns(
        self, request: pb.ExportRunsRequest, context: _Context
    ) -> AsyncIterator[pb.ExportRunsResponse]:
        tenant_id = current_principal.get().tenant_id
        query = run_query(request.query, tenant_id)
        async for page in self._runs.export(query, request.query.page_size, request.query.page_token):
            messages = [self._message(tenant_id, run, query.fields) for run in page.runs]
            yield pb.ExportRunsResponse(runs=messages, resume_token=page.next_page_token)
