"""Spans of this process as OpenTelemetry's, sent over OTLP."""

from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Self

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runstore.runtime.spans import NO_SPAN, TRACEPARENT, Attributes, Span

_EXPORT_TIMEOUT_S = 5.0
_EXPORT_EVERY_MS = 1_000.0
# A filter's shape may be as long as the filter.
_MAX_ATTRIBUTE_CHARS = 4_096
# Whoever takes the spans in does not record that: two stores that export to each other would never end.
_NOT_SAMPLED = (TRACEPARENT, f"00-{'1' * 32}-{'1' * 16}-00")

_W3C = TraceContextTextMapPropagator()

_current: ContextVar[trace.Span | None] = ContextVar("current_span", default=None)


class SpanRecorder:
    """`Recorder` on a tracer of its own: the process's global one belongs to code that runs here."""

    def __init__(
        self,
        url: str,
        *,
        ratio: float,
        headers: Sequence[tuple[str, str]],
        credentials: grpc.ChannelCredentials | None,
        resource: Attributes,
    ) -> None:
        """`url`: http(s)://HOST:PORT of the receiver. `ratio`: of the traces that are recorded, from 0 to 1,
        by the trace's id: every process decides alike, whatever callers would like to have recorded."""
        by_id = TraceIdRatioBased(ratio)
        self._provider = TracerProvider(
            sampler=ParentBased(root=by_id, remote_parent_sampled=by_id),
            resource=Resource.create(dict(resource)),
            span_limits=SpanLimits(max_span_attribute_length=_MAX_ATTRIBUTE_CHARS),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(
            endpoint=url,
            insecure=url.startswith("http:"),
            credentials=credentials,
            headers=(*headers, _NOT_SAMPLED),
            timeout=_EXPORT_TIMEOUT_S,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS)
        )
        self._tracer = self._provider.get_tracer("runstore")
        self._ids = RandomIdGenerator()

    def request(self, name: str, traceparent: str, *, is_wanted: bool) -> Span:
        """See `spans.request`."""
        if not is_wanted:
            ids = self._ids.generate_trace_id(), self._ids.generate_span_id()
            return _Recorded(trace.NonRecordingSpan(trace.SpanContext(*ids, is_remote=False)))
        context = _W3C.extract({TRACEPARENT: traceparent})
        return _Recorded(self._tracer.start_span(name, context, trace.SpanKind.SERVER))

    def inner(self, name: str, attributes: Attributes, *, is_call: bool) -> Span:
        """See `spans.inner`."""
        parent = _current.get()
        if parent is None or not parent.is_recording():
            return NO_SPAN
        kind = trace.SpanKind.CLIENT if is_call else trace.SpanKind.INTERNAL
        span = self._tracer.start_span(name, trace.set_span_in_context(parent), kind, attributes)
        return _Recorded(span, fails_with_errors=True)

    def below(self, name: str, traceparents: Sequence[str], attributes: Attributes) -> Span:
        """See `spans.below`."""
        first, *others = (_W3C.extract({TRACEPARENT: each}) for each in traceparents)
        links = [trace.Link(trace.get_current_span(each).get_span_context()) for each in others]
        span = self._tracer.start_span(name, first, attributes=attributes, links=links)
        return _Recorded(span, fails_with_errors=True)

    def traceparent(self) -> str:
        """See `spans.traceparent`."""
        span = _current.get()
        if span is None:
            return ""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span))
        return carrier.get(TRACEPARENT, "")

    def close(self) -> None:
        """Send what was recorded; a receiver that is away is not waited for longer than a few seconds."""
        self._provider.shutdown()


class _Recorded(Span):
    """A span of OpenTelemetry's; one that was not sampled is passed on as such."""

    def __init__(self, span: trace.Span, *, fails_with_errors: bool = False) -> None:
        self._span = span
        self._fails_with_errors = fails_with_errors
        self._token: Token[trace.Span | None] | None = None
        self.is_recorded = span.is_recording()

    def __enter__(self) -> Self:
        self._token = _current.set(self._span)
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(error[0], type) and self._fails_with_errors:
            # Its text may repeat what a caller sent.
            self.fail(error[0].__name__)
        if self._token is not None:
            # A stream that its client has left is ended in another context than it began in.
            with suppress(ValueError):
                _current.reset(self._token)
        self._span.end()

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, reason: str) -> None:
        self._span.set_attribute("error.type", reason)
        self._span.set_status(trace.Status(trace.StatusCode.ERROR))
