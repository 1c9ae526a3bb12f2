"""Serves `RunQueryService`."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from runstore.ingest.validation import uuid_text
from runstore.query.list_runs import ListRuns
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import run_fields, run_query
from runstore.rpc.run_messages import RunMessages
from runstore.v1 import run_query_service_pb2 as pb
from runstore.v1 import run_query_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RunQueryServicer(run_query_service_pb2_grpc.RunQueryServiceServicer):
    """Maps questions in and runs out."""

    def __init__(self, runs: ListRuns, messages: RunMessages) -> None:
        self._runs = runs
        self._messages = messages.messages

    async def ListRuns(self, request: pb.ListRunsRequest, context: _Context) -> pb.ListRunsResponse:
        tenant_id = current_principal.get().tenant_id
        query = run_query(request, tenant_id)
        page = await self._runs.page(query, request.page_size, request.page_token)
        return pb.ListRunsResponse(
            runs=await self._messages(tenant_id, page.runs, query.fields),
            next_page_token=page.next_page_token,
            previous_page_token=page.previous_page_token,
        )

    async def GetRun(self, request: pb.GetRunRequest, context: _Context) -> pb.GetRunResponse:
        tenant_id = current_principal.get().tenant_id
        fields = run_fields(request.fields)
        project_id = uuid_text("project_id", request.project_id) if request.HasField("project_id") else None
        run = await self._runs.get(tenant_id, uuid_text("id", request.id), project_id, fields)
        [message] = await self._messages(tenant_id, [run], fields)
        return pb.GetRunResponse(run=message)

    async def ExportRuns(
        self, request: pb.ExportRunsRequest, context: _Context
    ) -> AsyncIterator[pb.ExportRunsResponse]:
        tenant_id = current_principal.get().tenant_id
        query = run_query(request.query, tenant_id)
        async for page in self._runs.export(query, request.query.page_size, request.query.page_token):
            messages = await self._messages(tenant_id, page.runs, query.fields)
            yield pb.ExportRunsResponse(runs=messages, resume_token=page.next_page_token)
