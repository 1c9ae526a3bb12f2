"""Serves OpenTelemetry's `TraceService` beside runstore's own."""

from typing import Any, TypeAlias

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceServicer

from runstore.domain.errors import invalid
from runstore.otlp.spans import PROJECT_HEADER, read_export
from runstore.rpc.run_ingest import MAX_OPERATIONS, RunIngestServicer
from runstore.v1 import run_ingest_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class OtlpServicer(TraceServiceServicer):
    """Spans in, partial success out."""

    def __init__(self, ingest: RunIngestServicer) -> None:
        self._ingest = ingest

    async def Export(
        self, request: ExportTraceServiceRequest, context: _Context
    ) -> ExportTraceServiceResponse:
        metadata = dict(context.invocation_metadata() or ())
        export = read_export(request, project_name=str(metadata.get(PROJECT_HEADER, "")))
        await self._ingest.admit(len(export.operations))
        for start in range(0, len(export.operations), MAX_OPERATIONS):
            message = pb.WriteRunsRequest(operations=export.operations[start : start + MAX_OPERATIONS])
            answer = await self._ingest.write(message)
            for error in answer.errors:
                export.reject(export.sources[start + error.index], invalid(error.field, error.message))
        return export.response()
