"""Serves `RunQueryService`."""

from typing import Any, TypeAlias

import grpc

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import RunField, StoredRun
from runstore.ingest.validation import uuid_text
from runstore.query.attachment_tokens import AttachmentTokens
from runstore.query.list_runs import ListRuns
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import run_fields, run_message, run_query
from runstore.storage.run_store import RunStore
from runstore.v1 import run_pb2, run_query_service_pb2_grpc
from runstore.v1 import run_query_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RunQueryServicer(run_query_service_pb2_grpc.RunQueryServiceServicer):
    """Maps questions in and runs out."""

    def __init__(self, runs: ListRuns, store: RunStore, attachment_tokens: AttachmentTokens) -> None:
        self._runs = runs
        self._store = store
        self._attachment_tokens = attachment_tokens

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

    async def GetAttachment(
        self, request: pb.GetAttachmentRequest, context: _Context
    ) -> pb.GetAttachmentResponse:
        found = await self._store.attachment(self._attachment_tokens.decode(request.read_token))
        if found is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "the attachment no longer exists")
        mime_type, content = found
        return pb.GetAttachmentResponse(mime_type=mime_type, content=content)

    def _message(self, tenant_id: str, run: StoredRun, fields: frozenset[RunField]) -> run_pb2.Run:
        message = run_message(run, fields)
        key, files = run.values.get(RunField.ATTACHMENTS, (None, {}))
        for name, (mime_type, size) in files.items():
            token = self._attachment_tokens.encode(tenant_id, key, name)
            message.attachments[name].mime_type = mime_type
            message.attachments[name].size_bytes = size
            message.attachments[name].read_token = token
        return message
