"""OTLP's JSON: protobuf's, but with ids in hex instead of base64 and unknown keys ignored."""

import base64
import binascii
from typing import Any, Final

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from runstore.domain.errors import ErrorReason, RunstoreError

_ID_KEYS: Final = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


def parse_request(body: bytes) -> ExportTraceServiceRequest:
    """The request in a JSON body. Raises MALFORMED_BODY."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(f"not JSON: {error}") from error
    if not isinstance(told, dict):
        raise _malformed("not an object")
    _read_ids(told)
    try:
        return json_format.ParseDict(told, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError, ValueError, TypeError) as error:
        raise _malformed(str(error)) from error


def print_response(response: ExportTraceServiceResponse) -> bytes:
    """The answer as JSON."""
    return json_format.MessageToJson(response, indent=None).encode()


def _read_ids(told: dict[str, Any]) -> None:
    """Ids of spans and links from hex to base64, in place."""
    for resource_spans in _objects(told, "resourceSpans", "resource_spans"):
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            for span in _objects(scope_spans, "spans"):
                for item in (span, *_objects(span, "links")):
                    for key in _ID_KEYS:
                        if isinstance(item.get(key), str):
                            item[key] = _base64(key, item[key])


def _objects(parent: dict[str, Any], *keys: str) -> list[dict[str, Any]]:
    found: Any = next((parent[key] for key in keys if key in parent), [])
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _base64(key: str, text: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except (binascii.Error, ValueError) as error:
        raise _malformed(f"{key}: not hex digits") from error


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(
        ErrorReason.MALFORMED_BODY, f"The body is no OTLP export: {message}. Nothing of it was stored."
    )
