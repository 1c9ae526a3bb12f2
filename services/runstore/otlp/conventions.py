"""What the attributes of a span say about a run, by the conventions in use.

OpenTelemetry's GenAI conventions (those of today and those before: `gen_ai.system`, `gen_ai.prompt`, message
events), OpenInference, OpenLLMetry (`traceloop.…`) and LangSmith's own. Whatever no convention claims stays
in the run's metadata under its own key, so nothing is lost.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from runstore.otlp.attributes import Attributes, json_or_text, take_indexed

# LangSmith's kinds are run types already.
_RUN_TYPES: Final = frozenset({"tool", "chain", "llm", "retriever", "embedding", "prompt", "parser"})
_OPENINFERENCE_KINDS: Final = {
    "llm": "llm",
    "tool": "tool",
    "retriever": "retriever",
    "reranker": "retriever",
    "embedding": "embedding",
    "prompt": "prompt",
}
_OPERATIONS: Final = {
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "completion": "llm",
    "embeddings": "embedding",
    "execute_tool": "tool",
    "retrieval": "retriever",
}
_TRACELOOP_KINDS: Final = {"tool": "tool"}

# The first of each row that is there counts.
_MODEL: Final = (
    "gen_ai.request.model",
    "gen_ai.response.model",
    "llm.model_name",
    "embedding.model_name",
    "reranker.model_name",
    "llm.request.model",
    "llm.response.model",
)
_PROVIDER: Final = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor")
_PROMPT_TOKENS: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
)
_COMPLETION_TOKENS: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
)
_TOTAL_TOKENS: Final = ("gen_ai.usage.total_tokens", "llm.token_count.total", "llm.usage.total_tokens")
_PROMPT_DETAILS: Final[Mapping[str, Sequence[str]]] = {
    "cache_read": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_creation": (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "audio": ("llm.token_count.prompt_details.audio",),
}
_COMPLETION_DETAILS: Final[Mapping[str, Sequence[str]]] = {
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "audio": ("llm.token_count.completion_details.audio",),
}
_COSTS: Final = {
    "input_cost": ("llm.cost.prompt",),
    "output_cost": ("llm.cost.completion",),
    "total_cost": ("llm.cost.total", "gen_ai.usage.cost"),
}
_PARAMETERS: Final = {
    "temperature": "ls_temperature",
    "max_tokens": "ls_max_tokens",
    "stop_sequences": "ls_stop",
}
_MESSAGE_EVENTS: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}


def take(attributes: Attributes, keys: Iterable[str]) -> Any:
    """Takes the first of the keys that has a value out; None when none has."""
    for key in keys:
        if attributes.get(key) is not None:
            return attributes.pop(key)
    return None


def run_type_of(attributes: Attributes) -> str:
    """The kind of work; a span that says none of it is a step of a chain."""
    langsmith = _lower(attributes.pop("langsmith.span.kind", None))
    openinference = _lower(attributes.pop("openinference.span.kind", None))
    operation = _lower(attributes.get("gen_ai.operation.name"))
    traceloop = _lower(attributes.get("traceloop.span.kind"))
    if langsmith in _RUN_TYPES:
        return langsmith
    if openinference:
        return _OPENINFERENCE_KINDS.get(openinference, "chain")
    if operation:
        return _OPERATIONS.get(operation, "chain")
    if traceloop:
        return _TRACELOOP_KINDS.get(traceloop, "chain")
    if _lower(attributes.get("llm.request.type")) in ("chat", "completion"):
        return "llm"
    if "gen_ai.request.model" in attributes or "llm.model_name" in attributes:
        return "llm"
    return "chain"


def metadata_of(attributes: Attributes) -> dict[str, Any]:
    """What LangSmith calls metadata: model, provider, usage, thread, user, and whatever was given as such."""
    metadata: dict[str, Any] = {}
    told = json_or_text(attributes.pop("metadata", None))
    if isinstance(told, Mapping):
        metadata.update(told)
    elif told is not None:
        metadata["metadata"] = told
    prefix = "langsmith.metadata."
    for key in [key for key in attributes if key.startswith(prefix)]:
        metadata[key.removeprefix(prefix)] = json_or_text(attributes.pop(key))
    for name, keys in (
        ("ls_model_name", _MODEL),
        ("ls_provider", _PROVIDER),
        ("session_id", ("session.id",)),
        ("conversation_id", ("gen_ai.conversation.id",)),
        ("user_id", ("user.id", "enduser.id")),
    ):
        if name not in metadata and (value := take(attributes, keys)) is not None:
            metadata[name] = value
    for parameter, name in _PARAMETERS.items():
        value = attributes.pop(f"gen_ai.request.{parameter}", None)
        if value is not None:
            metadata.setdefault(name, value)
    usage = usage_of(attributes)
    if usage:
        metadata.setdefault("usage_metadata", usage)
    return metadata


def usage_of(attributes: Attributes) -> dict[str, Any]:
    """Tokens and costs in the shape of LangChain's `usage_metadata`; {} when none are told."""
    told = json_or_text(attributes.pop("langsmith.usage_metadata", None))
    usage: dict[str, Any] = dict(told) if isinstance(told, Mapping) else {}
    for name, token_keys in (
        ("input_tokens", _PROMPT_TOKENS),
        ("output_tokens", _COMPLETION_TOKENS),
        ("total_tokens", _TOTAL_TOKENS),
    ):
        tokens = _count(take(attributes, token_keys))
        if tokens is not None:
            usage.setdefault(name, tokens)
    details_of: tuple[tuple[str, str, Mapping[str, Sequence[str]]], ...] = (
        ("input_token_details", "gen_ai.usage.input_token_details", _PROMPT_DETAILS),
        ("output_token_details", "gen_ai.usage.output_token_details", _COMPLETION_DETAILS),
    )
    for name, told_key, categories in details_of:
        details = _told_details(attributes.pop(told_key, None))
        for category, keys in categories.items():
            tokens = _count(take(attributes, keys))
            if tokens is not None:
                details.setdefault(category, tokens)
        if details:
            usage.setdefault(name, details)
    for name, cost_keys in _COSTS.items():
        cost = take(attributes, cost_keys)
        if isinstance(cost, (int, float)) and not isinstance(cost, bool):
            usage.setdefault(name, cost)
    return usage


def tags_of(attributes: Attributes) -> list[str]:
    """Labels, in order, each once."""
    tags: list[str] = []
    for key in ("langsmith.span.tags", "tag.tags"):
        told = json_or_text(attributes.pop(key, None))
        if isinstance(told, str):
            told = told.split(",")
        if isinstance(told, Sequence):
            tags += [str(tag).strip() for tag in told]
    return [tag for tag in dict.fromkeys(tags) if tag]


def inputs_of(attributes: Attributes, events: Sequence[tuple[str, Attributes]]) -> dict[str, Any]:
    """What the work received; {} when the span does not say."""
    inputs = _payload(
        take(attributes, ("gen_ai.prompt",))
        or _event_value(events, "gen_ai.content.prompt", "gen_ai.prompt"),
        "input",
    )
    messages = _messages(
        attributes, ("gen_ai.prompt", "llm.prompts"), "gen_ai.input.messages", "llm.input_messages"
    )
    system = _genai_messages(json_or_text(attributes.pop("gen_ai.system_instructions", None)), "system")
    messages = [*system, *messages] or _messages_of_events(events)
    if messages:
        inputs.setdefault("messages", messages)
    for key in ("gen_ai.tool.definitions", "llm.tools"):
        tools = json_or_text(attributes.pop(key, None)) or take_indexed(attributes, key)
        if tools:
            inputs.setdefault("tools", tools)
    texts = [
        item.get("embedding", {}).get("embedding.text", item.get("embedding", {}).get("text"))
        for item in take_indexed(attributes, "embedding.embeddings")
        if isinstance(item, dict) and isinstance(item.get("embedding"), dict)
    ]
    if any(text is not None for text in texts):
        inputs.setdefault("texts", texts)
    arguments = take(attributes, ("gen_ai.tool.call.arguments", "tool.parameters"))
    _add_value(inputs, _payload(arguments, "input"))
    _add_value(inputs, _payload(_value_with_type(attributes, "input"), "input"))
    _add_value(inputs, _payload(take(attributes, ("traceloop.entity.input",)), "input"))
    return inputs


def outputs_of(attributes: Attributes, events: Sequence[tuple[str, Attributes]]) -> dict[str, Any]:
    """What the work returned; {} when the span does not say."""
    outputs = _payload(
        take(attributes, ("gen_ai.completion",))
        or _event_value(events, "gen_ai.content.completion", "gen_ai.completion"),
        "output",
    )
    messages = _messages(
        attributes, ("gen_ai.completion", "llm.completions"), "gen_ai.output.messages", "llm.output_messages"
    )
    messages = messages or [_choice(told) for name, told in events if name == "gen_ai.choice"]
    if messages:
        outputs.setdefault("messages", messages)
    documents = [
        _document(item.get("document", item))
        for item in take_indexed(attributes, "retrieval.documents")
        if isinstance(item, dict)
    ]
    if documents:
        outputs.setdefault("documents", documents)
    _add_value(outputs, _payload(take(attributes, ("gen_ai.tool.call.result",)), "output"))
    _add_value(outputs, _payload(_value_with_type(attributes, "output"), "output"))
    _add_value(outputs, _payload(take(attributes, ("traceloop.entity.output",)), "output"))
    return outputs


def invocation_params_of(attributes: Attributes) -> dict[str, Any]:
    """The model's parameters as they were sent; {} when the span does not say."""
    told = json_or_text(attributes.pop("llm.invocation_parameters", None))
    return dict(told) if isinstance(told, Mapping) else {}


# -- messages --------------------------------------------------------------------------------------


def _messages(
    attributes: Attributes, indexed: Iterable[str], genai: str, openinference: str
) -> list[dict[str, Any]]:
    """The messages of whichever convention the span follows, in the shape of OpenAI's."""
    messages = _genai_messages(json_or_text(attributes.pop(genai, None)), "user")
    for prefix in indexed:
        found = [_flat_message(item) for item in take_indexed(attributes, prefix) if isinstance(item, dict)]
        messages = messages or found
    found = [
        _openinference_message(item["message"])
        for item in take_indexed(attributes, openinference)
        if isinstance(item, dict) and isinstance(item.get("message"), dict)
    ]
    return messages or found


def _genai_messages(told: Any, role: str) -> list[dict[str, Any]]:
    """Messages of parts, and bare parts (system instructions), which are one message of `role`."""
    if isinstance(told, str) and told:
        return [{"role": role, "content": told}]
    if not isinstance(told, list):
        return []
    if told and all(isinstance(item, dict) and "parts" not in item and "role" not in item for item in told):
        told = [{"role": role, "parts": told}]
    return [_genai_message(item) for item in told if isinstance(item, dict)]


def _genai_message(told: Mapping[str, Any]) -> dict[str, Any]:
    parts = told.get("parts")
    if not isinstance(parts, list):
        return dict(told)
    message: dict[str, Any] = {key: value for key, value in told.items() if key != "parts"}
    content: list[Any] = []
    calls: list[dict[str, Any]] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            content.append({"type": "text", "text": part.get("content")})
        elif kind == "tool_call":
            calls.append(_tool_call(part.get("id"), part.get("name"), part.get("arguments")))
        elif kind == "tool_call_response":
            message["tool_call_id"] = part.get("id")
            content.append({"type": "text", "text": part.get("response", part.get("result"))})
        else:
            content.append(part)
    is_plain = len(content) == 1 and isinstance(content[0], dict) and content[0].get("type") == "text"
    message["content"] = content[0]["text"] if is_plain else content
    if calls:
        message["tool_calls"] = calls
    return message


def _flat_message(told: Mapping[str, Any]) -> dict[str, Any]:
    message = dict(told)
    if "content" in message:
        message["content"] = json_or_text(message["content"])
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [
            _tool_call(call.get("id"), call.get("name"), call.get("arguments"))
            for call in calls
            if isinstance(call, dict)
        ]
    return message


def _openinference_message(told: Mapping[str, Any]) -> dict[str, Any]:
    message = {key: value for key, value in told.items() if key not in ("contents", "tool_calls")}
    contents = told.get("contents")
    if isinstance(contents, list):
        message["content"] = [
            item.get("message_content", item) for item in contents if isinstance(item, dict)
        ]
    calls = told.get("tool_calls")
    if isinstance(calls, list):
        functions = [call.get("tool_call", call) for call in calls if isinstance(call, dict)]
        message["tool_calls"] = [
            _tool_call(call.get("id"), function.get("name"), function.get("arguments"))
            for call in functions
            if isinstance(call, dict) and isinstance(function := call.get("function", {}), dict)
        ]
    return message


def _messages_of_events(events: Sequence[tuple[str, Attributes]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for name, told in events:
        if name in _MESSAGE_EVENTS:
            message = {key.removeprefix("gen_ai.event."): json_or_text(value) for key, value in told.items()}
            messages.append({"role": _MESSAGE_EVENTS[name], **message})
        elif name == "gen_ai.client.inference.operation.details":
            messages += _genai_messages(json_or_text(told.get("gen_ai.input.messages")), "user")
    return messages


def _choice(told: Mapping[str, Any]) -> dict[str, Any]:
    message = json_or_text(told.get("message"))
    rest = {key: json_or_text(value) for key, value in told.items() if key != "message"}
    return {"role": "assistant", **(message if isinstance(message, dict) else {"content": message}), **rest}


def _tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _document(told: Any) -> Any:
    """A retrieved document in the shape of LangChain's."""
    if not isinstance(told, Mapping):
        return told
    document = {key: value for key, value in told.items() if key not in ("content", "metadata")}
    metadata = json_or_text(told.get("metadata"))
    return {"page_content": told.get("content"), "type": "Document", "metadata": metadata or {}, **document}


# -- values ----------------------------------------------------------------------------------------


def _value_with_type(attributes: Attributes, side: str) -> Any:
    """OpenInference's `input.value`, read as JSON unless it says that it is something else."""
    mime_type = attributes.pop(f"{side}.mime_type", None)
    value = attributes.pop(f"{side}.value", None)
    return _Text(value) if mime_type not in (None, "application/json") and value is not None else value


class _Text(str):
    """A string that is not to be read as JSON."""

    __slots__ = ()


def _payload(value: Any, key: str) -> dict[str, Any]:
    """A payload is an object: other values go below `key`."""
    if value is None:
        return {}
    if isinstance(value, _Text):
        return {key: str(value)}
    value = json_or_text(value)
    return value if isinstance(value, dict) else {key: value}


def _add_value(payload: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds what another attribute says; where both say something, the convention's own reading holds, and
    the raw form is kept beside it."""
    if not payload:
        payload.update(more)
    elif more and more != payload:
        payload.setdefault("raw", dict(more))


def _event_value(events: Sequence[tuple[str, Attributes]], name: str, key: str) -> Any:
    return next((told[key] for event, told in events if event == name and key in told), None)


def _told_details(told: Any) -> dict[str, Any]:
    """Details by category; LangSmith's exporter writes them as Python prints a dict."""
    told = json_or_text(told)
    if isinstance(told, str):
        try:
            told = ast.literal_eval(told)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return {}
    return dict(told) if isinstance(told, Mapping) else {}


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if value >= 0 else None


def _lower(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""
