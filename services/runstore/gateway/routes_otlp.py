"""OTLP over HTTP: `POST /v1/traces`, and LangSmith's `/otel/v1/traces`.

Answers and errors come in the encoding of the request, protobuf or JSON, as the OTLP specification has it:
200 with `partial_success` when spans were refused, a `google.rpc.Status` when nothing was stored.
"""

from typing import Final

import grpc
from fastapi import Request
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway.bodies import BodyReader
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.dialects import INTERNAL_TEXT, OTLP_PATHS, headers_of
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.operations import Operations
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.otlp.json_form import print_response, read_json_export
from runstore.otlp.spans import PROJECT_HEADER, Export, read_export
from runstore.v1.run_ingest_service_pb2 import WriteRunsRequest

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"


def otlp_routes(store: StoreClient, bodies: BodyReader) -> GuardedRouter:
    """The routes, writing to `store`."""
    router = GuardedRouter(tags=["OpenTelemetry"])

    async def export_traces(request: Request) -> Response:
        """Stores the spans of an OTLP export (protobuf or JSON) as runs.

        The header `Langsmith-Project` names the project of spans that name none.
        """
        encoding = _encoding(request)
        export = await _store(request, store, bodies, encoding)
        response = export.response()
        content = print_response(response) if encoding == _JSON else response.SerializeToString()
        return Response(content, 200, media_type=encoding)

    for path in OTLP_PATHS:
        router.add_api_route(path, export_traces, methods=["POST"], include_in_schema=path == OTLP_PATHS[0])
    return router


async def _store(request: Request, store: StoreClient, bodies: BodyReader, encoding: str) -> Export:
    credentials = credentials_of(request.headers)
    project_name = request.headers.get(PROJECT_HEADER, "")
    async with bodies.read(request) as body:
        if encoding == _JSON:
            export = read_json_export(body, project_name=project_name)
        else:
            export = read_export(_parse_protobuf(body), project_name=project_name)
    found = Operations(WriteRunsRequest(operations=export.operations), export.sources)
    for offset, write in found.messages():
        answer = await store.write_runs(write, credentials, continues=offset > 0)
        found.refuse_by_store(offset, answer.errors)
    for refusal in found.refusals:
        export.reject(refusal.source, invalid(refusal.field, refusal.message))
    add_call_facts(request.scope, operations=len(export.operations), refused=export.rejected)
    return export


def _encoding(request: Request) -> str:
    """Of the request, and so of the answer; protobuf unless it says JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return _JSON if media_type == _JSON else _PROTOBUF


def _parse_protobuf(body: bytes) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise RunstoreError(
            ErrorReason.MALFORMED_BODY, "The body is no OTLP export in protobuf. Nothing of it was stored."
        ) from error


def otlp_refusal(request: Request, error: RunstoreError) -> Response:
    """A `google.rpc.Status`. Exporters send again after 429 and 503, and drop what has any other status."""
    encoding = _encoding(request)
    code: int = grpc.StatusCode[error.reason.grpc_code].value[0]
    message = INTERNAL_TEXT if error.reason is ErrorReason.INTERNAL else error.message
    status = Status(code=code, message=f"{error.field}: {message}" if error.field else message)
    content = (
        json_format.MessageToJson(status, indent=None).encode()
        if encoding == _JSON
        else status.SerializeToString()
    )
    http_status = 400 if error.reason is ErrorReason.INVALID_ARGUMENT else error.reason.http_status
    return Response(content, http_status, headers_of(error), media_type=encoding)
