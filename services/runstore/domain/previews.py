"""Tells in one short line what is in a payload, for lists of runs.

Knows the shapes of chat messages (OpenAI, Anthropic, Gemini, LangChain); every other payload is
shown as its own JSON. Source: contract runs-v1, section 9 (`inputs_preview`, 250 characters).
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from runstore.domain import json_text

MAX_CHARS: Final = 250

# Larger payloads are not parsed: their beginning is shown.
_MAX_PARSED_BYTES: Final = 1 << 18
# Enough of a text that 250 characters remain after whitespace has been collapsed, unless it is odd.
_LEADING_CHARS: Final = 2 * MAX_CHARS
# The same of a JSON text, where a character may be an escaped surrogate pair of 12 bytes.
_LEADING_BYTES: Final = 12 * MAX_CHARS
_MAX_DEPTH: Final = 8
_ELLIPSIS: Final = "…"

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)
_QUOTE, _BRACE, _BRACKET = b'"{['

# Where a payload holds a conversation or its answer, by precedence, and which item of a list tells it.
_FIRST: Final = 0
_LAST: Final = -1
_CONVERSATIONS: Final = (
    ("messages", _LAST),
    ("choices", _FIRST),
    ("generations", _FIRST),
    ("candidates", _FIRST),
)
# Where a message, a generation or one part of a message holds its text, by precedence.
_TEXT_KEYS: Final = ("text", "content", "parts", "message", "kwargs", "delta", "refusal")
_CALL_KEYS: Final = ("tool_calls", "function", "functionCall", "function_call")
_MESSAGE_MARKS: Final = frozenset({"role", "content", "kwargs"})
_ANSWER_KEYS: Final = ("output", "outputs")

_SPACED: Final = '": '  # Written by encoders that put spaces between tokens.
_TOKEN_OR_SPACE: Final = re.compile(r'("(?:[^"\\]|\\.)*+"?)|\s+', re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL
)
_TRACEBACK: Final = "Traceback (most recent call last):"


def preview(raw: bytes) -> str:
    """One line of at most 250 characters about `inputs` or `outputs` (JSON); never raises.

    The last message's text, a generation's or choice's text, or the only string there is; otherwise
    the beginning of the JSON. Bytes that are not UTF-8 show as U+FFFD.
    """
    if len(raw) <= _MAX_PARSED_BYTES:
        try:
            told = _told(raw)
        except (ValueError, RecursionError):  # malformed, or deeper than a message can be
            told = ""
        line = _line(told)
        if line:
            return line
    return _line(_leading_json(raw), is_cut=len(raw) > _LEADING_BYTES)


def error_preview(text: str) -> str:
    """One line of at most 250 characters about an error: what was raised, without its traceback."""
    start = text.find(_TRACEBACK)
    if start == 0:
        last = text.rstrip().rpartition("\n")[2].strip()
        if last != _TRACEBACK:
            return _line(last)
    return _line(text[:start] if start > 0 and not text[:start].isspace() else text)


def _told(raw: bytes) -> str:
    """The text that stands for the whole payload; "" when its JSON does."""
    raw = json_text.replace_lone_surrogates(raw.strip())
    if not raw:
        return ""
    if raw[0] == _QUOTE:
        return _STRING.decode(raw)
    if raw[0] == _BRACKET:
        items = _ITEMS.decode(raw)
        return _message(items[_LAST], 0) if items else ""
    if raw[0] != _BRACE:
        return ""
    keys = _OBJECT.decode(raw)
    return _conversation(keys) or _only_string(keys)


def _conversation(keys: Mapping[str, msgspec.Raw]) -> str:
    """The text of a payload that is a conversation, an answer or a single message."""
    for key, which in _CONVERSATIONS:
        if key in keys:
            text = _item(keys[key], which, 0)
            if text:
                return text
    if not _MESSAGE_MARKS.isdisjoint(keys):
        text = _message_of(keys, 0)
        if text:
            return text
    for key in _ANSWER_KEYS:
        if key in keys and memoryview(keys[key])[0] != _QUOTE:
            text = _item(keys[key], _LAST, 0)
            if text:
                return text
    return ""


def _only_string(keys: Mapping[str, msgspec.Raw]) -> str:
    """The string that is the only leaf of an object, nulls and single-key objects around it aside."""
    for _ in range(_MAX_DEPTH):
        leaves = [value for value in keys.values() if memoryview(value)[0] != ord("n")]
        if len(leaves) != 1:
            return ""
        first = memoryview(leaves[0])[0]
        if first == _QUOTE:
            return _STRING.decode(leaves[0])
        if first != _BRACE:
            return ""
        keys = _OBJECT.decode(leaves[0])
    return ""


def _item(raw: msgspec.Raw, which: int, depth: int) -> str:
    """The text of one item of a list, of lists in lists too; of anything else its own."""
    while memoryview(raw)[0] == _BRACKET and depth < _MAX_DEPTH:
        items = _ITEMS.decode(raw)
        if not items:
            return ""
        raw, depth = items[which], depth + 1
    return _message(raw, depth)


def _message(raw: msgspec.Raw, depth: int) -> str:
    """The text of a message or of one of its parts; "" when it has none."""
    first = memoryview(raw)[0]
    if first == _QUOTE:
        return _STRING.decode(raw)
    if depth > _MAX_DEPTH:
        return ""
    if first == _BRACE:
        return _message_of(_OBJECT.decode(raw), depth)
    if first == _BRACKET:
        parts: list[str] = []
        for part in _ITEMS.decode(raw):
            text = _message(part, depth + 1)
            if text:
                parts.append(text)
            if sum(map(len, parts)) > _LEADING_CHARS:
                break
        return " ".join(parts)
    return ""


def _message_of(keys: Mapping[str, msgspec.Raw], depth: int) -> str:
    for key in _TEXT_KEYS:
        if key in keys:
            text = _message(keys[key], depth + 1)
            if text:
                return text
    if "name" in keys and ("arguments" in keys or "args" in keys or "input" in keys):
        return _call(keys)
    for key in _CALL_KEYS:
        if key in keys:
            text = _message(keys[key], depth + 1)
            if text:
                return text
    if "additional_kwargs" in keys:
        return _message(keys["additional_kwargs"], depth + 1)
    return ""


def _call(keys: Mapping[str, msgspec.Raw]) -> str:
    """A tool call as `name(arguments)`."""
    name = json_text.decode_part(_STRING, keys["name"]) or ""
    arguments = keys.get("arguments") or keys.get("args") or keys.get("input") or msgspec.Raw(b'""')
    if memoryview(arguments)[0] == _QUOTE:
        return f"{name}({_STRING.decode(arguments)})"
    return f"{name}({_leading_json(bytes(arguments))})"


def _leading_json(raw: bytes) -> str:
    """The beginning of a JSON text, without the space between its tokens and with its letters unescaped."""
    text = raw[:_LEADING_BYTES].decode(errors="replace")
    if len(raw) > _LEADING_BYTES:
        text = text.rstrip("\ufffd")  # the cut may have hit the middle of a character
    if _SPACED in text or "\n" in text:
        text = _TOKEN_OR_SPACE.sub(r"\1", text)
    return _ESCAPE.sub(_unescape, text) if "\\" in text else text


def _unescape(escape: re.Match[str]) -> str:
    """The letter that an escape stands for; escapes that keep JSON readable as JSON stay."""
    high, low, unit, _ = escape.groups()
    if high is not None:
        return (bytes.fromhex(high) + bytes.fromhex(low)).decode("utf-16-be")
    if unit is not None:
        code = int(unit, 16)
        if 0xD800 <= code <= 0xDFFF:
            return "\ufffd"
        return chr(code) if code >= 0xA0 else escape.group()
    return " " if escape.group() in (r"\n", r"\r", r"\t") else escape.group()


def _line(text: str, *, is_cut: bool = False) -> str:
    """The beginning of `text` as one printable line of at most `MAX_CHARS` characters.

    An ellipsis says that there is more, in `text` or (`is_cut`) behind it.
    """
    first = text[:MAX_CHARS]
    if first.isprintable() and "  " not in first and not is_cut and first == first.strip():
        return first if len(text) <= MAX_CHARS else first[: MAX_CHARS - 1].rstrip() + _ELLIPSIS
    leading = text.lstrip()[:_LEADING_CHARS] if text[:1].isspace() else text[:_LEADING_CHARS]
    line = " ".join(leading.split())
    if not line.isprintable():
        line = " ".join("".join(map(_printable, line)).split())
    if is_cut or len(line) > MAX_CHARS or len(leading) == _LEADING_CHARS < len(text):
        return line[: MAX_CHARS - 1].rstrip() + _ELLIPSIS
    return line


def _printable(char: str) -> str:
    """Control characters become spaces and halves of surrogate pairs U+FFFD; all others stay."""
    code = ord(char)
    if code < 0x20 or 0x7F <= code < 0xA0:
        return " "
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else char
