"""Serves `RunQueryService`."""

from typing import Any, TypeAlias

import grpc

from runstore.domain.blob_refs import BlobRef
from runstore.domain.runs import RunField, StoredRun
from runstore.ingest.validation import uuid_text
from runstore.query.list_runs import ListRuns
from runstore.query.read_tokens import ReadTokens
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import run_fields, run_message, run_query
from runstore.v1 import run_pb2, run_query_service_pb2_grpc
from runstore.v1 import run_query_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RunQueryServicer(run_query_service_pb2_grpc.RunQueryServiceServicer):
    """Maps questions in and runs out."""

    def __init__(self, runs: ListRuns, read_tokens: ReadTokens) -> None:
        self._runs = runs
        self._read_tokens = read_tokens

    async def ListRuns(self, request: pb.ListRunsRequest, context: _Context) -> pb.ListRunsResponse:
        tenant_id = current_principal.get().tenant_id
        query = run_query(request, tenant_id)
        page = await self._runs.page(query, request.page_size, request.page_token)
        messages = [self._message(tenant_id, run, query.fields) for run in page.runs]
        return pb.ListRunsResponse(runs=messages, next_page_token=page.next_page_token)

    async def GetRun(self, request: pb.GetRunRequest, context: _Context) -> pb.GetRunResponse:
        tenant_id = current_principal.get().tenant_id
        fields = run_fields(request.fields)
        project_id = uuid_text("project_id", request.project_id) if request.HasField("project_id") else None
        run = await self._runs.get(tenant_id, uuid_text("id", request.id), project_id, fields)
        return pb.GetRunResponse(run=self._message(tenant_id, run, fields))

    def _message(self, tenant_id: str, run: StoredRun, fields: frozenset[RunField]) -> run_pb2.Run:
        message = run_message(run, fields)
        for field, value in run.values.items():
            if isinstance(value, BlobRef):
                payload = message.large_payloads[field.value]
                payload.size_bytes = value.size_bytes
                payload.read_token = self._read_tokens.of_payload(value)
        key, files = run.values.get(RunField.ATTACHMENTS, (None, {}))
        for name, (mime_type, size_bytes) in files.items():
            attachment = message.attachments[name]
            attachment.mime_type = mime_type
            attachment.size_bytes = size_bytes
            attachment.read_token = self._read_tokens.of_attachment(tenant_id, key, name)
        return message
