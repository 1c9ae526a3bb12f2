"""Spans of OpenTelemetry as operations on runs.

**Ids.** A run's id is the span's id behind the first half of its trace's, set as a UUID: any exporter, in
any process and order, names a parent as that parent names itself. The trace of runstore is called by its
root's id, as everywhere; the id of OpenTelemetry is in the metadata (`otel_trace_id`). A span may bring ids
of its own (`langsmith.span.id`, `langsmith.span.parent_id`).

**Roots.** A span without a parent. The LangSmith SDK's exporter gives a root a parent that no span will ever
be: the first half of the trace's id.

**Order.** Spans come when they end, so children come before their parents. They are stored at once and settle
into their trace when the parent arrives; below a parent that never comes they stay what they are, children.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from runstore.domain.errors import RunstoreError, invalid
from runstore.domain.times import format_naive
from runstore.otlp import conventions
from runstore.otlp.attributes import Attributes, attributes_of
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_pb2

PROJECT_HEADER: Final = "langsmith-project"
"""Header or metadata key by which a caller names the project of spans that name none."""

_MAX_TIME_NS: Final = 9_000_000_000 * 1_000_000_000
_MAX_NAME_CHARS: Final = 4_096
_MAX_LISTED: Final = 20
_UNKNOWN_SERVICE: Final = "unknown_service"


@dataclass(slots=True)
class Export:
    """What an export asks to store, and what of it cannot be."""

    operations: list[pb.RunOperation] = field(default_factory=list)
    rejected: int = 0
    messages: list[str] = field(default_factory=list)

    def reject(self, what: str, error: RunstoreError) -> None:
        """Count a span that is not stored."""
        self.rejected += 1
        if len(self.messages) < _MAX_LISTED:
            reason = f"{error.field}: {error.message}" if error.field else error.message
            self.messages.append(f"{what}: {reason}")

    def response(self) -> ExportTraceServiceResponse:
        """The standard's answer; `partial_success` only when something was refused."""
        response = ExportTraceServiceResponse()
        if self.rejected:
            response.partial_success.rejected_spans = self.rejected
            response.partial_success.error_message = "; ".join(self.messages)
        return response


def read_export(request: ExportTraceServiceRequest, *, project_name: str = "") -> Export:
    """The spans of a request as creations of complete runs; a span that is unusable costs no other.

    `project_name` is the caller's (header `Langsmith-Project`), for spans that name none themselves.
    """
    export = Export()
    for resource_spans in request.resource_spans:
        resource = attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                try:
                    operation = _operation(span, scope_spans.scope, resource, project_name)
                except RunstoreError as error:
                    export.reject(f"span {span.span_id.hex() or '(no id)'}", error)
                else:
                    export.operations.append(operation)
    return export


def run_id(trace_id: bytes, span_id: bytes) -> str:
    """The run of a span: half of the trace's id and the span's."""
    return str(uuid.UUID(bytes=trace_id[:8] + span_id))


def _operation(
    span: Span, scope: InstrumentationScope, resource: Attributes, project_name: str
) -> pb.RunOperation:
    _check(span)
    attributes = attributes_of(span.attributes)
    operation = pb.RunOperation()
    run = operation.create
    run.id = _own_id(attributes, "langsmith.span.id") or run_id(span.trace_id, span.span_id)
    parent_id = _parent_id(span, attributes)
    if parent_id:
        run.parent_run_id = parent_id
    name = conventions.take(attributes, ("langsmith.trace.name",)) or span.name or "span"
    run.name = str(name)[:_MAX_NAME_CHARS]
    _set_project(run, attributes, resource, project_name)
    run.run_type = run_pb2.RunType.Value(f"RUN_TYPE_{conventions.run_type_of(attributes).upper()}")
    _set_time(run.start_time, span.start_time_unix_nano)
    if span.end_time_unix_nano:
        _set_time(run.end_time, span.end_time_unix_nano)
    events = [(event.name, attributes_of(event.attributes)) for event in span.events]
    if inputs := conventions.inputs_of(attributes, events):
        run.inputs = _json(inputs)
    if outputs := conventions.outputs_of(attributes, events):
        run.outputs = _json(outputs)
    if error := _error(span, events):
        run.error = error
    if span.events:
        run.events = _json(
            [
                {"name": name, "time": _iso_time(event.time_unix_nano), "kwargs": told}
                for event, (name, told) in zip(span.events, events, strict=True)
            ]
        )
    if tags := conventions.tags_of(attributes):
        run.tags.values.extend(tags)
    run.extra = _json(_extra(span, scope, resource, attributes))
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


def _parent_id(span: Span, attributes: Attributes) -> str:
    told = _own_id(attributes, "langsmith.span.parent_id")
    if told:
        return told
    if not any(span.parent_span_id) or span.parent_span_id == span.trace_id[:8]:
        return ""
    return run_id(span.trace_id, span.parent_span_id)


def _own_id(attributes: Attributes, key: str) -> str:
    """An id that the span brings as an attribute; "" when it has none that is a UUID."""
    try:
        return str(uuid.UUID(str(attributes[key]))) if key in attributes else ""
    except ValueError:
        return ""


def _set_project(run: pb.RunFields, attributes: Attributes, resource: Attributes, caller: str) -> None:
    """The span's own project, else the resource's, else the caller's, else the service's name."""
    project_id = _own_id(attributes, "langsmith.trace.session_id")
    if project_id:
        del attributes["langsmith.trace.session_id"]
        run.project_id = project_id
        return
    service = str(resource.get("service.name") or "")
    name = (
        conventions.take(attributes, ("langsmith.trace.session_name", "openinference.project.name"))
        or resource.get("openinference.project.name")
        or caller
        or ("" if service.startswith(_UNKNOWN_SERVICE) else service)
    )
    if name:
        run.project_name = str(name)


def _extra(
    span: Span, scope: InstrumentationScope, resource: Attributes, attributes: Attributes
) -> dict[str, Any]:
    """Everything else: what has a meaning as metadata, the rest under its own key, and where it came from."""
    invocation_params = conventions.invocation_params_of(attributes)
    metadata = conventions.metadata_of(attributes)
    metadata = {
        **attributes,
        **metadata,
        "otel_trace_id": span.trace_id.hex(),
        "otel_span_id": span.span_id.hex(),
    }
    otel: dict[str, Any] = {
        "kind": Span.SpanKind.Name(span.kind) if span.kind in Span.SpanKind.values() else span.kind,
        "scope": {"name": scope.name, "version": scope.version},
        "resource": resource,
    }
    if span.trace_state:
        otel["trace_state"] = span.trace_state
    if span.links:
        otel["links"] = [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": attributes_of(link.attributes),
            }
            for link in span.links
        ]
    dropped: Mapping[str, int] = {
        "attributes": span.dropped_attributes_count,
        "events": span.dropped_events_count,
        "links": span.dropped_links_count,
    }
    if any(dropped.values()):
        otel["dropped"] = {name: count for name, count in dropped.items() if count}
    extra: dict[str, Any] = {"metadata": metadata, "otel": otel}
    if invocation_params:
        extra["invocation_params"] = invocation_params
    return extra


def _error(span: Span, events: list[tuple[str, Attributes]]) -> str:
    """The text of a failed span: the exception it recorded, else the status' message; "" of a good one."""
    if span.status.code != Status.STATUS_CODE_ERROR:
        return ""
    exceptions = [told for name, told in events if name == "exception"]
    if exceptions:
        told = exceptions[-1]
        head = ": ".join(str(told[key]) for key in ("exception.type", "exception.message") if told.get(key))
        stack = str(told.get("exception.stacktrace") or "")
        return "\n\n".join(part for part in (head, stack) if part) or "error"
    return span.status.message or "error"


def _set_time(timestamp: Any, time_ns: int) -> None:
    timestamp.seconds, timestamp.nanos = divmod(time_ns, 1_000_000_000)


def _iso_time(time_ns: int) -> str:
    return format_naive(min(time_ns, _MAX_TIME_NS) // 1_000) + "Z"


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError, UnicodeEncodeError, ValueError) as error:
        raise invalid("attributes", f"cannot be kept as JSON: {error}") from error
