"""Makes spans as instrumentations do, and the runs they become."""

import json
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runstore.otlp.spans import Export, read_export
from runstore.v1 import run_ingest_service_pb2 as pb

TRACE = bytes(range(16))
SPAN, PARENT = b"\x11" * 8, b"\x22" * 8
T0_NS = 1_795_000_000_123_456_789


def value(told: Any) -> AnyValue:
    """A typed value."""
    match told:
        case bool():
            return AnyValue(bool_value=told)
        case int():
            return AnyValue(int_value=told)
        case float():
            return AnyValue(double_value=told)
        case bytes():
            return AnyValue(bytes_value=told)
        case list():
            return AnyValue(array_value=ArrayValue(values=[value(item) for item in told]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=pairs(told)))
    return AnyValue(string_value=told)


def pairs(told: dict[str, Any]) -> list[KeyValue]:
    """Attributes."""
    return [KeyValue(key=key, value=value(item)) for key, item in told.items()]


def span(attributes: dict[str, Any] | None = None, **fields: Any) -> Span:
    """A span of 2 ms with these attributes."""
    return Span(
        **{
            "trace_id": TRACE,
            "span_id": SPAN,
            "name": "work",
            "start_time_unix_nano": T0_NS,
            "end_time_unix_nano": T0_NS + 2_000_000,
            "attributes": pairs(attributes or {}),
            **fields,
        }
    )


def event(name: str, **attributes: Any) -> Span.Event:
    """An event 1 ms after the start; `__` in a key is a dot."""
    told = {key.replace("__", "."): item for key, item in attributes.items()}
    return Span.Event(name=name, time_unix_nano=T0_NS + 1_000_000, attributes=pairs(told))


def request(*spans: Span, resource: dict[str, Any] | None = None) -> ExportTraceServiceRequest:
    """An export of spans of one resource and scope."""
    made = ExportTraceServiceRequest()
    resource_spans = made.resource_spans.add()
    resource_spans.resource.attributes.extend(pairs(resource or {}))
    resource_spans.scope_spans.add().spans.extend(spans)
    return made


def export(*spans: Span, resource: dict[str, Any] | None = None, project_name: str = "") -> Export:
    """What is made of them."""
    return read_export(request(*spans, resource=resource), project_name=project_name)


def run(*args: Any, **fields: Any) -> pb.RunFields:
    """The run of one good span."""
    found = export(span(*args, **fields))
    assert found.messages == []
    return found.operations[0].create


def extra(fields: pb.RunFields) -> dict[str, Any]:
    """`extra` of a run."""
    told: dict[str, Any] = json.loads(fields.extra)
    return told


def metadata(fields: pb.RunFields) -> dict[str, Any]:
    """`extra.metadata` of a run."""
    told: dict[str, Any] = extra(fields)["metadata"]
    return told
