"""Serves `RunDeletionService`."""

from typing import Any, TypeAlias

import grpc

from runstore.domain.errors import invalid
from runstore.ingest.delete_runs import DeleteRuns
from runstore.ingest.validation import uuid_text
from runstore.rpc.authentication import current_principal
from runstore.v1 import run_deletion_service_pb2 as pb
from runstore.v1 import run_deletion_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RunDeletionServicer(run_deletion_service_pb2_grpc.RunDeletionServiceServicer):
    """Maps requests to deletions."""

    def __init__(self, delete: DeleteRuns) -> None:
        self._delete = delete

    async def DeleteRuns(self, request: pb.DeleteRunsRequest, context: _Context) -> pb.DeleteRunsResponse:
        run_ids = [uuid_text(f"ids[{index}]", value) for index, value in enumerate(request.ids)]
        await self._delete.runs(current_principal.get().tenant_id, run_ids, _project_id(request))
        return pb.DeleteRunsResponse()

    async def DeleteTraces(
        self, request: pb.DeleteTracesRequest, context: _Context
    ) -> pb.DeleteTracesResponse:
        tenant_id, project_id = current_principal.get().tenant_id, _project_id(request)
        if bool(request.trace_ids) == bool(request.metadata):
            raise invalid("trace_ids", "exactly one of trace_ids and metadata is needed")
        if request.trace_ids:
            trace_ids = [
                uuid_text(f"trace_ids[{index}]", value) for index, value in enumerate(request.trace_ids)
            ]
            await self._delete.traces(tenant_id, trace_ids, project_id)
        else:
            pairs = [(pair.key, pair.value) for pair in request.metadata]
            await self._delete.traces_with(tenant_id, pairs, project_id)
        return pb.DeleteTracesResponse()


def _project_id(request: pb.DeleteRunsRequest | pb.DeleteTracesRequest) -> str | None:
    return uuid_text("project_id", request.project_id) if request.HasField("project_id") else None
