"""What the attributes of a span say about a run, by the conventions in use.

OpenTelemetry's GenAI conventions (those of today and those before), OpenInference, OpenLLMetry
(`traceloop.…`) and LangSmith's own; where LangSmith documents what becomes of an attribute, the same
becomes of it here. Whatever no convention claims stays in the run's metadata under its own key.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runstore.otlp.attributes import (
    Attributes,
    json_or_text,
    object_of,
    take,
    take_as,
    take_indexed,
    take_prefixed,
)

# LangSmith's kinds are run types already.
_RUN_TYPES: Final = frozenset({"tool", "chain", "llm", "retriever", "embedding", "prompt", "parser"})
_OPENINFERENCE_KINDS: Final = {
    "llm": "llm",
    "tool": "tool",
    "retriever": "retriever",
    "reranker": "retriever",
    "embedding": "embedding",
    "prompt": "prompt",
    "chain": "chain",
    "agent": "chain",
    "guardrail": "chain",
    "evaluator": "chain",
}
_OPERATIONS: Final = {
    "chat": "llm",
    "completion": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "embeddings": "embedding",
    "embedding": "embedding",
    "execute_tool": "tool",
    "retrieval": "retriever",
    "create_agent": "chain",
    "invoke_agent": "chain",
    "invoke_workflow": "chain",
}
_TRACELOOP_KINDS: Final = {"tool": "tool", "workflow": "chain", "task": "chain", "agent": "chain"}
_REQUEST_TYPES: Final = {"chat": "llm", "completion": "llm", "embedding": "embedding", "rerank": "retriever"}
# What tells the kind of a span that does not name it.
_TELLING: Final = (
    ("llm.prompt_template.variables", "prompt"),
    ("gen_ai.request.model", "llm"),
    ("gen_ai.response.model", "llm"),
    ("llm.model_name", "llm"),
    ("gen_ai.tool.name", "tool"),
)

# The first of each row that is there counts.
_MODEL: Final = (
    "llm.model_name",
    "embedding.model_name",
    "reranker.model_name",
    "llm.request.model",
    "gen_ai.response.model",
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
        "gen_ai.usage.details.cache_read_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_creation": (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "audio": ("llm.token_count.prompt_details.audio",),
}
_COMPLETION_DETAILS: Final[Mapping[str, Sequence[str]]] = {
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "audio": ("llm.token_count.completion_details.audio",),
}
_COSTS: Final = {
    "input_cost": ("llm.cost.prompt",),
    "output_cost": ("llm.cost.completion",),
    "total_cost": ("llm.cost.total", "gen_ai.usage.cost"),
}
_MAX_PRINTED_CHARS: Final = 4_096
_REQUEST: Final = "gen_ai.request."
# LangSmith's names for parameters of the request, beside their own in `invocation_params`.
_PARAMETERS: Final = {
    "model": "ls_model_name",
    "temperature": "ls_temperature",
    "max_tokens": "ls_max_tokens",
    "stop_sequences": "ls_stop",
}


def run_type_of(attributes: Attributes) -> str:
    """The kind of work; a span that says nothing of it is a step of a chain."""
    if (told := _lower(attributes.get("langsmith.span.kind"))) in _RUN_TYPES:
        del attributes["langsmith.span.kind"]
        return told
    # The others say more than a run's type can (`AGENT`), and stay.
    for key, kinds in (
        ("openinference.span.kind", _OPENINFERENCE_KINDS),
        ("gen_ai.operation.name", _OPERATIONS),
        ("traceloop.span.kind", _TRACELOOP_KINDS),
        ("llm.request.type", _REQUEST_TYPES),
        ("traceloop.llm.request.type", _REQUEST_TYPES),
    ):
        if (told := _lower(attributes.get(key))) in kinds:
            return kinds[told]
    return next((run_type for key, run_type in _TELLING if key in attributes), "chain")


def name_of(attributes: Attributes, span_name: str) -> str:
    """What the work is called: by LangSmith, by its framework, or as the span is."""
    told = take_as(attributes, ("langsmith.trace.name",), _text)
    if told is None and _lower(attributes.get("openinference.span.kind")) == "tool":
        told = _text(attributes.get("tool.name"))
    return told or _text(attributes.get("traceloop.entity.name")) or span_name or "span"


def metadata_of(attributes: Attributes) -> dict[str, Any]:
    """What LangSmith calls metadata: model, provider, usage, thread, user, and whatever was given as such."""
    metadata = take_as(attributes, ("metadata",), object_of) or {}
    for prefix in ("langsmith.metadata.", "traceloop.association.properties."):
        for key, value in take_prefixed(attributes, prefix).items():
            told = json_or_text(value)
            if metadata.setdefault(key, told) != told:
                attributes[prefix + key] = value
    for parameter, name in _PARAMETERS.items():
        if (value := attributes.get(_REQUEST + parameter)) is not None:
            metadata.setdefault(name, value)
    for name, keys in (
        ("ls_model_name", _MODEL),
        ("ls_provider", _PROVIDER),
        ("session_id", ("session.id",)),
        ("conversation_id", ("gen_ai.conversation.id",)),
        ("user_id", ("user.id", "enduser.id")),
    ):
        if name not in metadata and (value := take(attributes, keys)) is not None:
            metadata[name] = value
    if "usage_metadata" not in metadata and (usage := usage_of(attributes)):
        metadata["usage_metadata"] = usage
    return metadata


def invocation_params_of(attributes: Attributes) -> dict[str, Any]:
    """The call of the model as it was made: its parameters and tools; {} when the span does not say."""
    params = take_as(attributes, ("llm.invocation_parameters",), object_of) or {}
    for key, value in take_prefixed(attributes, _REQUEST).items():
        name = "stop" if key == "stop_sequences" else key
        if params.setdefault(name, value) != value:
            attributes[_REQUEST + key] = value
    for name in ("presence_penalty", "frequency_penalty"):
        if name not in params and (value := take(attributes, (f"llm.{name}",))) is not None:
            params[name] = value
    if "tools" not in params and (tools := _tools(attributes)):
        params["tools"] = tools
    if "functions" not in params and (functions := take_indexed(attributes, "llm.request.functions")):
        params["functions"] = functions
    for name, key in (("tool_arguments", "tool_arguments"), ("tool_name", "gen_ai.tool.name")):
        if (value := attributes.get(key)) is not None:
            params.setdefault(name, json_or_text(value))
    return params


def usage_of(attributes: Attributes) -> dict[str, Any]:
    """Tokens and costs in the shape of LangChain's `usage_metadata`; {} when none are told."""
    usage = take_as(attributes, ("langsmith.usage_metadata",), object_of) or {}
    for name, token_keys in (
        ("input_tokens", _PROMPT_TOKENS),
        ("output_tokens", _COMPLETION_TOKENS),
        ("total_tokens", _TOTAL_TOKENS),
    ):
        if name not in usage and (tokens := take_as(attributes, token_keys, _count)) is not None:
            usage[name] = tokens
    for name, categories in (
        ("input_token_details", _PROMPT_DETAILS),
        ("output_token_details", _COMPLETION_DETAILS),
    ):
        if name not in usage and (details := _details(attributes, f"gen_ai.usage.{name}", categories)):
            usage[name] = details
    for name, cost_keys in _COSTS.items():
        if name not in usage and (cost := take_as(attributes, cost_keys, _number)) is not None:
            usage[name] = cost
    return usage


def tags_of(attributes: Attributes) -> list[str]:
    """Labels, in order, each once."""
    tags: list[str] = []
    for key in ("langsmith.span.tags", "tag.tags"):
        tags += take_as(attributes, (key,), _tags) or []
    return list(dict.fromkeys(tags))


def _details(
    attributes: Attributes, told_key: str, categories: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    details = take_as(attributes, (told_key,), _numbers) or {}
    for category, keys in categories.items():
        if category not in details and (tokens := take_as(attributes, keys, _count)) is not None:
            details[category] = tokens
    return details


def _tools(attributes: Attributes) -> list[Any]:
    """Definitions of the tools that a model may call."""
    told = take_as(attributes, ("gen_ai.tool.definitions", "llm.tools", "tools"), _list)
    if told is not None:
        return told
    tools = take_indexed(attributes, "llm.tools")
    tools = [item.get("tool", item) if isinstance(item, dict) else item for item in tools]
    return [json_or_text(tool["json_schema"]) if _keys(tool) == {"json_schema"} else tool for tool in tools]


def _numbers(told: Any) -> dict[str, Any] | None:
    """Numbers by name; LangSmith's exporter writes them as Python prints a dict."""
    found: Any = object_of(told)
    if found is None and isinstance(told, str) and len(told) <= _MAX_PRINTED_CHARS:
        try:
            found = ast.literal_eval(told)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    is_numbers = isinstance(found, dict) and all(
        isinstance(name, str) and _number(number) is not None for name, number in found.items()
    )
    return found if is_numbers else None


def _list(told: Any) -> list[Any] | None:
    told = json_or_text(told)
    return told if isinstance(told, list) else None


def _keys(told: Any) -> set[str]:
    return set(told) if isinstance(told, dict) else set()


def _tags(told: Any) -> list[str] | None:
    told = json_or_text(told)
    if isinstance(told, str):
        told = told.split(",")
    if not isinstance(told, list) or not all(isinstance(tag, str) for tag in told):
        return None
    return [tag for tag in (each.strip() for each in told) if tag]


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _lower(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""
