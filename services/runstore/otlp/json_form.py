"""OTLP's JSON: protobuf's, but with ids in hex instead of base64 and unknown keys ignored."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.otlp.spans import Export, read_export, source_of

_MAX_REASON_CHARS: Final = 200  # The parser repeats the values that it cannot read.
_SPAN_ID_DIGITS: Final = 16
_ID_KEYS: Final = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


class _Scope(NamedTuple):
    """Where spans were in the body."""

    resource_index: int
    scope_index: int
    spans: list[Any]


def read_json_export(body: bytes, *, project_name: str = "") -> Export:
    """As `read_export`, from a JSON body: a span that is none costs no other. Raises MALFORMED_BODY."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(f"not JSON: {error}") from error
    if not isinstance(told, dict):
        raise _malformed("not an object")
    scopes = list(_without_spans(told))
    try:
        request = json_format.ParseDict(told, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError, ValueError, TypeError) as error:
        raise _malformed(_bounded(error)) from error
    refusals: list[tuple[str, RunstoreError]] = []
    for scope in scopes:
        message = request.resource_spans[scope.resource_index].scope_spans[scope.scope_index]
        for item in scope.spans:
            try:
                message.spans.append(_span(item))
            except RunstoreError as error:
                refusals.append((source_of(_id_in(item)), error))
    export = read_export(request, project_name=project_name)
    for source, refusal in refusals:
        export.reject(source, refusal)
    return export


def print_response(response: ExportTraceServiceResponse) -> bytes:
    """The answer as JSON."""
    return json_format.MessageToJson(response, indent=None).encode()


def _without_spans(told: dict[str, Any]) -> Iterator[_Scope]:
    """Takes the lists of spans out. What is not as it should be is left for the parser to name."""
    for resource_index, resource_spans in enumerate(_items(told, "resourceSpans", "resource_spans")):
        for scope_index, scope_spans in enumerate(_items(resource_spans, "scopeSpans", "scope_spans")):
            spans = _items(scope_spans, "spans")
            if spans:
                del scope_spans["spans"]
                yield _Scope(resource_index, scope_index, spans)


def _items(parent: Any, *keys: str) -> list[Any]:
    if not isinstance(parent, dict):
        return []
    found = next((parent[key] for key in keys if key in parent), None)
    return found if isinstance(found, list) else []


def _span(told: Any) -> Span:
    if not isinstance(told, dict):
        raise invalid("spans", "not an object")
    for item in (told, *_items(told, "links")):
        for key in _ID_KEYS:
            if isinstance(item, dict) and isinstance(item.get(key), str):
                item[key] = _base64(key, item[key])
    try:
        return json_format.ParseDict(told, Span(), ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError, ValueError, TypeError) as error:
        raise invalid("spans", f"not a span: {_bounded(error)}") from error


def _id_in(told: Any) -> str:
    """The id that a span gives itself, bounded, for the answer."""
    span_id = told.get("spanId", told.get("span_id")) if isinstance(told, dict) else None
    return span_id[:_SPAN_ID_DIGITS] if isinstance(span_id, str) else ""


def _base64(key: str, text: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid(key, "not hex digits") from error


def _bounded(error: Exception) -> str:
    return str(error)[:_MAX_REASON_CHARS]


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(
        ErrorReason.MALFORMED_BODY, f"The body is no OTLP export: {message}. Nothing of it was stored."
    )
