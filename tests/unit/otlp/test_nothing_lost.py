"""Whatever attributes a span has, in whatever mixture, each of their values is somewhere in the run."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from runstore.otlp.spans import read_export
from runstore.v1 import run_ingest_service_pb2 as pb

from .making import event, pairs, request, run, span

_MESSAGE_KEYS = ("role", "content", "name", "message.content", "x.y", "tool_calls.0.id", "tool_calls.0.name",
                 "tool_calls.0.arguments", "tool_calls.0.function.name", "contents.0.message_content.text",
                 "message.contents.0.message_content.image.image.url", "message.tool_calls.0.tool_call.id",
                 "message.tool_calls.0.tool_call.function.arguments", "message.tool_call_id")  # fmt: skip
_PLAIN_KEYS = (
    "langsmith.trace.name", "langsmith.span.kind", "langsmith.span.id", "langsmith.span.parent_id",
    "langsmith.trace.id", "langsmith.span.dotted_order", "langsmith.trace.session_name",
    "langsmith.trace.session_id", "langsmith.span.tags", "langsmith.metadata.a", "langsmith.metadata.",
    "langsmith.usage_metadata", "langsmith.attachments", "langsmith.root_span", "metadata", "tag.tags",
    "openinference.span.kind", "openinference.project.name", "gen_ai.operation.name", "gen_ai.system",
    "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model", "gen_ai.request.temperature",
    "gen_ai.request.stop_sequences", "gen_ai.request.choice.count", "gen_ai.conversation.id", "gen_ai.prompt",
    "gen_ai.completion", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions",
    "gen_ai.tool.definitions", "gen_ai.tool.name", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result",
    "gen_ai.retrieval.documents", "gen_ai.retrieval.query.text", "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.total_tokens",
    "gen_ai.usage.input_token_details", "gen_ai.usage.cached_tokens", "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.reasoning_tokens", "llm.token_count.prompt", "llm.token_count.total", "llm.cost.total",
    "gen_ai.usage.cost", "llm.model_name", "llm.provider", "llm.system", "llm.invocation_parameters",
    "llm.presence_penalty", "llm.tools", "llm.tools.0.tool.json_schema", "llm.tools.0.tool.name", "tools",
    "llm.request.functions.0.name", "llm.request.type", "tool_arguments", "tool.name", "tool.parameters",
    "input.value", "input.mime_type", "output.value", "output.mime_type", "session.id", "user.id",
    "enduser.id", "traceloop.entity.input", "traceloop.entity.output", "traceloop.entity.name",
    "traceloop.span.kind", "traceloop.association.properties.b", "llm.prompt_template.variables",
    "retrieval.documents.0.document.content", "retrieval.documents.0.document.metadata",
    "retrieval.documents.1", "reranker.query", "reranker.input_documents.0.document.id",
    "reranker.output_documents.0.document.score", "embedding.embeddings.0.embedding.text",
    "embedding.embeddings.0.embedding.vector", "embedding.embeddings.1", "embedding.model_name",
    "langfuse.observation.type", "langfuse.observation.input", "langfuse.observation.output",
    "langfuse.observation.model.name", "langfuse.observation.model.parameters",
    "langfuse.observation.metadata.a", "langfuse.trace.metadata.a", "langfuse.trace.tags",
    "langfuse.observation.usage_details", "langfuse.observation.cost_details",
    "langfuse.observation.level", "langfuse.",
    "http.method", "", "a..b", "gen_ai.prompt.x", "llm.input_messages.0", "gen_ai.prompt.00000000001.role",
)  # fmt: skip
_KEYS = (
    *_PLAIN_KEYS,
    *(
        f"{prefix}.{number}.{key}"
        for prefix in (
            "gen_ai.prompt", "gen_ai.completion", "llm.prompts", "llm.input_messages", "llm.output_messages"
        )
        for number in (0, 3)
        for key in _MESSAGE_KEYS
    ),
)  # fmt: skip


def marked(chance: random.Random) -> Callable[[], tuple[Any, list[str]]]:
    """A maker of values, each with the marks that must come back."""
    count = 0

    def make() -> tuple[Any, list[str]]:
        nonlocal count
        count += 2
        number = 7_000_000 + count
        word, other = f"mark{number}", f"mark{number + 1}"
        form = chance.randrange(9)
        part = {"type": chance.choice(("text", "tool_call", "tool_call_response", "blob")), "content": word}
        made: Any = (
            word,
            number,
            number + 0.5,
            [word, number],
            {"k": word, "text": number},
            json.dumps({"content": word, "id": number}),
            json.dumps([{"role": "tool", "parts": [part, part], "name": other}, number]),
            json.dumps([word, {"role": "user", "content": number}]),
            f"{{'cached': {number}}}",
        )[form]
        told = (word, number, number, (word, number), (word, number), (word, number), (word, other, number),
                (word, number), number)[form]  # fmt: skip
        return made, [str(mark) for mark in (told if isinstance(told, tuple) else (told,))]

    return make


def text_of(fields: pb.RunFields) -> str:
    """All that a run says."""
    told = json_format.MessageToDict(fields)
    for name in ("inputs", "outputs", "events", "extra"):
        told[name] = getattr(fields, name).decode()
    return json.dumps(told, ensure_ascii=False)


@pytest.mark.parametrize("seed", range(300))
def test_every_value_is_in_the_run(seed: int) -> None:
    """All known keys with values of any type: what a convention cannot read stays where it was."""
    chance = random.Random(seed)
    make = marked(chance)
    attributes, marks = {}, {}
    for key in chance.sample(_KEYS, chance.choice((1, 3, 10, 40))):
        attributes[key], marks[key] = make()
    said = text_of(run(attributes))
    lost = {key: attributes[key] for key, told in marks.items() if not all(mark in said for mark in told)}
    assert lost == {}, said


def test_what_is_around_attributes() -> None:
    """Links, states, flags, scope, resource, schemas, counts of what was dropped, status, events."""
    whole = span(
        {"langsmith.trace.name": "renamed"},
        name="original",
        trace_state="state=1",
        flags=257,
        dropped_attributes_count=91,
        dropped_events_count=92,
        dropped_links_count=93,
        kind=Span.SPAN_KIND_PRODUCER,
        status=Status(code=Status.STATUS_CODE_ERROR, message="of status"),
        events=[event("exception", exception__message="of exception", x="of event")],
        links=[
            Span.Link(
                trace_id=b"\xaa" * 16,
                span_id=b"\xbb" * 8,
                trace_state="linked=1",
                flags=258,
                dropped_attributes_count=94,
                attributes=pairs({"l": "of link"}),
            )
        ],
    )
    made = request(whole, resource={"r": {"deep": ["of resource"]}})
    made.resource_spans[0].schema_url = "https://resource.schema"
    made.resource_spans[0].resource.dropped_attributes_count = 95
    scoped = made.resource_spans[0].scope_spans[0]
    scoped.schema_url = "https://scope.schema"
    scoped.scope.name, scoped.scope.version = "of scope", "1.2.3"
    scoped.scope.attributes.extend(pairs({"s": "in scope"}))
    scoped.scope.dropped_attributes_count = 96
    whole.events[0].dropped_attributes_count = 97
    del scoped.spans[:]
    scoped.spans.append(whole)
    said = text_of(read_export(made).operations[0].create)
    for mark in (
        "original", "renamed", "state=1", "257", "91", "92", "93", "SPAN_KIND_PRODUCER", "of status",
        "of exception", "of event", "aa" * 16, "bb" * 8, "linked=1", "258", "94", "of link", "of resource",
        "https://resource.schema", "95", "https://scope.schema", "of scope", "1.2.3", "in scope", "96", "97",
    ):  # fmt: skip
        assert mark in said, mark
