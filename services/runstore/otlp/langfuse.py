"""What spans of Langfuse's SDKs say, in the words of the conventions that are read.

Names are those of `langfuse._client.attributes` (5.0). `session.id` and `user.id` are everybody's already.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from runstore.otlp.attributes import Attributes, any_json_or_text, object_of, take_prefixed

_OBSERVATION: Final = "langfuse.observation."
_SAME: Final[Mapping[str, str]] = {
    "langfuse.observation.input": "input.value",
    "langfuse.observation.output": "output.value",
    "langfuse.observation.model.name": "llm.model_name",
    "langfuse.observation.model.parameters": "llm.invocation_parameters",
    "langfuse.trace.tags": "tag.tags",
}
_RUN_TYPES: Final = {
    "generation": "llm",
    "embedding": "embedding",
    "tool": "tool",
    "retriever": "retriever",
    "span": "chain",
    "agent": "chain",
    "chain": "chain",
}
_USAGE: Final[Mapping[str, str]] = {
    "input": "input_tokens",
    "output": "output_tokens",
    "total": "total_tokens",
    # As OpenAI calls them, which Langfuse takes as well.
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
}
_COSTS: Final[Mapping[str, str]] = {"input": "input_cost", "output": "output_cost", "total": "total_cost"}


def translate(attributes: Attributes) -> None:
    """Renames what has another name elsewhere, unless that name is taken; leaves everything else."""
    if not any(key.startswith("langfuse.") for key in attributes):
        return
    for key, other in _SAME.items():
        if key in attributes and other not in attributes:
            attributes[other] = attributes.pop(key)
    run_type = _RUN_TYPES.get(str(attributes.get(f"{_OBSERVATION}type")))
    # Others, such as `guardrail`, say more than a run's type can.
    if run_type is not None and "langsmith.span.kind" not in attributes:
        attributes["langsmith.span.kind"] = run_type
    for prefix in ("langfuse.trace.metadata.", f"{_OBSERVATION}metadata."):
        for key, value in take_prefixed(attributes, prefix).items():
            told = any_json_or_text(value)
            if attributes.setdefault(f"langsmith.metadata.{key}", told) != told:
                attributes[prefix + key] = value
    _translate_usage(attributes)


def _translate_usage(attributes: Attributes) -> None:
    if "langsmith.usage_metadata" in attributes:
        return
    usage: dict[str, Any] = {}
    for key, names in ((f"{_OBSERVATION}usage_details", _USAGE), (f"{_OBSERVATION}cost_details", _COSTS)):
        told = object_of(attributes.get(key)) or {}
        if not all(_is_number(number) for number in told.values()):
            continue
        known = {names[name]: number for name, number in told.items() if name in names}
        usage |= known
        # Kinds of tokens that have no place of their own, or one that is taken, stay where they are.
        if told and len(known) == len(told):
            del attributes[key]
    if usage:
        attributes["langsmith.usage_metadata"] = msgspec.json.encode(usage).decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
