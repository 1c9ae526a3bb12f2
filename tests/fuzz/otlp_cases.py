"""Broken OTLP exports: protobuf and JSON over HTTP, protobuf over gRPC."""

import random
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.fuzz import mutations
from tests.fuzz.case import Case, encoded

_KEYS = (
    "gen_ai.system", "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.prompt", "gen_ai.completion",
    "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.input.messages", "gen_ai.output.messages",
    "gen_ai.prompt.0.role", "gen_ai.prompt.0.content", "gen_ai.prompt.99999999999.content", "gen_ai.prompt.x.role",
    "gen_ai.completion.0.tool_calls.0.arguments", "gen_ai.conversation.id", "gen_ai.tool.name",
    "openinference.span.kind", "input.value", "input.mime_type", "output.value", "output.mime_type",
    "llm.input_messages.0.message.role", "llm.input_messages.0.message.contents.0.message_content.text",
    "llm.input_messages.5000.message.content", "llm.output_messages.0.message.content", "llm.model_name",
    "llm.token_count.prompt", "llm.token_count.total", "llm.invocation_parameters", "metadata", "tag.tags",
    "session.id", "user.id", "langsmith.span.id", "langsmith.trace.id", "langsmith.span.parent_id",
    "langsmith.span.dotted_order", "langsmith.trace.name", "langsmith.span.kind", "langsmith.metadata.a",
    "langsmith.metadata.", "langsmith.span.tags", "langsmith.usage_metadata", "langsmith.trace.session_name",
    "langsmith.trace.session_id", "langsmith.reference_example_id", "exception.message", "service.name", "",
    "\x00", "a" * 3_000, "retrieval.documents.0.document.content", "tool.name", "tool.parameters",
    "gen_ai.prompt.0", "gen_ai.prompt.\xb2.role", f"llm.prompts.{'9' * 5_000}.role", "a." * 3_000 + "b",
    "gen_ai.tool.definitions", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "llm.tools.0.tool.json_schema",
    "gen_ai.usage.input_token_details", "gen_ai.request.stop_sequences", "gen_ai.system_instructions",
    "gen_ai.event.content", "message", "message.content", "tool_calls.0.function.name", "langsmith.attachments",
    "langsmith.root_span", "embedding.embeddings.0.embedding.vector", "gen_ai.retrieval.documents",
    "traceloop.entity.input", "traceloop.association.properties.a", "reranker.query", "usage_metadata", "thread_id",
)  # fmt: skip
_TEXTS = (
    "", "x", "\x00", "llm", "LLM", "CHAIN", "chat", "gpt-4o", "{}", "[]", "{", '{"a": 1}', "[1, 2]", "null", "5",
    "application/json", '[{"role": "user", "parts": [{"type": "text", "content": 5}]}]', '"\\ud800"', "NaN",
    '{"input_tokens": -1, "total_tokens": 1e300}', "[" * 3_000, "y" * 20_000, mutations.RUN_ID,
    "{'cache_read': 1j}", "(" * 4_000, '[{"name": "f", "content": "AA==", "mime_type": "x"}]',
    f"20260101T000000000000Z{mutations.RUN_ID}", "true", '{"messages": [[{"role": 5}]]}',
)  # fmt: skip
_START_NS = 1_795_000_000_000_000_000


def otlp(chance: random.Random) -> Case:
    """An export with odd spans around a good one, or with broken bytes."""
    witness = f"witness {chance.getrandbits(64):x}"
    request, is_broken = _request(chance, witness), chance.random() < 0.4
    form = chance.choice(("protobuf", "protobuf", "json", "grpc"))
    if form == "grpc":
        made = Case("otlp grpc")
        data = request.SerializeToString()
        made.messages = [mutations.broken_message(chance, data) if is_broken else data]
        made.witness = None if is_broken else witness
        return made
    path = chance.choice(("/v1/traces", "/otel/v1/traces", "/api/v1/otel/v1/traces"))
    made = Case("otlp", path=path, witness=None if is_broken else witness)
    if form == "json":
        made.headers = [("content-type", "application/json")]
        made.body = _json(chance, request, is_broken=is_broken)
    else:
        made.headers = [("content-type", "application/x-protobuf")]
        made.body = request.SerializeToString()
        if is_broken:
            made.body = mutations.broken_message(chance, made.body)
    if chance.random() < 0.1:
        made.headers.append(("langsmith-project", chance.choice(("fuzz-a", "", "p" * 300, "\xe9"))))
        made.witness = None
    return encoded(chance, made)


def _request(chance: random.Random, witness: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    for _ in range(chance.choice((0, 1, 3))):
        resource.resource.attributes.append(_attribute(chance))
    scope = resource.scope_spans.add()
    scope.scope.name = chance.choice(
        ("", "openinference.instrumentation.x", "opentelemetry.instrumentation.y")
    )
    spans = [_odd_span(chance) for _ in range(chance.choice((0, 1, 1, 3)))]
    # In another resource: an attribute of the odd ones' resource may concern every span in it.
    good = request.resource_spans.add().scope_spans.add().spans.add()
    good.CopyFrom(_span(chance))
    good.name = witness
    scope.spans.extend(spans)
    return request


def _span(chance: random.Random) -> Span:
    return Span(
        trace_id=chance.randbytes(16),
        span_id=chance.randbytes(8),
        name="span",
        start_time_unix_nano=_START_NS,
        end_time_unix_nano=_START_NS + 1_000_000,
    )


def _odd_span(chance: random.Random) -> Span:
    span = _span(chance)
    for _ in range(chance.choice((1, 3, 10))):
        span.attributes.append(_attribute(chance))
    if chance.random() < 0.3:
        name = chance.choice(("trace_id", "span_id", "parent_span_id"))
        setattr(
            span, name, chance.choice((b"", b"\x00" * 8, b"\x00" * 16, b"x" * 7, b"\xff" * 17, span.span_id))
        )
    if chance.random() < 0.3:
        name = chance.choice(("start_time_unix_nano", "end_time_unix_nano"))
        setattr(span, name, chance.choice((0, 1, 2**64 - 1, 2**63, 9_300_000_000_000_000_000)))
    if chance.random() < 0.3:
        span.kind = chance.choice((0, 5, 99, -1))  # type: ignore[assignment] # some are no kind
        span.status.code = chance.choice((0, 1, 2, 77))  # type: ignore[assignment] # nor is this a code
        span.status.message = chance.choice(("", "failed", "\x00", "e" * 5_000))
    if chance.random() < 0.4:
        event = span.events.add(
            name=chance.choice(
                (
                    "",
                    "exception",
                    "gen_ai.content.prompt",
                    "gen_ai.choice",
                    "gen_ai.user.message",
                    "gen_ai.client.inference.operation.details",
                    "new_token",
                    "\x00",
                )
            )
        )
        event.time_unix_nano = chance.choice((0, _START_NS, 2**64 - 1))
        event.attributes.append(_attribute(chance))
    if chance.random() < 0.1:
        span.links.add(trace_id=chance.randbytes(chance.choice((0, 3, 16))), span_id=chance.randbytes(8))
    span.name = chance.choice(("span", "", "\x00", "n" * 10_000))
    return span


def _attribute(chance: random.Random) -> KeyValue:
    return KeyValue(key=chance.choice(_KEYS), value=_value(chance, depth=0))


def _value(chance: random.Random, depth: int) -> AnyValue:
    match chance.randrange(9 if depth < 3 else 6):
        case 0:
            return AnyValue()
        case 1:
            return AnyValue(bool_value=True)
        case 2:
            return AnyValue(int_value=chance.choice((0, 5, -1, 2**63 - 1, -(2**63))))
        case 3:
            return AnyValue(double_value=chance.choice((0.5, float("nan"), float("inf"), -1e308)))
        case 4:
            return AnyValue(bytes_value=chance.choice((b"", b"\xff\x00", b"text")))
        case 6:
            value = AnyValue()
            value.array_value.values.extend(_value(chance, depth + 1) for _ in range(chance.randrange(4)))
            return value
        case 7:
            value = AnyValue()
            for key in chance.choices(("", "a", "a", "role", "content"), k=chance.randrange(4)):
                value.kvlist_value.values.add(key=key).value.CopyFrom(_value(chance, depth + 1))
            return value
        case 8:
            value = AnyValue(string_value="deep")
            for _ in range(chance.choice((5, 15, 30))):
                outer = AnyValue()
                outer.array_value.values.append(value)
                value = outer
            return value
    return AnyValue(string_value=chance.choice(_TEXTS))


def _json(chance: random.Random, request: ExportTraceServiceRequest, *, is_broken: bool) -> bytes:
    told: dict[str, Any] = json_format.MessageToDict(request)
    for span, message in _spans(told, request):
        for key, value in (("traceId", message.trace_id), ("spanId", message.span_id)):
            span[key] = value.hex()
        if message.parent_span_id:
            span["parentSpanId"] = message.parent_span_id.hex()
        for link, linked in zip(span.get("links", []), message.links, strict=True):
            link |= {"traceId": linked.trace_id.hex(), "spanId": linked.span_id.hex()}
    if is_broken and chance.random() < 0.7:
        told = mutations.broken_inside(chance, told)
    body = mutations.json_text(told, ascii_only=chance.random() < 0.5)
    return mutations.broken_bytes(chance, body) if is_broken and chance.random() < 0.5 else body


def _spans(told: dict[str, Any], request: ExportTraceServiceRequest) -> Any:
    for resource, resource_message in zip(told["resourceSpans"], request.resource_spans, strict=True):
        for scope, scope_message in zip(resource["scopeSpans"], resource_message.scope_spans, strict=True):
            yield from zip(scope.get("spans", []), scope_message.spans, strict=True)
