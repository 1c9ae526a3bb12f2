"""Previews: what a person reads in a list of runs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain.previews import MAX_CHARS, error_preview, preview

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud83d", "a" * 400])
)
KEYS = st.text(max_size=3) | st.sampled_from(
    [
        "messages",
        "choices",
        "generations",
        "content",
        "text",
        "role",
        "output",
        "name",
        "arguments",
        "tool_calls",
    ]
)
JSON_VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def of(value: object) -> str:
    return preview(json.dumps(value).encode())


def generation(**kwargs: object) -> dict[str, object]:
    message = {"lc": 1, "type": "constructor", "id": ["langchain", "AIMessage"], "kwargs": kwargs}
    return {"generations": [[{"text": kwargs.get("content", ""), "message": message}]], "llm_output": {}}


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ("hi", "hi"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "a"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "b"}]}
                ]
            },
            "b",
        ),
        ({"messages": [[{"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {"content": "c"}}]]}, "c"),
        ({"messages": [["user", "d"]]}, "d"),
        ([{"role": "user", "content": "e"}], "e"),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "f"}, {"type": "text", "text": "g"}]},
            "f g",
        ),
        ({"choices": [{"message": {"role": "assistant", "content": "h"}}], "usage": {}}, "h"),
        ({"choices": [{"text": "i"}]}, "i"),
        (generation(content="j"), "j"),
        (generation(content="", tool_calls=[{"name": "k", "args": {"l": 1}}]), 'k({"l":1})'),
        ({"candidates": [{"content": {"parts": [{"text": "m"}]}}]}, "m"),
        ({"output": [{"type": "reasoning"}, {"type": "message", "content": [{"text": "n"}]}]}, "n"),
        ({"output": {"role": "assistant", "content": "o"}}, "o"),
        ({"question": "p"}, "p"),
        ({"output": "q", "error": None}, "q"),
        ({"input": {"question": "r"}}, "r"),
    ],
)
def test_text_is_found(payload: object, line: str) -> None:
    """The text of the last message, of the answer, or the only string there is."""
    assert of(payload) == line


def test_tool_calls_stand_for_a_message_without_text() -> None:
    """OpenAI's answer with null content shows what the model wants to call."""
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": "x"}'}}
    payload = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}
    assert of(payload) == 'search({"q": "x"})'


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b'{"a": 1, "b": [true, null]}', '{"a":1,"b":[true,null]}'),
        (b'{"a":"x: y, z","b":2}', '{"a":"x: y, z","b":2}'),
        (b'{"a":"\\u00e9\\ud83d\\ude00\\ud83d","b":2}', '{"a":"é😀\ufffd","b":2}'),
        (b'{"a":"x\\ny","b":2}', '{"a":"x y","b":2}'),
        (b"{}", "{}"),
        (b'{"messages":[]}', '{"messages":[]}'),
        (b"null", "null"),
        (b"1e999", "1e999"),
    ],
)
def test_other_payloads_show_their_json(raw: bytes, line: str) -> None:
    """Compact, with letters instead of escapes."""
    assert preview(raw) == line


def test_white_space_and_control_characters_collapse() -> None:
    """One line, whatever the text holds; terminal escapes lose their teeth."""
    assert of("  a\n\n b\t\u00a0c\x00\x1b[31m d\u2028e ") == "a b c [31m d e"
    assert of("a\ud83db") == "a\ufffdb"


@pytest.mark.parametrize("text", ["x" * 251, "word " * 100, "é" * 5000, "\n x" * 400])
def test_long_text_ends_in_an_ellipsis(text: str) -> None:
    """250 characters at most, and the cut can be seen."""
    line = of(text)
    assert MAX_CHARS - 10 <= len(line) <= MAX_CHARS
    assert line.endswith("…")
    assert of("x" * MAX_CHARS) == "x" * MAX_CHARS


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
@pytest.mark.parametrize("offset", range(4))
def test_huge_payloads_show_their_beginning(letter: str, offset: int) -> None:
    """Above a limit the JSON is not parsed; the cut falls between characters."""
    text = "a" * offset + letter * 300_000
    line = preview(json.dumps({"k": text}, ensure_ascii=False).encode())
    assert line == f'{{"k":"{text}'[: MAX_CHARS - 1] + "…"
    escaped = preview(json.dumps({"k": text}).encode())
    assert escaped == line


@pytest.mark.parametrize("spaces", range(2_980, 2_996))
def test_a_cut_character_is_not_shown(spaces: int) -> None:
    """Where white space brings the end of what is read into view, no broken character is seen."""
    raw = b'{"a":' + b"\n" * spaces + b'"' + "😀".encode() * 100_000 + b'"}'
    assert preview(raw).strip("😀…") in ('{"a":', '{"a":"')


def test_only_the_beginning_of_a_huge_payload_is_read() -> None:
    """The rest may even be something else than JSON."""
    assert preview(b'{"k":"' + b"x" * 1_000_000).endswith("x…")


@pytest.mark.parametrize("raw", [b"", b" ", b"{", b'{"a', b"\xff\xfe", b"[" * 100_000, b'"\\ud800', b"[[]"])
def test_malformed_json_does_not_raise(raw: bytes) -> None:
    """Refusing is another's business; a preview only shows."""
    assert len(preview(raw)) <= MAX_CHARS


@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_any_json_gives_one_short_line(value: object, escaped: bool, indent: int | None) -> None:
    """At most 250 printable characters without line breaks, and never an exception."""
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    line = preview(text.encode("utf-8", "surrogatepass"))
    assert len(line) <= MAX_CHARS
    assert line == " ".join(line.split())
    line.encode()
    assert line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("boom", "boom"),
        ("", ""),
        ("ValueError('x')Traceback (most recent call last):\n\n  File y", "ValueError('x')"),
        ("Traceback (most recent call last):\n  File y\nKeyError: 'z'\n", "KeyError: 'z'"),
        ("\nTraceback (most recent call last):", "Traceback (most recent call last):"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("a\n b", "a b"),
    ],
)
def test_errors_show_what_was_raised(text: str, line: str) -> None:
    """The exception without the frames, whether it stands before them or after."""
    assert error_preview(text) == line


@given(st.text())
def test_any_error_gives_one_short_line(text: str) -> None:
    """Errors are free text, too."""
    assert len(error_preview(text * 20)) <= MAX_CHARS
