"""Messages of every convention in one shape, OpenAI's: role, content, tool calls; other keys are kept.

Sources: OpenTelemetry's JSON schemas of `gen_ai.input.messages`, OpenInference's semantic conventions,
OpenLLMetry's `gen_ai.prompt.{n}`, and the message events of OpenTelemetry up to 1.36.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from runstore.otlp.attributes import Attributes, json_or_text, nested, text_of, unwrapped

Event = tuple[str, Attributes]
"""(name, attributes)"""

_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_CHOICE: Final = "gen_ai.choice"
_DETAILS: Final = "gen_ai.client.inference.operation.details"


def genai_messages(told: Any, role: str) -> list[Any]:
    """Messages of parts (`gen_ai.input.messages`), and bare parts, which are one message of `role`."""
    told = json_or_text(told)
    if not isinstance(told, list):
        return [] if told is None else [{"role": role, "content": told}]
    if told and all(isinstance(item, dict) and "parts" not in item and "role" not in item for item in told):
        return _from_parts({"role": role, "parts": told})
    return [
        message
        for item in told
        for message in (_from_parts(item) if isinstance(item, dict) else [{"role": role, "content": item}])
    ]


def flat_message(told: Any) -> dict[str, Any]:
    """A message that was spelled by indexed keys, OpenLLMetry's or OpenInference's."""
    if not isinstance(told, Mapping):
        return {"content": told}
    message = unwrapped(told, "message")
    if "content" not in message and isinstance(message.get("contents"), list):
        message["content"] = [_content_part(item) for item in message.pop("contents")]
    return _tidied(message)


def input_messages_of(events: Iterable[Event]) -> list[Any]:
    """The messages that events say a model received."""
    messages: list[Any] = []
    for name, told in events:
        if name in _ROLES:
            message = _event_message(told, _ROLES[name])
            if message["role"] == "tool" and "id" in message:
                message.setdefault("tool_call_id", message.pop("id"))
            messages.append(message)
        elif name == _DETAILS:
            messages += genai_messages(told.get("gen_ai.system_instructions"), "system")
            messages += genai_messages(told.get("gen_ai.input.messages"), "user")
    return messages


def output_messages_of(events: Iterable[Event]) -> list[Any]:
    """The messages that events say a model returned."""
    messages: list[Any] = []
    for name, told in events:
        if name == _CHOICE:
            messages.append(_event_message(told, "assistant"))
        elif name == _DETAILS:
            messages += genai_messages(told.get("gen_ai.output.messages"), "assistant")
    return messages


def _from_parts(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One message, and one more for each answer of a tool in it."""
    parts = told.get("parts")
    if not isinstance(parts, list):
        return [_tidied(dict(told))]
    about = {key: value for key, value in told.items() if key != "parts"}
    content: list[Any] = []
    calls: list[Any] = []
    answers: list[dict[str, Any]] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and "text" not in part:
            content.append({**_without(part, "content"), "text": part.get("content")})
        elif kind == "tool_call":
            calls.append(_tool_call(part))
        elif kind == "tool_call_response":
            answers.append(_tool_answer(about, part))
        else:
            content.append(part)
    if answers and not content and not calls:
        return answers
    is_plain = len(content) == 1 and _keys(content[0]) == {"type", "text"}
    message = {**about, "content": content[0]["text"] if is_plain else content or ""}
    if calls:
        message["tool_calls"] = calls
    return [message, *answers]


def _event_message(told: Attributes, role: str) -> dict[str, Any]:
    """The body of an event; what it says about the call (`gen_ai.…`) is no part of the message."""
    whole = json_or_text(told.get("gen_ai.event.content"))
    body = nested({key: value for key, value in told.items() if not key.startswith("gen_ai.")})
    if isinstance(whole, dict):
        body |= whole
    if "message" in body:
        inner = json_or_text(body["message"])
        body["message"] = inner if isinstance(inner, dict) else {"content": inner}
        body = unwrapped(body, "message")
    return {"role": role, **_tidied(body)}


def _tidied(message: dict[str, Any]) -> dict[str, Any]:
    """Content parts that were written as JSON are read; tool calls have one shape."""
    parts = json_or_text(message.get("content"))
    # Only a list of objects: an answer that happens to be JSON is a text.
    if isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts):
        message["content"] = parts
    calls = json_or_text(message.get("tool_calls"))
    if isinstance(calls, list):
        message["tool_calls"] = [_tool_call(call) for call in calls]
    return message


def _content_part(told: Any) -> Any:
    """OpenInference's `message_content`."""
    part = told["message_content"] if _keys(told) == {"message_content"} else told
    is_image = _keys(part) == {"type", "image"} and part["type"] == "image"
    if is_image and _keys(part["image"]) == {"image"} and isinstance(part["image"]["image"], Mapping):
        return {"type": "image_url", "image_url": part["image"]["image"]}
    return part


def _tool_call(told: Any) -> Any:
    if not isinstance(told, Mapping):
        return told
    call = unwrapped(told, "tool_call")
    function = call.pop("function", {})
    if not isinstance(function, Mapping):
        return told
    function = dict(function)
    for key in ("name", "arguments"):
        if key in call and key not in function:
            function[key] = call.pop(key)
    if "arguments" in function:
        function["arguments"] = text_of(function["arguments"])
    if call.get("type") == "tool_call":
        del call["type"]
    return {"id": None, "type": "function", **call, "function": function}


def _tool_answer(about: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """What a tool returned, as a message of its own."""
    answer = {**about, "role": "tool", "tool_call_id": part.get("id")}
    for key in ("response", "result"):
        if "content" not in answer and key in part:
            answer["content"] = text_of(part[key])
            part = _without(part, key)
    return unwrapped({**answer, "part": _without(part, "type", "id")}, "part")


def _keys(told: Any) -> set[str]:
    return set(told) if isinstance(told, Mapping) else set()


def _without(told: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key not in keys}
