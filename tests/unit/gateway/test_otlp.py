"""OTLP over HTTP when the store refuses: errors as the standard has them, in the encoding of the request."""

import json
from typing import Any

import httpx
import pytest
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from runstore.domain.errors import ErrorReason
from runstore.v1 import error_pb2
from runstore.v1 import run_ingest_service_pb2 as ingest

from .conftest import MAX_BODY_BYTES, FakeStore, Refuse

START_NS = 1_795_000_000_000_000_000


def export(*span_ids: int) -> ExportTraceServiceRequest:
    """Spans of one trace."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for span_id in span_ids:
        scope.spans.add(
            trace_id=b"\x01" * 16,
            span_id=span_id.to_bytes(8),
            name="work",
            start_time_unix_nano=START_NS,
            end_time_unix_nano=START_NS + 1,
        )
    return request


def post(http: httpx.Client, content: bytes, content_type: str = "application/x-protobuf") -> httpx.Response:
    return http.post("/v1/traces", content=content, headers={"content-type": content_type, "x-api-key": "k"})


@pytest.mark.parametrize(
    ("reason", "status", "code", "retry_after"),
    [
        (ErrorReason.OVERLOADED, 429, Code.RESOURCE_EXHAUSTED, "1"),
        (ErrorReason.UNAVAILABLE, 503, Code.UNAVAILABLE, "1"),
        (ErrorReason.UNAUTHENTICATED, 401, Code.UNAUTHENTICATED, None),
        (ErrorReason.PERMISSION_DENIED, 403, Code.PERMISSION_DENIED, None),
        (ErrorReason.INVALID_ARGUMENT, 400, Code.INVALID_ARGUMENT, None),
        (ErrorReason.INTERNAL, 500, Code.INTERNAL, None),
    ],
    ids=lambda each: each.name if isinstance(each, ErrorReason) else "",
)
@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/json"])
def test_refusal_of_the_store(
    http: httpx.Client,
    store: FakeStore,
    reason: ErrorReason,
    status: int,
    code: int,
    retry_after: str | None,
    content_type: str,
) -> None:
    """Exporters wait as long as they are told after 429 and 503, and drop the spans after the others."""
    store.answers["WriteRuns"] = Refuse(reason, "why")
    body = export(1).SerializeToString()
    if content_type == "application/json":
        span = {"traceId": "01" * 16, "spanId": "02" * 8, "startTimeUnixNano": START_NS}
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    answer = post(http, body, content_type)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry_after)
    assert answer.headers["content-type"] == content_type
    told: Any = answer.json() if content_type == "application/json" else Status.FromString(answer.content)
    if content_type == "application/json":
        told = Status(code=told["code"], message=told["message"])
    assert told.code == code
    assert told.message == ("why" if reason is not ErrorReason.INTERNAL else told.message)
    assert told.message


def test_body_above_the_limit(http: httpx.Client, store: FakeStore) -> None:
    """413 with a Status, and nothing is stored."""
    answer = post(http, b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert Status.FromString(answer.content).code == Code.OUT_OF_RANGE
    assert store.requests == []


def test_spans_that_the_store_refuses_are_named(http: httpx.Client, store: FakeStore) -> None:
    """By the exporter's own ids, in the order of the export."""
    store.answers["WriteRuns"] = ingest.WriteRunsResponse(
        errors=[
            ingest.OperationError(
                index=1,
                reason=error_pb2.ERROR_REASON_NOT_FOUND,
                field="project_id",
                message="no such project",
            )
        ]
    )
    answer = post(http, export(1, 0xAB, 3).SerializeToString())
    assert answer.status_code == 200
    told = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert told.rejected_spans == 1
    assert told.error_message == "span 00000000000000ab: project_id: no such project"


def test_many_refusals_are_counted_and_some_listed(http: httpx.Client) -> None:
    """The answer stays small."""
    request = export(*range(1, 101))
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano = 0
    told = ExportTraceServiceResponse.FromString(post(http, request.SerializeToString()).content)
    assert told.partial_success.rejected_spans == 100
    assert told.partial_success.error_message.endswith("; and 80 more")


def test_credentials_and_project_go_on(http: httpx.Client, store: FakeStore) -> None:
    """As with every other route."""
    http.post(
        "/otel/v1/traces",
        content=export(1).SerializeToString(),
        headers={"authorization": "Bearer secret", "langsmith-project": "p"},
    )
    assert store.metadata["authorization"] == "Bearer secret"
    assert store.operations[0].create.project_name == "p"
