"""JSON payloads: what is refused, what is read leniently, and how values are normalised."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain import json_text
from runstore.domain.errors import ErrorReason, RunstoreError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MALFORMED = [
    b"",
    b" ",
    b"{",
    b'{"a":',
    b'{"a":1,}',
    b"[1,]",
    b"nul",
    b"NaN",
    b'{"a":Infinity}',
    b"01",
    b'{"a":+1}',
    b"{'a':1}",
    b"{1:2}",
    b'{"a":1} {}',
    b'"\x01"',
    b'"\\x"',
    b'"\\u12"',
    b"\xef\xbb\xbf{}",
]
NOT_UTF8 = [b'"\xff"', b'{"a":"\xc3"}', b'{"\xed\xa0\x80":1}']
_STRING = msgspec.json.Decoder(str)


@pytest.mark.parametrize("raw", MALFORMED)
def test_malformed_json_is_refused(raw: bytes) -> None:
    """What is no JSON is refused with the field's name, without the payload in the message."""
    with pytest.raises(RunstoreError) as refusal:
        json_text.check("inputs", raw)
    assert refusal.value.reason is ErrorReason.INVALID_ARGUMENT
    assert refusal.value.field == "inputs"


@pytest.mark.parametrize("raw", NOT_UTF8)
def test_bytes_other_than_utf8_are_refused(raw: bytes) -> None:
    """msgspec skips strings without looking at their encoding; the check does look."""
    with pytest.raises(RunstoreError, match="UTF-8"):
        json_text.check("inputs", raw)


@pytest.mark.parametrize("split_at", [-1, 0, 1])
def test_large_payloads_are_checked_across_chunks(split_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A character on the border of two chunks is one character, and a bad byte there is found."""
    monkeypatch.setattr(json_text, "_UTF8_CHUNK_BYTES", 8)
    head = b'"' + b"x" * (7 + split_at)
    json_text.check("inputs", head + "é€😀".encode() * 5 + b'"')
    for bad in (b"\xe2\x82", b"\x80", b"\xf0\x9f\x98"):
        with pytest.raises(RunstoreError, match="UTF-8"):
            json_text.check("inputs", head + bad + b'"')


def test_too_deep_nesting_is_refused() -> None:
    """Nesting beyond the recursion limit is a refusal, not a RecursionError."""
    for raw in (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000):
        with pytest.raises(RunstoreError, match="deep"):
            json_text.check("inputs", raw)


def test_a_mismatch_does_not_hide_malformed_json_behind_it() -> None:
    """A value of another shape reads as None only if all of the text is JSON."""
    assert json_text.decode(_STRING, "inputs", b"[1, 2]") is None
    with pytest.raises(RunstoreError):
        json_text.decode(_STRING, "inputs", b"[1, 2")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'"a\\ud83db"', "a\ufffdb"),
        (b'"\\udc00\\uD83D"', "\ufffd\ufffd"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\ud83d\\ud83d\\ude00"', "\ufffd😀"),
        (b'"\\\\ud83d"', "\\ud83d"),
        (b'"\\\\\\ud83d"', "\\\ufffd"),
    ],
)
def test_lone_surrogates_read_as_replacement_characters(raw: bytes, text: str) -> None:
    """Half a surrogate pair, as JavaScript writes a cut emoji, is JSON; pairs and text stay."""
    json_text.check("inputs", raw)
    assert json_text.decode(_STRING, "inputs", raw) == text
    assert json.loads(json_text.replace_lone_surrogates(raw)) == text


def test_payloads_without_lone_surrogates_are_not_copied() -> None:
    """The common case returns the very object."""
    for raw in (b'{"a": "b"}', b'"\\ud83d\\ude00"', b'"\\\\ud83d"'):
        assert json_text.replace_lone_surrogates(raw) is raw


@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_compact_text_means_the_same(value: object, escaped: bool, indent: int | None) -> None:
    """However a value was spelled, its compact text is the same and reads back as the value."""
    raw = json.dumps(value, ensure_ascii=escaped, indent=indent).encode("utf-8", "replace")
    raw = json_text.replace_lone_surrogates(raw)
    text = json_text.compact(raw)
    assert json.loads(text) == json.loads(raw)
    assert text == json_text.compact(json.dumps(json.loads(raw), separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{ "a" : [ 1.50 , 1e400, null ] }', '{"a":[1.50,1e400,null]}'),
        (b'"\\u00e9 \\n \\/ \\u0000"', '"é \\n / \\u0000"'),
        (b'{"b":1,"a":2,"b":3}', '{"b":1,"a":2,"b":3}'),
    ],
)
def test_compact_text_keeps_numbers_and_order(raw: bytes, text: str) -> None:
    """Numbers stay as written, keys in order; only space and needless escapes go."""
    assert json_text.compact(raw) == text


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:\\ud8e1 ', max_size=40).map(str.encode))
def test_any_bytes_are_accepted_or_refused(raw: bytes) -> None:
    """Nothing but RunstoreError comes out, and what is accepted is what the stdlib accepts too."""
    try:
        json_text.check("inputs", raw)
    except RunstoreError:
        return
    json.loads(raw)
