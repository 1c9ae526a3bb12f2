"""Spans as the instrumentations of the field write them, and the runs they become."""

import base64
import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from runstore.domain.usage import usage_from_metadata
from runstore.v1 import run_pb2

from .making import PARENT, SPAN, T0_NS, TRACE, event, export, extra, metadata, pairs, run, span

# -- times, origin ----------------------------------------------------------------------------


def test_plain_span_is_a_complete_run() -> None:
    """Times to the nanosecond that the message holds, unknown attributes kept, its origin beside them."""
    told = {"http.method": "GET", "retries": 2, "nested": {"a": [1, True, 0.5]}, "raw": b"\x00\x01"}
    fields = run(told, kind=Span.SPAN_KIND_CLIENT, trace_state="a=b")
    assert (fields.name, fields.run_type) == ("work", run_pb2.RUN_TYPE_CHAIN)
    assert (fields.start_time.seconds, fields.start_time.nanos) == divmod(T0_NS, 1_000_000_000)
    assert fields.end_time.nanos - fields.start_time.nanos == 2_000_000
    kept = metadata(fields)
    assert kept["http.method"] == "GET"
    assert kept["nested"] == {"a": [1, True, 0.5]}
    assert kept["raw"] == "AAE="
    assert (kept["otel_trace_id"], kept["otel_span_id"]) == (TRACE.hex(), SPAN.hex())
    otel = json.loads(fields.extra)["otel"]
    assert (otel["kind"], otel["trace_state"]) == ("SPAN_KIND_CLIENT", "a=b")


# -- kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"langsmith.span.kind": "retriever"}, "RETRIEVER"),
        ({"langsmith.span.kind": "LLM", "openinference.span.kind": "TOOL"}, "LLM"),
        ({"openinference.span.kind": "LLM"}, "LLM"),
        ({"openinference.span.kind": "AGENT"}, "CHAIN"),
        ({"openinference.span.kind": "RERANKER"}, "RETRIEVER"),
        ({"openinference.span.kind": "EMBEDDING"}, "EMBEDDING"),
        ({"gen_ai.operation.name": "chat"}, "LLM"),
        ({"gen_ai.operation.name": "execute_tool"}, "TOOL"),
        ({"gen_ai.operation.name": "invoke_agent"}, "CHAIN"),
        ({"gen_ai.operation.name": "embeddings"}, "EMBEDDING"),
        ({"traceloop.span.kind": "tool"}, "TOOL"),
        ({"traceloop.span.kind": "workflow"}, "CHAIN"),
        ({"openinference.span.kind": "UNKNOWN", "gen_ai.operation.name": "chat"}, "LLM"),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o"}, "CHAIN"),
        ({"llm.request.type": "chat"}, "LLM"),
        ({"traceloop.llm.request.type": "embedding"}, "EMBEDDING"),
        ({"llm.prompt_template.variables": "{}"}, "PROMPT"),
        ({"gen_ai.tool.name": "find"}, "TOOL"),
        ({"gen_ai.request.model": "gpt-4o"}, "LLM"),
        ({}, "CHAIN"),
    ],
    ids=str,
)
def test_kind(attributes: dict[str, Any], expected: str) -> None:
    """LangSmith's word first, then OpenInference's, then the GenAI operation."""
    assert run_pb2.RunType.Name(run(attributes).run_type) == f"RUN_TYPE_{expected}"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"langsmith.trace.name": "told", "traceloop.entity.name": "entity"}, "told"),
        ({"traceloop.entity.name": "entity"}, "entity"),
        ({"openinference.span.kind": "TOOL", "tool.name": "find"}, "find"),
        ({"openinference.span.kind": "AGENT", "tool.name": "find"}, "GET /"),
        ({"langsmith.trace.name": ""}, "GET /"),
    ],
    ids=str,
)
def test_name(attributes: dict[str, Any], expected: str) -> None:
    """A better name than the span's is taken; the span's is kept then."""
    fields = run(attributes, name="GET /")
    assert fields.name == expected
    assert extra(fields)["otel"].get("name", expected) == ("GET /" if expected != "GET /" else expected)


# -- conventions -----------------------------------------------------------------------------------


def test_genai_conventions_of_today() -> None:
    """Messages of parts, usage with cache and reasoning, provider and conversation."""
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.conversation.id": "conv-1",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be kind."}]),
        "gen_ai.input.messages": json.dumps(
            [
                {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]},
                {
                    "role": "assistant",
                    "parts": [
                        {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Rom"}}
                    ],
                },
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "sunny"}]},
            ]
        ),
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": "Sun."}], "finish_reason": "stop"}]
        ),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.reasoning.output_tokens": 5,
    }
    fields = run(told)
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rom"}'}}
    assert json.loads(fields.inputs)["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    assert json.loads(fields.outputs) == {
        "messages": [{"role": "assistant", "finish_reason": "stop", "content": "Sun."}]
    }
    kept = metadata(fields)
    assert (kept["ls_model_name"], kept["ls_provider"], kept["ls_temperature"]) == ("gpt-4o", "openai", 0.5)
    assert kept["conversation_id"] == "conv-1"
    usage = usage_from_metadata(json.dumps(kept["usage_metadata"]).encode())
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 20, 120)
    assert (usage.prompt_token_details, usage.completion_token_details) == (
        {"cache_read": 60},
        {"reasoning": 5},
    )


def test_genai_parts_of_every_kind() -> None:
    """Answers of tools are messages of their own; parts that OpenAI's shape has not are kept as they are."""
    reasoning = {"type": "reasoning", "content": "Hm."}
    image = {"type": "uri", "modality": "image", "uri": "https://example.org/a.png"}
    told = [
        {"role": "user", "parts": [{"type": "text", "content": "Look"}, image]},
        {"role": "assistant", "parts": [reasoning], "finish_reason": "tool_call"},
        {
            "role": "tool",
            "parts": [
                {"type": "tool_call_response", "id": "a", "response": {"t": 21}},
                {"type": "tool_call_response", "id": "b", "result": "wet"},
            ],
        },
        {"role": "user", "content": "already so"},
        "bare",
    ]
    assert json.loads(run({"gen_ai.input.messages": told}).inputs) == {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
            {"role": "assistant", "content": [reasoning], "finish_reason": "tool_call"},
            {"role": "tool", "tool_call_id": "a", "content": '{"t":21}'},
            {"role": "tool", "tool_call_id": "b", "content": "wet"},
            {"role": "user", "content": "already so"},
            {"role": "user", "content": "bare"},
        ]
    }


def test_genai_tool_and_retrieval() -> None:
    """Arguments and result are the payloads themselves; a query and its documents."""
    tool = run(
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "weather",
            "gen_ai.tool.call.arguments": '{"city": "Rom"}',
            "gen_ai.tool.call.result": {"t": 21},
        }
    )
    assert (json.loads(tool.inputs), json.loads(tool.outputs)) == ({"city": "Rom"}, {"t": 21})
    assert extra(tool)["invocation_params"] == {"tool_name": "weather"}
    retrieval = run(
        {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.retrieval.query.text": "sun",
            "gen_ai.retrieval.documents": '[{"id": "d1", "score": 0.9}]',
        }
    )
    assert json.loads(retrieval.inputs) == {"query": "sun"}
    assert json.loads(retrieval.outputs) == {
        "documents": [{"type": "Document", "page_content": None, "metadata": {}, "id": "d1", "score": 0.9}]
    }


def test_request_parameters_and_tools() -> None:
    """How the model was called is in `invocation_params`, where LangSmith and LangChain have it."""
    tool = {"type": "function", "name": "weather"}
    fields = run(
        {
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.top_p": 0.9,
            "gen_ai.request.max_tokens": 100,
            "gen_ai.request.stop_sequences": ["END"],
            "gen_ai.request.seed": 7,
            "gen_ai.tool.definitions": json.dumps([tool]),
        }
    )
    assert extra(fields)["invocation_params"] == {
        "model": "gpt-4o",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 100,
        "stop": ["END"],
        "seed": 7,
        "tools": [tool],
    }
    kept = metadata(fields)
    assert (kept["ls_model_name"], kept["ls_temperature"], kept["ls_max_tokens"], kept["ls_stop"]) == (
        "gpt-4o", 0.5, 100, ["END"],
    )  # fmt: skip
    assert not any(key.startswith("gen_ai.request.") for key in kept)


def test_genai_conventions_before() -> None:
    """Indexed prompts and completions, `gen_ai.system`, prompt and completion tokens (OpenLLMetry)."""
    told = {
        "gen_ai.system": "Anthropic",
        "gen_ai.response.model": "claude-3-5-sonnet",
        "llm.request.type": "chat",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "Hi",
        "gen_ai.prompt.10.role": "user",
        "gen_ai.prompt.10.content": "last",
        "gen_ai.prompt.2.role": "assistant",
        "gen_ai.prompt.2.tool_calls.0.id": "t",
        "gen_ai.prompt.2.tool_calls.0.name": "f",
        "gen_ai.prompt.2.tool_calls.0.arguments": "{}",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "Hello",
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 3,
        "gen_ai.usage.completion_tokens": 4,
        "llm.usage.total_tokens": 7,
    }
    fields = run(told)
    assert json.loads(fields.inputs)["messages"] == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "user", "content": "last"},
    ]
    assert json.loads(fields.outputs)["messages"] == [
        {"role": "assistant", "content": "Hello", "finish_reason": "stop"}
    ]
    assert metadata(fields)["usage_metadata"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert metadata(fields)["ls_provider"] == "Anthropic"


def test_genai_message_events() -> None:
    """Messages that were recorded as events."""
    fields = run(
        {"gen_ai.system": "openai", "gen_ai.request.model": "m"},
        events=[
            event("gen_ai.system.message", content="S"),
            event("gen_ai.user.message", content="Q"),
            event("gen_ai.choice", index=0, finish_reason="stop", message='{"content":"A"}'),
        ],
    )
    assert json.loads(fields.inputs)["messages"] == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
    ]
    assert json.loads(fields.outputs)["messages"] == [
        {"role": "assistant", "content": "A", "index": 0, "finish_reason": "stop"}
    ]
    assert [each["name"] for each in json.loads(fields.events)] == [
        "gen_ai.system.message",
        "gen_ai.user.message",
        "gen_ai.choice",
    ]


def test_choice_events_with_dotted_keys() -> None:
    """As LangSmith documents them: the message and its tool calls spelled out; tools answer by id."""
    fields = run(
        events=[
            event("gen_ai.tool.message", id="c1", content="sunny"),
            Span.Event(
                name="gen_ai.choice",
                attributes=pairs(
                    {
                        "gen_ai.system": "openai",
                        "finish_reason": "tool_calls",
                        "message.role": "assistant",
                        "tool_calls.0.id": "c2",
                        "tool_calls.0.type": "function",
                        "tool_calls.0.function.name": "f",
                        "tool_calls.0.function.arguments": "{}",
                    }
                ),
            ),
        ]
    )
    assert json.loads(fields.inputs)["messages"] == [
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    ]
    call = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert json.loads(fields.outputs)["messages"] == [
        {"role": "assistant", "finish_reason": "tool_calls", "tool_calls": [call]}
    ]


def test_details_event() -> None:
    """The one event that replaced the message events."""
    fields = run(
        events=[
            Span.Event(
                name="gen_ai.client.inference.operation.details",
                attributes=pairs(
                    {
                        "gen_ai.system_instructions": [{"type": "text", "content": "Be kind."}],
                        "gen_ai.input.messages": [
                            {"role": "user", "parts": [{"type": "text", "content": "Q"}]}
                        ],
                        "gen_ai.output.messages": [
                            {"role": "assistant", "parts": [{"type": "text", "content": "A"}]}
                        ],
                    }
                ),
            )
        ]
    )
    assert json.loads(fields.inputs)["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Q"},
    ]
    assert json.loads(fields.outputs)["messages"] == [{"role": "assistant", "content": "A"}]


def test_genai_content_events() -> None:
    """The events of the first drafts hold the whole prompt and completion."""
    fields = run(
        events=[
            event("gen_ai.content.prompt", gen_ai__prompt='{"messages":[]}'),
            event("gen_ai.content.completion", gen_ai__completion="text"),
        ]
    )
    assert json.loads(fields.inputs) == {"messages": []}
    assert json.loads(fields.outputs) == {"output": "text"}


def test_openinference_llm() -> None:
    """Flattened messages with contents and tool calls; the raw request is kept beside them."""
    told = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4o-mini",
        "llm.provider": "openai",
        "llm.invocation_parameters": '{"temperature": 0}',
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "Look",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "f",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{}",
        "llm.token_count.prompt": 10,
        "llm.token_count.completion": 2,
        "llm.token_count.total": 12,
        "llm.token_count.prompt_details.cache_read": 4,
        "llm.cost.total": 0.25,
        "input.value": '{"messages": [], "model": "gpt-4o-mini"}',
        "input.mime_type": "application/json",
        "session.id": "s-1",
        "user.id": "u-1",
        "metadata": '{"tier": "gold"}',
        "tag.tags": ["a", "b", "a"],
    }
    fields = run(told)
    assert json.loads(fields.inputs) == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}]}],
        "raw": {"messages": [], "model": "gpt-4o-mini"},
    }
    assert json.loads(fields.outputs)["messages"][0]["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    kept = metadata(fields)
    assert (kept["session_id"], kept["user_id"], kept["tier"]) == ("s-1", "u-1", "gold")
    assert kept["usage_metadata"] == {
        "input_tokens": 10,
        "output_tokens": 2,
        "total_tokens": 12,
        "input_token_details": {"cache_read": 4},
        "total_cost": 0.25,
    }
    assert json.loads(fields.extra)["invocation_params"] == {"temperature": 0}
    assert list(fields.tags.values) == ["a", "b"]


def test_openinference_images_and_tools() -> None:
    """Images as OpenAI sends them, definitions of tools from their schemas, answers that are JSON as text."""
    schema = {"type": "function", "function": {"name": "f"}}
    fields = run(
        {
            "openinference.span.kind": "LLM",
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.type": "image",
            "llm.input_messages.0.message.contents.0.message_content.image.image.url": "https://example.org/a",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": '{"answer": 42}',
            "llm.tools.0.tool.json_schema": json.dumps(schema),
        }
    )
    assert json.loads(fields.inputs)["messages"] == [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a"}}],
        }
    ]
    assert json.loads(fields.outputs)["messages"] == [{"role": "assistant", "content": '{"answer": 42}'}]
    assert extra(fields)["invocation_params"]["tools"] == [schema]


def test_openinference_retriever_embedding_and_tool() -> None:
    """Documents in the shape of LangChain's, texts, and values that are text however they look."""
    retriever = run(
        {
            "openinference.span.kind": "RETRIEVER",
            "input.value": "{not json",
            "retrieval.documents.0.document.content": "D",
            "retrieval.documents.0.document.score": 0.5,
            "retrieval.documents.0.document.metadata": '{"source": "x"}',
        }
    )
    assert json.loads(retriever.inputs) == {"input": "{not json"}
    assert json.loads(retriever.outputs)["documents"] == [
        {"page_content": "D", "type": "Document", "metadata": {"source": "x"}, "score": 0.5}
    ]
    embedding = run(
        {
            "openinference.span.kind": "EMBEDDING",
            "embedding.model_name": "ada",
            "embedding.embeddings.0.embedding.text": "T",
            "embedding.embeddings.0.embedding.vector": [0.5, 1.5],
        }
    )
    assert json.loads(embedding.inputs) == {"texts": ["T"]}
    assert json.loads(embedding.outputs) == {"embeddings": [{"vector": [0.5, 1.5]}]}
    assert metadata(embedding)["ls_model_name"] == "ada"
    reranker = run(
        {
            "openinference.span.kind": "RERANKER",
            "reranker.query": "Q",
            "reranker.input_documents.0.document.content": "a",
            "reranker.output_documents.0.document.content": "b",
        }
    )
    assert json.loads(reranker.inputs)["query"] == "Q"
    assert json.loads(reranker.inputs)["documents"][0]["page_content"] == "a"
    assert json.loads(reranker.outputs)["documents"][0]["page_content"] == "b"
    tool = run(
        {
            "openinference.span.kind": "TOOL",
            "tool.name": "f",
            "input.value": '{"a": 1}',
            "input.mime_type": "text/plain",
            "output.value": "[1]",
        }
    )
    assert json.loads(tool.inputs) == {"input": '{"a": 1}'}
    assert json.loads(tool.outputs) == {"output": [1]}
    assert metadata(tool)["tool.name"] == "f"


def test_langsmith_exporter() -> None:
    """As the LangSmith SDK's OTEL mode writes a run; details of usage as Python prints them."""
    told = {
        "langsmith.span.kind": "llm",
        "langsmith.trace.name": "Chat",
        "langsmith.trace.session_name": "p",
        "langsmith.metadata.thread_id": "th",
        "langsmith.metadata.list": "[1, 2]",
        "langsmith.span.tags": "a, b",
        "gen_ai.prompt": '{"messages": [{"role": "user"}]}',
        "gen_ai.completion": '{"choices": []}',
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.total_tokens": 11,
        "gen_ai.usage.input_token_details": "{'cache_read': 2}",
        "gen_ai.usage.output_token_details": "{broken",
    }
    fields = run(told, name="span")
    assert fields.name == "Chat"
    assert json.loads(fields.inputs) == {"messages": [{"role": "user"}]}
    assert json.loads(fields.outputs) == {"choices": []}
    kept = metadata(fields)
    assert (kept["thread_id"], kept["list"]) == ("th", [1, 2])
    assert kept["usage_metadata"]["input_token_details"] == {"cache_read": 2}
    assert "output_token_details" not in kept["usage_metadata"]
    assert list(fields.tags.values) == ["a", "b"]


def test_openllmetry_workflow() -> None:
    """Inputs and outputs of an entity, and the properties that an application associates."""
    fields = run(
        {
            "traceloop.span.kind": "workflow",
            "traceloop.entity.name": "joke",
            "traceloop.entity.input": '{"args": ["cats"]}',
            "traceloop.entity.output": '"ha"',
            "traceloop.association.properties.thread_id": "th",
        },
        name="joke.workflow",
    )
    assert fields.name == "joke"
    assert (json.loads(fields.inputs), json.loads(fields.outputs)) == ({"args": ["cats"]}, {"output": "ha"})
    assert metadata(fields)["thread_id"] == "th"


def test_attachments() -> None:
    """Files as LangSmith documents them; what cannot be one stays an attribute."""
    file = {"name": "receipt", "content": base64.b64encode(b"\x00png").decode(), "mime_type": "image/png"}
    [attachment] = run({"langsmith.attachments": json.dumps([file])}).attachments
    assert (attachment.name, attachment.mime_type, attachment.content) == ("receipt", "image/png", b"\x00png")
    for bad in ({"name": "a.png"}, {"content": "no base64"}, {"mime_type": None}, {"name": ""}):
        told = json.dumps([{**file, **bad}])
        fields = run({"langsmith.attachments": told})
        assert not fields.attachments
        assert metadata(fields)["langsmith.attachments"] == told


def test_resource_is_metadata() -> None:
    """Whoever filters by environment or version can; a span's own attribute wins, and both are kept."""
    [operation] = export(
        span(
            {"deployment.environment.name": "own", "user_id": "attribute", "langsmith.metadata.user_id": "u"}
        ),
        resource={"service.version": "1.2", "deployment.environment.name": "prod"},
    ).operations
    kept = metadata(operation.create)
    assert (kept["service.version"], kept["deployment.environment.name"], kept["user_id"]) == (
        "1.2",
        "own",
        "u",
    )
    otel = extra(operation.create)["otel"]
    assert otel["resource"]["deployment.environment.name"] == "prod"
    assert otel["attributes"] == {"user_id": "attribute"}


# -- errors ----------------------------------------------------------------------------------------


def test_error_of_an_exception() -> None:
    """Type, message and stack of the last exception; the event is kept as well."""
    failed = run(
        status=Status(code=Status.STATUS_CODE_ERROR, message="boom"),
        events=[
            event(
                "exception",
                exception__type="ValueError",
                exception__message="bad",
                exception__stacktrace="Traceback",
            )
        ],
    )
    assert failed.error == "ValueError: bad\n\nTraceback"
    assert json.loads(failed.events)[0]["name"] == "exception"


def test_error_of_a_langsmith_run() -> None:
    """The SDK records the whole text of a run's error as the message of an exception that nobody raised."""
    text = "ValueError('bad')\n\nTraceback (most recent call last):\n  …"
    failed = run(
        status=Status(code=Status.STATUS_CODE_ERROR),
        events=[
            event(
                "exception",
                exception__type="Exception",
                exception__message=text,
                exception__stacktrace=f"Exception: {text}\n",
            )
        ],
    )
    assert failed.error == text


@pytest.mark.parametrize(("message", "expected"), [("boom", "boom"), ("", "error")])
def test_error_of_a_status(message: str, expected: str) -> None:
    """Without an exception the status speaks; a failed span is never a good one."""
    assert run(status=Status(code=Status.STATUS_CODE_ERROR, message=message)).error == expected


def test_good_span_with_an_exception_event_is_good() -> None:
    """An exception that was handled is an event and no error."""
    assert not run(events=[event("exception", exception__type="E")]).HasField("error")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"trace_id": b""}, "trace_id"),
        ({"trace_id": bytes(16)}, "trace_id"),
        ({"span_id": b"\x01" * 7}, "span_id"),
        ({"parent_span_id": b"\x01"}, "parent_span_id"),
        ({"parent_span_id": SPAN}, "parent_span_id"),
        ({"start_time_unix_nano": 0}, "start_time_unix_nano"),
        ({"end_time_unix_nano": 2**64 - 1}, "end_time_unix_nano"),
    ],
    ids=str,
)
def test_bad_span_costs_no_other(fields: dict[str, Any], named: str) -> None:
    """It is counted and named; the spans beside it are taken."""
    found = export(span(span_id=PARENT), span(**fields), span())
    assert len(found.operations) == 2
    response = found.response()
    assert response.partial_success.rejected_spans == 1
    assert named in response.partial_success.error_message


def test_all_good_has_no_partial_success() -> None:
    """As the standard wants it."""
    assert not export(span()).response().HasField("partial_success")


def test_odd_attributes_break_nothing() -> None:
    """Values of the wrong type, huge indexes, deep nesting, numbers that JSON has not."""
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    told = {
        "llm.input_messages.99999999999999999999.message.role": "user",
        f"llm.input_messages.{'9' * 5_000}.message.role": "user",
        "llm.input_messages.\xb2.message.role": "user",
        "gen_ai.usage.input_token_details": "{'a': 1j}",
        "gen_ai.usage.output_token_details": "(" * 5_000,
        "llm.input_messages.x": 1,
        "llm.input_messages.0": "flat",
        "gen_ai.prompt.0": "flat",
        "gen_ai.input.messages": '[1, null, "x"]',
        "gen_ai.output.messages": "{",
        "gen_ai.usage.input_tokens": "many",
        "gen_ai.usage.output_tokens": float("nan"),
        "llm.token_count.total": -5,
        "metadata": "text",
        "tag.tags": "one",
        "langsmith.span.kind": 7,
        "deep": deep,
        "infinite": float("inf"),
        "a." * 100 + "b": 1,
        "gen_ai.prompt.1." + "a." * 100 + "b": 1,
    }
    fields = run(told)
    assert metadata(fields)["infinite"] == "inf"
    assert metadata(fields)["metadata"] == "text"
    assert list(fields.tags.values) == ["one"]
