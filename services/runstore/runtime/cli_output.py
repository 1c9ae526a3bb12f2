"""How commands show messages of the store: sizes, times and ages for people, plain JSON for programs."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_KIB = 1_024


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def echo_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Rows of texts in columns on standard output, the first row their titles."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON knows it: times as RFC 3339, durations as seconds, what is absent as null.

    Unlike protobuf's own mapping it keeps 64-bit integers numbers, which is what `jq` wants.
    """
    return {field.name: _plain_field(message, field) for field in message.DESCRIPTOR.fields}


def _plain_field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_plain_value(item, field) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _plain_value(value, field)


def _plain_value(value: Any, field: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return value.ToTimedelta().total_seconds()
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def size_text(size_bytes: float) -> str:
    """`512 B`, `3.4 MiB`."""
    unit = 0
    while size_bytes >= _KIB and unit < len(_UNITS) - 1:
        size_bytes /= _KIB
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """`250 ms`, `4.2 s`, `3 min 20 s`, `5 h 10 min`, `2 d 3 h`."""
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller_size, smaller in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("seconds are at least sixty here")


def age(time: Timestamp) -> timedelta:
    """How long ago something was, by this machine's clock."""
    return max(datetime.now(UTC) - time.ToDatetime(UTC), timedelta(0))


def age_text(time: Timestamp) -> str:
    """`4.2 s ago`."""
    return f"{duration_text(age(time).total_seconds())} ago"


def time_text(time: Timestamp) -> str:
    """`2026-11-21 12:30:05Z`."""
    return time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def counted(count: int, noun: str) -> str:
    """`1 letter`, `2,000 letters`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def first_line(text: str, length: int = 100) -> str:
    """What fits into a table."""
    line: Sequence[str] = text.strip().splitlines() or [""]
    return line[0] if len(line[0]) <= length else line[0][: length - 1] + "…"
