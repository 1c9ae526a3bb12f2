"""Spans of OpenTelemetry as operations on runs: each is the creation of a complete run.

`places` says where a run belongs, `payloads` and `conventions` what it says. Times are cut to microseconds.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from runstore.domain.errors import RunstoreError, invalid
from runstore.domain.times import format_naive
from runstore.otlp import conventions, langfuse
from runstore.otlp.attributes import Attributes, attributes_of, json_or_text, take_as
from runstore.otlp.messages import Event
from runstore.otlp.payloads import payloads_of
from runstore.otlp.places import set_place, set_project
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_pb2

PROJECT_HEADER: Final = "langsmith-project"
"""Header or metadata key by which a caller names the project of spans that name none."""

_MAX_TIME_NS: Final = 9_000_000_000 * 1_000_000_000
_MAX_NAME_CHARS: Final = 4_096
_MAX_FILE_NAME_BYTES: Final = 256
_MAX_LISTED: Final = 20
_UNTOLD_ERROR: Final = "error"


@dataclass(slots=True)
class Export:
    """What an export asks to store, and what of it cannot be."""

    operations: list[pb.RunOperation] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """The span of each operation, for people."""
    rejected: int = 0
    messages: list[str] = field(default_factory=list)

    def reject(self, source: str, error: RunstoreError) -> None:
        """Count a span that is not stored."""
        self.rejected += 1
        if len(self.messages) < _MAX_LISTED:
            reason = f"{error.field}: {error.message}" if error.field else error.message
            self.messages.append(f"{source}: {reason}")

    def response(self) -> ExportTraceServiceResponse:
        """The standard's answer; `partial_success` only when something was refused."""
        response = ExportTraceServiceResponse()
        if self.rejected:
            unlisted = self.rejected - len(self.messages)
            more = [f"and {unlisted} more"] if unlisted else []
            response.partial_success.rejected_spans = self.rejected
            response.partial_success.error_message = "; ".join([*self.messages, *more])
        return response


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the spans of one scope share."""

    resource: Attributes
    about: dict[str, Any]
    """Resource and scope as they are kept in `extra.otel`."""
    project_name: str
    """The caller's; "" when it named none."""


def read_export(request: ExportTraceServiceRequest, *, project_name: str = "") -> Export:
    """The spans of a request as creations of complete runs; a span that is unusable costs no other.

    `project_name` is the caller's (header `Langsmith-Project`), for spans that name none themselves.
    """
    export = Export()
    for resource_spans in request.resource_spans:
        resource = attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            origin = _Origin(resource, _about(resource_spans, resource, scope_spans), project_name)
            for span in scope_spans.spans:
                source = source_of(span.span_id.hex())
                try:
                    operation = _operation(span, origin)
                except RunstoreError as error:
                    export.reject(source, error)
                else:
                    export.operations.append(operation)
                    export.sources.append(source)
    return export


def source_of(span_id: str) -> str:
    """How answers name a span."""
    return f"span {span_id or '(no id)'}"


def _operation(span: Span, origin: _Origin) -> pb.RunOperation:
    _check(span)
    attributes = attributes_of(span.attributes)
    langfuse.translate(attributes)
    operation = pb.RunOperation()
    run = operation.create
    set_place(run, span, attributes)
    set_project(run, attributes, origin.resource, origin.project_name)
    run.name = conventions.name_of(attributes, span.name)[:_MAX_NAME_CHARS]
    run.run_type = run_pb2.RunType.Value(f"RUN_TYPE_{conventions.run_type_of(attributes).upper()}")
    _set_time(run.start_time, span.start_time_unix_nano)
    if span.end_time_unix_nano:
        _set_time(run.end_time, span.end_time_unix_nano)
    events: list[Event] = [(event.name, attributes_of(event.attributes)) for event in span.events]
    inputs, outputs = payloads_of(attributes, events)
    if inputs:
        run.inputs = _json(inputs)
    if outputs:
        run.outputs = _json(outputs)
    if error := _error(span, events):
        run.error = error
    if events:
        run.events = _json(
            [_event(event, told) for event, (_, told) in zip(span.events, events, strict=True)]
        )
    if tags := conventions.tags_of(attributes):
        run.tags.values.extend(tags)
    run.attachments.extend(take_as(attributes, ("langsmith.attachments",), _attachments) or ())
    run.extra = _json(_extra(run, span, attributes, origin))
    return operation


def _check(span: Span) -> None:
    if len(span.trace_id) != 16 or not any(span.trace_id):
        raise invalid("trace_id", "not 16 bytes, or all of them 0")
    if len(span.span_id) != 8 or not any(span.span_id):
        raise invalid("span_id", "not 8 bytes, or all of them 0")
    if span.parent_span_id and len(span.parent_span_id) != 8:
        raise invalid("parent_span_id", "not 8 bytes")
    if span.parent_span_id == span.span_id:
        raise invalid("parent_span_id", "the span itself")
    for name in ("start_time_unix_nano", "end_time_unix_nano"):
        if getattr(span, name) > _MAX_TIME_NS:
            raise invalid(name, "outside the years that can be stored")
    if not span.start_time_unix_nano:
        raise invalid("start_time_unix_nano", "missing")


def _extra(run: pb.RunFields, span: Span, attributes: Attributes, origin: _Origin) -> dict[str, Any]:
    """Everything else: what has a meaning as metadata, the rest under its own key, and where it came from."""
    told = conventions.metadata_of(attributes)
    invocation_params = conventions.invocation_params_of(attributes)
    metadata = {
        **origin.resource,
        **attributes,
        **told,
        "otel_trace_id": span.trace_id.hex(),
        "otel_span_id": span.span_id.hex(),
    }
    otel = {"kind": _kind(span), **_facts(span), **origin.about}
    hidden = {key: value for key, value in attributes.items() if metadata[key] != value}
    if hidden:
        otel["attributes"] = hidden
    if run.name != span.name and span.name:
        otel["name"] = span.name
    if span.status.code or span.status.message:
        otel["status"] = _present(code=span.status.code, message=span.status.message)
    extra: dict[str, Any] = {"metadata": metadata, "otel": otel}
    if invocation_params:
        extra["invocation_params"] = invocation_params
    return extra


def _facts(span: Span) -> dict[str, Any]:
    """What only OpenTelemetry knows of a span."""
    return _present(
        parent_span_id=span.parent_span_id.hex(),
        trace_state=span.trace_state,
        flags=span.flags,
        links=[
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": attributes_of(link.attributes),
                **_present(
                    trace_state=link.trace_state,
                    flags=link.flags,
                    dropped_attributes=link.dropped_attributes_count,
                ),
            }
            for link in span.links
        ],
        dropped=_present(
            attributes=span.dropped_attributes_count,
            events=span.dropped_events_count,
            links=span.dropped_links_count,
        ),
    )


def _about(resource_spans: ResourceSpans, resource: Attributes, scope_spans: ScopeSpans) -> dict[str, Any]:
    scope = scope_spans.scope
    return {
        "resource": resource,
        "scope": _present(
            name=scope.name,
            version=scope.version,
            attributes=attributes_of(scope.attributes),
            dropped_attributes=scope.dropped_attributes_count,
            schema_url=scope_spans.schema_url,
        ),
        **_present(
            resource_schema_url=resource_spans.schema_url,
            resource_dropped_attributes=resource_spans.resource.dropped_attributes_count,
        ),
    }


def _event(event: Span.Event, told: Attributes) -> dict[str, Any]:
    return {
        "name": event.name,
        "time": format_naive(min(event.time_unix_nano, _MAX_TIME_NS) // 1_000) + "Z",
        "kwargs": told,
        **_present(dropped_attributes=event.dropped_attributes_count),
    }


def _error(span: Span, events: list[Event]) -> str:
    """The text of a failed span: the exception it recorded, else the status' message; "" of a good one."""
    if span.status.code != Status.STATUS_CODE_ERROR:
        return ""
    exceptions = [told for name, told in events if name == "exception"]
    if not exceptions:
        return span.status.message or _UNTOLD_ERROR
    kind, message, stack = (
        str(exceptions[-1].get(f"exception.{key}") or "") for key in ("type", "message", "stacktrace")
    )
    head = ": ".join(part for part in (kind, message) if part)
    if (
        stack.strip() == head
    ):  # An exception that was never raised, as the LangSmith SDK records a run's error.
        stack = ""
    if kind == "Exception" and message:
        head = message  # The type says nothing.
    return "\n\n".join(part for part in (head, stack) if part) or span.status.message or _UNTOLD_ERROR


def _attachments(told: Any) -> list[pb.AttachmentContent] | None:
    """LangSmith's `[{"name", "content" (base64), "mime_type"}]`; None for anything else."""
    files = json_or_text(told)
    if not isinstance(files, list):
        return None
    found = []
    for file in files:
        if not isinstance(file, Mapping):
            return None
        name, content, mime_type = (file.get(key) for key in ("name", "content", "mime_type"))
        if not (isinstance(name, str) and isinstance(content, str) and isinstance(mime_type, str)):
            return None
        if not name or "." in name or "/" in name or len(name.encode()) > _MAX_FILE_NAME_BYTES:
            return None
        try:
            data = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            return None
        found.append(pb.AttachmentContent(name=name, mime_type=mime_type, content=data))
    return found


def _kind(span: Span) -> str | int:
    return Span.SpanKind.Name(span.kind) if span.kind in Span.SpanKind.values() else int(span.kind)


def _present(**facts: Any) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if fact}


def _set_time(timestamp: Timestamp, time_ns: int) -> None:
    timestamp.seconds, timestamp.nanos = divmod(time_ns, 1_000_000_000)


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError, UnicodeEncodeError, ValueError) as error:
        raise invalid("attributes", f"cannot be kept as JSON: {error}") from error
