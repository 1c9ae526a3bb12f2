"""Ways to break things: bytes, JSON values and protobuf messages on the wire."""

import json
import random
from collections.abc import Callable
from typing import Any

RUN_ID = "0190c8a0-1111-7000-8000-000000000001"
_DEEP = 3_000

BYTE_STRINGS = (
    b"\x00", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\r\n", b"\n", b"--", b'"', b"\\", b"{", b"}", b"[",
    b"NaN", b"-Infinity", b"1e999", b"\\ud800", b"\\u0000", b":", b",", b"null", b"\r\n\r\n", b"%00", b"\x80" * 12,
)  # fmt: skip

ODD_IDS = (
    "", "x", RUN_ID.upper(), RUN_ID.replace("-", ""), RUN_ID + "0", RUN_ID[:-1], "{" + RUN_ID + "}",
    "urn:uuid:" + RUN_ID, "0" * 36, "\u0661" * 36, RUN_ID.replace("-", "\u2010"), RUN_ID + "\n",
    "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
)  # fmt: skip

ODD_TIMES = (
    "", "now", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z",
    "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0000-00-00T00:00:00Z", "2026-01-01", "20260101T000000Z",
    "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00-23:59", "2026-01-01T00:00:00.1234567890123Z",
    "2026-W01-1", "1900-01-01T00:00:00Z", "1899-12-31T23:59:59.999999Z", "2262-04-11T23:47:16.854776Z",
    "2026-01-01T00:00:00\u0660Z", " 2026-01-01T00:00:00Z", "2026-01-01t00:00:00z", "-2026-01-01T00:00:00Z",
    0, -1, 1.5, 1e300, -1e300, 1_795_000_000, 1_795_000_000_000, 2**63, 2**70, 20_000_000_001,
)  # fmt: skip

ODD_ORDERS = (
    "", ".", f"20260101T000000000000Z{RUN_ID}.", f".20260101T000000000000Z{RUN_ID}", "20260101T000000000000Z",
    f"20261301T000000000000Z{RUN_ID}", f"20260101T250000000000Z{RUN_ID}", f"00000101T000000000000Z{RUN_ID}",
    f"99991231T235959999999Z{RUN_ID}", f"20260101T000000000000z{RUN_ID}", f"20260101T000000000000Z{RUN_ID.upper()}",
    ".".join([f"20260101T000000000000Z{RUN_ID}"] * 2), ".".join([f"20260101T000000000000Z{RUN_ID}"] * 1_001),
    f"\u0662\u0660260101T000000000000Z{RUN_ID}",
)  # fmt: skip

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**300, 1e308, 5e-324, "", "x",
    "x" * 5_000, "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\U0001f600", "\ufeff", "\u202e", [], {}, [[]], [None],
    [1], ["\ud83d"], {"": ""}, {"\x00": 1}, {"\ud800": 1}, [{}] * 50, {"metadata": []}, {"metadata": {"a": {}}},
    {"metadata": None}, {"metadata": {"usage_metadata": {"input_tokens": -1, "output_tokens": 2**70}}},
    {"usage_metadata": {"input_tokens": 2**63, "total_tokens": 1e300, "input_token_details": {"x": []}}},
    {"usage_metadata": {"input_tokens": 1, "output_tokens": "x", "input_cost": 1e40, "total_cost": -1e-30}},
    {"llm_output": {"token_usage": {"prompt_tokens": 2**62, "completion_tokens": 2**62}}},
    {"messages": [{"role": 5, "content": [[[]]]}]}, {"generations": [[{"message": {"kwargs": 5}}]]},
    {"metadata": {"ls_model_name": "gpt-4o", "ls_provider": [], "thread_id": {}, "session_id": 10**40}},
    [{"name": "new_token", "time": "x"}], [{"name": 5, "time": -1}], [{"name": "new_token", "time": 10**30}],
    {"metadata": {"k" * 300: "v" * 3_000}}, {"metadata": {"k": 1e999}},
)  # fmt: skip

RAW_JSON = (
    b"NaN", b"Infinity", b"1e999", b"-0", b"01", b"1" * 5_000, b"[" * _DEEP, b"[" * 200 + b"]" * 200,
    b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * 900 + b"1" + b"}" * 900, b'"\\ud800"', b'"\\uD83D"', b'"\\x"',
    b'"\xff"', b'"\xed\xa0\x80"', b'"\n"', b'{"a":1,"a":2}', b"nul", b"", b" ", b"1 2", b"/**/1", b"'x'",
    b'{"metadata":{"a":1,"a":2},"metadata":{"b":1}}', b"1.7976931348623157e309", b"\xef\xbb\xbf1",
)  # fmt: skip


# -- bytes -------------------------------------------------------------------------------------------


def broken_bytes(chance: random.Random, data: bytes) -> bytes:
    """`data` with one to three places changed."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(_BYTE_MUTATIONS)(chance, data)
    return data


def _place(chance: random.Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 2, 4, 16, 64, 1_000)))


def _flip(chance: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes) -> bytes:
    start, end = _place(chance, data)
    return data[:start] + data[end:]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    start, end = _place(chance, data)
    return data[:end] + data[start:end] * chance.choice((1, 2, 20)) + data[end:]


def _insert(chance: random.Random, data: bytes) -> bytes:
    start, _ = _place(chance, data)
    return data[:start] + chance.choice(BYTE_STRINGS) + data[start:]


def _overwrite(chance: random.Random, data: bytes) -> bytes:
    start, end = _place(chance, data)
    return data[:start] + chance.randbytes(end - start) + data[end:]


def _end_early(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _move(chance: random.Random, data: bytes) -> bytes:
    start, end = _place(chance, data)
    rest = data[:start] + data[end:]
    at = chance.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


_BYTE_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _cut, _repeat, _insert, _overwrite, _end_early, _move,
)  # fmt: skip


# -- JSON --------------------------------------------------------------------------------------------


class RawJson:
    """Text that stands in a JSON document as it is, whether it is JSON or not."""

    def __init__(self, text: bytes) -> None:
        self.text = text


def json_text(value: Any, *, ascii_only: bool) -> bytes:
    """Like `json.dumps`, with `RawJson` anywhere, and lone surrogates in UTF-8 when not `ascii_only`."""
    raws: list[bytes] = []

    def raw(found: Any) -> str:
        raws.append(found.text)
        return f"@@raw{len(raws) - 1}@@"

    text = json.dumps(value, default=raw, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    for number, each in enumerate(raws):
        text = text.replace(b'"@@raw%d@@"' % number, each)
    return text


def broken_run(chance: random.Random, run: dict[str, Any]) -> dict[str, Any]:
    """A run's JSON with one to three keys missing, unknown, or with a value that is odd for them."""
    run = dict(run)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        key = chance.choice((*run, "end_time", "outputs", "events", "error", "parent_run_id", "session_id"))
        match chance.randrange(8):
            case 0:
                run.pop(key, None)
            case 1:
                run["unheard_of"] = chance.choice(ODD_VALUES)
            case 2:
                run[key] = RawJson(chance.choice(RAW_JSON))
            case 3 if run.get(key):
                run[key] = broken_inside(chance, run[key])
            case _:
                run[key] = odd_value(chance, key)
    return run


def odd_value(chance: random.Random, key: str) -> Any:
    """Something that looks like a value of the key, or not at all."""
    likely: tuple[Any, ...] = ()
    if key.endswith("id"):
        likely = ODD_IDS
    elif key.endswith("time"):
        likely = ODD_TIMES
    elif key == "dotted_order":
        likely = ODD_ORDERS
    return chance.choice(likely) if likely and chance.random() < 0.7 else chance.choice(ODD_VALUES)


def broken_inside(chance: random.Random, value: Any) -> Any:
    """The value with something below it replaced, or itself."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        return {**value, key: broken_inside(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], broken_inside(chance, value[at]), *value[at + 1 :]]
    return RawJson(chance.choice(RAW_JSON)) if chance.random() < 0.3 else chance.choice(ODD_VALUES)


# -- protobuf ----------------------------------------------------------------------------------------


def broken_message(chance: random.Random, data: bytes) -> bytes:
    """A serialized message with a field's tag, length or content corrupted, at any depth."""
    fields = _fields(data)
    if not fields or chance.random() < 0.15:
        return broken_bytes(chance, data)
    start, content, end = chance.choice(fields)
    head, body, tail = data[:start], data[content:end], data[end:]
    tag_and_length = data[start:content]
    match chance.randrange(8):
        case 0:  # Out.
            return head + tail
        case 1:  # Twice.
            return head + data[start:end] * chance.choice((2, 3)) + tail
        case 2:  # Another number or wire type.
            return (
                head
                + varint(chance.choice((0, 1, 2, 3, 4, 5, 7, 15, 26, 0x7FFFFFFF, 2**35)))
                + data[start + 1 :]
            )
        case 3:  # Another length.
            length = chance.choice(
                (0, 1, len(body) + 1, max(0, len(body) - 1), 2**31 - 1, 2**31, 2**32, 2**63)
            )
            return head + data[start : start + 1] + varint(length) + body + tail
        case 4:  # A varint without end.
            return head + data[start : start + 1] + b"\xff" * chance.choice((9, 10, 11, 40)) + tail
        case 5:  # Groups, as deep as it gets.
            return head + b"\x0b" * chance.choice((1, 99, 101, 5_000)) + tail
        case 6:  # Below, with the lengths above put right.
            inner = broken_message(chance, body)
            return head + data[start : start + 1] + varint(len(inner)) + inner + tail
    return head + tag_and_length + broken_bytes(chance, body) + tail


def _fields(data: bytes) -> list[tuple[int, int, int]]:
    """Length-delimited fields of one level: beginning, beginning of the content, end."""
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(data) and data[at] & 0x07 == 2 and data[at] < 0x80:
        length, content = _read_varint(data, at + 1)
        if length < 0 or content + length > len(data):
            break
        found.append((at, content, content + length))
        at = content + length
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(data) and shift < 64:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    return -1, at


def varint(value: int) -> bytes:
    """As protobuf writes an unsigned number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
