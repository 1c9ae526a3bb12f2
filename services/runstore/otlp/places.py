"""Where a span belongs: its run's id, its parent, its trace and its project.

**Ids.** A run's id is the span's id, right-aligned in a UUID of zeros, which is LangSmith's rule; the
SDK's `langsmith.integrations.otel.langsmith_run_id_from_otel_span_id` computes it for applications. So
every exporter, in any process and order, names a parent as that parent names itself. Attributes may
bring other ids (`langsmith.span.id`, `.parent_id`, `.dotted_order`, `langsmith.trace.id`): they put
spans below runs of an SDK, whose ids are longer than a span's.

**Traces.** A trace is called by its root's run id, as everywhere in runstore. Spans come when they end,
children first: until the root has come, and for ever if it is exported elsewhere, its spans are one
trace under the id that OpenTelemetry gave it, read as a UUID. When a parent comes, what is below it
moves into its trace.

**Roots.** A span without a parent, or one that says so (`langsmith.root_span`). The LangSmith SDK's
exporter gives a root a parent that no span will ever be: the first half of the trace's id.
"""

import uuid
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runstore.domain import dotted_order
from runstore.domain.errors import RunstoreError
from runstore.otlp.attributes import Attributes, take_as
from runstore.v1 import run_ingest_service_pb2 as pb

_SPAN_ID_BYTES: Final = 8
_UNKNOWN_SERVICE: Final = "unknown_service"


def run_id(span_id: bytes) -> str:
    """The run of a span of 8 bytes."""
    return str(uuid.UUID(bytes=bytes(_SPAN_ID_BYTES) + span_id))


def set_place(run: pb.RunFields, span: Span, attributes: Attributes) -> None:
    """The run's id, parent and trace. Told ids that contradict each other are left to the store to refuse."""
    order = take_as(attributes, ("langsmith.span.dotted_order",), _dotted_order)
    own_id = take_as(attributes, ("langsmith.span.id",), uuid_of)
    parent_id = take_as(attributes, ("langsmith.span.parent_id",), uuid_of)
    trace_id = take_as(attributes, ("langsmith.trace.id",), uuid_of)
    if order is not None:
        run.id = own_id or dotted_order.parse(order).run_id
        run.dotted_order = order
    else:
        run.id = own_id or run_id(span.span_id)
        if parent_id is None and not _is_root(span, attributes):
            parent_id = run_id(span.parent_span_id)
        if parent_id is not None and trace_id is None:
            trace_id = str(uuid.UUID(bytes=span.trace_id))
    if parent_id is not None:
        run.parent_run_id = parent_id
    if trace_id is not None:
        run.trace_id = trace_id


def set_project(run: pb.RunFields, attributes: Attributes, resource: Attributes, caller: str) -> None:
    """The span's own project, else the resource's, else the caller's, else the service's name."""
    project_id = take_as(attributes, ("langsmith.trace.session_id",), uuid_of)
    if project_id is not None:
        run.project_id = project_id
        return
    service = str(resource.get("service.name") or "")
    name = (
        take_as(attributes, ("langsmith.trace.session_name", "openinference.project.name"), _name)
        or resource.get("openinference.project.name")
        or caller
        or ("" if service.startswith(_UNKNOWN_SERVICE) else service)
    )
    if name:
        run.project_name = str(name)


def uuid_of(told: object) -> str | None:
    """A UUID in text, with dashes; None for anything else."""
    try:
        return str(uuid.UUID(told)) if isinstance(told, str) else None
    except ValueError:
        return None


def _is_root(span: Span, attributes: Attributes) -> bool:
    is_told = attributes.get("langsmith.root_span") is True
    return is_told or not any(span.parent_span_id) or span.parent_span_id == span.trace_id[:_SPAN_ID_BYTES]


def _dotted_order(told: object) -> str | None:
    if not isinstance(told, str):
        return None
    try:
        dotted_order.parse(told)
    except RunstoreError:
        return None
    return told


def _name(told: object) -> str | None:
    return told if isinstance(told, str) and told else None
