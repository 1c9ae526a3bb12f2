"""A receiver of OTLP over gRPC, as a collector is one."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from tests.waiting import until

CALLER_ID = "c" * 16
"""The span of whoever calls the server in a test."""


@dataclass(frozen=True)
class ReceivedSpan:
    """A span with what its resource and its links say."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    raw: bytes


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[ReceivedSpan] = []
        self.metadata: list[dict[str, str | bytes]] = []

    def Export(  # noqa: N802 - named by the service definition
        self, request: pb.ExportTraceServiceRequest, context: Any
    ) -> pb.ExportTraceServiceResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        for resource in request.resource_spans:
            of_process = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_received(span, of_process["service.name"]) for span in scope.spans]
        return pb.ExportTraceServiceResponse()

    def trace(self, trace_id: str, *expected: tuple[str, ...]) -> dict[tuple[str, ...], ReceivedSpan]:
        """The spans of a trace, by the names from the request down to each, once all expected have come.

        Of others that have come by then, what they are below is there, too: it ends after them, and may be
        sent a second later.
        """

        def found() -> dict[tuple[str, ...], ReceivedSpan]:
            spans = {span.span_id: span for span in list(self.spans) if span.trace_id == trace_id}
            paths = {_path(span, spans): span for span in spans.values()}
            return paths if paths.keys() >= set(expected) and all(path[0] for path in paths) else {}

        return until(found, f"all of {expected} in a trace")


def _path(span: ReceivedSpan, spans: Mapping[str, ReceivedSpan]) -> tuple[str, ...]:
    """From the top down; it begins with "" where spans are missing that are not the caller's."""
    if span.parent_id == CALLER_ID:
        return (span.name,)
    above = spans.get(span.parent_id)
    return (*(_path(above, spans) if above else ("",)), span.name)


@contextmanager
def receiving() -> Iterator[OtlpReceiver]:
    """A receiver on a free port."""
    receiver = OtlpReceiver()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    receiver.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()


def _received(span: Any, service: str) -> ReceivedSpan:
    values = {each.key: each.value for each in span.attributes}
    return ReceivedSpan(
        span.name,
        service,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()},
        span.SerializeToString(),
    )
