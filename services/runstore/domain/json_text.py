"""Checks JSON payloads and decodes only the parts that a fact needs.

A payload stays the bytes that the client sent. The decoders handed to `decode` name the keys of
interest; msgspec skips everything else, checking its syntax without building objects.
"""

import codecs
import re
from mmap import mmap
from typing import Final, TypeVar

import msgspec

from runstore.domain.errors import RunstoreError, invalid

_T = TypeVar("_T")

_ANY: Final = msgspec.json.Decoder(msgspec.Raw)

# One escape sequence, or a surrogate pair of two. Taking every backslash together with what follows
# keeps an escaped backslash before a plain "ud800" from looking like an escape.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_REPLACEMENT: Final = b"\\ufffd"  # As long as the escape it replaces, so offsets do not move.
_LITERAL_WITH_ESCAPE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_CONTAINERS: Final = frozenset(b"{[")
_UTF8_CHUNK_BYTES: Final = 1 << 20


def check(field: str, raw: bytes) -> None:
    """Raise `invalid(field, ...)` unless `raw` is one JSON value (RFC 8259) in UTF-8.

    Lone surrogate escapes (`"\\ud83d"`, which JavaScript writes for a cut emoji) are within the
    grammar and pass.
    """
    decode(_ANY, field, raw)


def is_plain(raw: bytes) -> bool:
    """Whether `raw` is well-formed JSON that needs no further look: all ASCII, without escaped code units.

    Nearly every payload is; False says nothing about the others.
    """
    if b"\\u" in raw or not raw.isascii():
        return False
    try:
        _ANY.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def check_mapped(field: str, raw: mmap) -> bytes | None:
    """As `check`, for a file; its content with lone surrogate escapes replaced, None when it has none.

    Copies the file only if it has.
    """
    _check_utf8(field, raw)
    try:
        _ANY.decode(raw)
    except msgspec.DecodeError as error:
        replaced = replace_lone_surrogates(raw[:])
        try:
            _ANY.decode(replaced)
        except msgspec.DecodeError:
            raise invalid(field, f"not well-formed JSON: {error}") from error
        return replaced
    except RecursionError:
        raise _too_deep(field) from None
    return None


def decode(decoder: "msgspec.json.Decoder[_T]", field: str, raw: bytes) -> _T | None:
    """What `decoder` reads in `raw`; None when the JSON is well-formed but of another shape.

    Lone surrogate escapes read as U+FFFD. Raises `invalid(field, ...)` for malformed JSON, bytes
    that are not UTF-8, and nesting deeper than the interpreter's recursion limit.
    """
    if not raw.isascii():
        _check_utf8(field, raw)
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        # Raised at the first mismatch: what follows has not been looked at yet.
        if decoder is not _ANY:
            check(field, raw)
        return None
    except msgspec.DecodeError as error:
        # msgspec refuses lone surrogates; retry only where one was found.
        replaced = replace_lone_surrogates(raw)
        if replaced is raw:
            raise invalid(field, f"not well-formed JSON: {error}") from error
        return decode(decoder, field, replaced)
    except RecursionError:
        raise _too_deep(field) from None


def decode_part(decoder: "msgspec.json.Decoder[_T]", part: bytes | msgspec.Raw) -> _T | None:
    """What `decoder` reads in a part of a payload that `decode` has accepted; None for another shape."""
    try:
        return decoder.decode(part)
    except (msgspec.DecodeError, ArithmeticError, RecursionError):
        # Well-formed, but not as the decoder wants it, or with numbers that Python cannot hold.
        return None


def replace_lone_surrogates(raw: bytes) -> bytes:
    """`raw` with `\\ufffd` in place of each escape of half a surrogate pair; `raw` itself if none.

    Strict readers (orjson, msgspec, ClickHouse) refuse such escapes: pass a payload through here
    before it is stored for them.
    """
    if b"\\" not in raw or (b"\\ud" not in raw and b"\\uD" not in raw):
        return raw
    replaced = _ESCAPE.sub(_replace_lone, raw)
    return raw if replaced == raw else replaced


def compact(value: bytes | msgspec.Raw) -> str:
    """A well-formed JSON value as text: no insignificant whitespace, no escape that UTF-8 does not need.

    Numbers, the order of keys and duplicate keys stay as written. Lone surrogates must have been
    replaced before.
    """
    text = bytes(value)
    if text[0] in _CONTAINERS:
        text = msgspec.json.format(text, indent=-1)
    if b"\\" in text:
        text = _LITERAL_WITH_ESCAPE.sub(_rewrite_literal, text)
    return text.decode()


def _replace_lone(escape: re.Match[bytes]) -> bytes:
    return _REPLACEMENT if escape.group(1) else escape.group()


def _rewrite_literal(literal: re.Match[bytes]) -> bytes:
    text = literal.group()
    return msgspec.json.encode(msgspec.json.decode(text, type=str)) if b"\\" in text else text


def _check_utf8(field: str, raw: bytes | mmap) -> None:
    try:
        if isinstance(raw, bytes) and len(raw) <= _UTF8_CHUNK_BYTES:
            raw.decode()
            return
        # In chunks: the text of a large payload would take up to four times its size.
        decoder = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(raw), _UTF8_CHUNK_BYTES):
            decoder.decode(raw[start : start + _UTF8_CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise invalid(field, "not UTF-8") from error


def _too_deep(field: str) -> RunstoreError:
    return invalid(field, "nested too deeply")
