"""What a span received and returned: a run's inputs and outputs.

A payload that a convention gives whole (LangSmith's `gen_ai.prompt`) is the run's as it stands. Else it
is put together of messages, documents and the like; the raw request that instrumentations keep beside
them (`input.value`) is the payload when there is nothing else, and under `raw` when there is.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from runstore.otlp.attributes import Attributes, any_json_or_text, json_or_text, take, take_indexed, unwrapped
from runstore.otlp.messages import (
    Event,
    flat_message,
    genai_messages,
    input_messages_of,
    output_messages_of,
)

Payload = dict[str, Any]

_JSON: Final = "application/json"
_SELF_EVIDENT: Final = (_JSON, "text/plain")
_RAW_INPUTS: Final = ("gen_ai.tool.call.arguments", "input.value", "traceloop.entity.input")
_RAW_OUTPUTS: Final = ("gen_ai.tool.call.result", "output.value", "traceloop.entity.output")


def payloads_of(attributes: Attributes, events: Sequence[Event]) -> tuple[Payload, Payload]:
    """Inputs and outputs; {} for what the span does not say."""
    inputs = _whole(attributes, events, "gen_ai.prompt", "gen_ai.content.prompt", "input")
    outputs = _whole(attributes, events, "gen_ai.completion", "gen_ai.content.completion", "output")
    if not inputs:
        _set(inputs, "messages", _input_messages(attributes, events))
        _set(inputs, "query", take(attributes, ("gen_ai.retrieval.query.text", "reranker.query")))
        _set(inputs, "documents", _documents(attributes, "reranker.input_documents"))
    if not outputs:
        _set(outputs, "messages", _output_messages(attributes, events))
        _set(outputs, "documents", _retrieved(attributes))
    _add_embeddings(attributes, inputs, outputs)
    _add_raw(inputs, attributes, _RAW_INPUTS, "input")
    _add_raw(outputs, attributes, _RAW_OUTPUTS, "output")
    return inputs, outputs


def _whole(attributes: Attributes, events: Iterable[Event], key: str, event: str, name: str) -> Payload:
    """The payload that an attribute holds, or an event; a value that is no object goes below `name`."""
    value = take(attributes, (key,))
    if value is None:
        value = next((told[key] for each, told in events if each == event and key in told), None)
    return {} if value is None else _payload(json_or_text(value), name)


def _input_messages(attributes: Attributes, events: Iterable[Event]) -> list[Any]:
    """Of the first convention that has any; the instructions of the system in front."""
    system = genai_messages(take(attributes, ("gen_ai.system_instructions",)), "system")
    messages = genai_messages(take(attributes, ("gen_ai.input.messages",)), "user")
    messages = messages or _flat_messages(attributes, ("gen_ai.prompt", "llm.prompts", "llm.input_messages"))
    return [*system, *messages] or input_messages_of(events)


def _output_messages(attributes: Attributes, events: Iterable[Event]) -> list[Any]:
    messages = genai_messages(take(attributes, ("gen_ai.output.messages",)), "assistant")
    messages = messages or _flat_messages(
        attributes, ("gen_ai.completion", "llm.completions", "llm.output_messages")
    )
    return messages or output_messages_of(events)


def _flat_messages(attributes: Attributes, prefixes: Iterable[str]) -> list[Any]:
    for prefix in prefixes:
        if found := take_indexed(attributes, prefix):
            return [flat_message(item) for item in found]
    return []


def _retrieved(attributes: Attributes) -> list[Any]:
    told = json_or_text(attributes.get("gen_ai.retrieval.documents"))
    if isinstance(told, list):
        del attributes["gen_ai.retrieval.documents"]
        return [_document(item) for item in told]
    return _documents(attributes, "retrieval.documents") or _documents(
        attributes, "reranker.output_documents"
    )


def _documents(attributes: Attributes, prefix: str) -> list[Any]:
    return [
        _document(unwrapped(item, "document") if isinstance(item, Mapping) else item)
        for item in take_indexed(attributes, prefix)
    ]


def _document(told: Any) -> Any:
    """A document in the shape of LangChain's."""
    if not isinstance(told, Mapping) or "page_content" in told:
        return told
    rest = {key: value for key, value in told.items() if key not in ("content", "metadata")}
    metadata = json_or_text(told.get("metadata"))
    return {
        "type": "Document",
        "page_content": told.get("content"),
        "metadata": {} if metadata is None else metadata,
        **rest,
    }


def _add_embeddings(attributes: Attributes, inputs: Payload, outputs: Payload) -> None:
    """The texts were received, the vectors returned."""
    if "texts" in inputs or "embeddings" in outputs:
        return
    found = take_indexed(attributes, "embedding.embeddings")
    embeddings = [unwrapped(item, "embedding") if isinstance(item, Mapping) else item for item in found]
    texts = [each.pop("text", None) if isinstance(each, dict) else None for each in embeddings]
    if any(text is not None for text in texts):
        inputs["texts"] = texts
    if any(embeddings):
        outputs["embeddings"] = embeddings


def _add_raw(payload: Payload, attributes: Attributes, keys: Iterable[str], name: str) -> None:
    """Raw forms: the first as the payload or beside it; what finds no place stays an attribute."""
    for key in keys:
        value = attributes.get(key)
        if value is None:
            continue
        type_key = f"{key.removesuffix('.value')}.mime_type" if key.endswith(".value") else ""
        mime_type = attributes.get(type_key, _JSON)
        raw = _payload(any_json_or_text(value) if mime_type == _JSON else value, name)
        if not payload:
            payload.update(raw)
        elif raw != payload and payload.setdefault("raw", raw) != raw:
            continue
        del attributes[key]
        if mime_type in _SELF_EVIDENT:
            attributes.pop(type_key, None)


def _payload(value: Any, name: str) -> Payload:
    """A payload is an object."""
    return value if isinstance(value, dict) else {name: value}


def _set(payload: Payload, key: str, value: Any) -> None:
    if value:
        payload[key] = value
