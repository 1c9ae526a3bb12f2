"""Strings that break out of whatever quotes them badly, and the places that take strings."""

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

LONG = "x" * 100_000

HOSTILE = (
    "' OR '1'='1",
    "') OR 1=1 -- ",
    "\\' OR 1=1 /*",
    "\\",
    '"); DROP TABLE runs; --',
    "`runs`",
    "{tenant:UUID}",
    "{name:String} {0} {} %(tenant)s",
    "%",
    "_%_",
    "a\0b",
    "\0",
    "' union all select * from runs format JSON --",
    "'; select sleep(3); --",
    "*/ OR 1=1 #",
    "$$ $1 ${tenant}",
    "line\r\nSet-Cookie: x=1\r\n\r\nline",
    "../../../../etc/passwd",
    "%00%27%20OR%201=1",
    "é\N{SNOWMAN}\N{MUSICAL SYMBOL G CLEF}\N{RIGHT-TO-LEFT OVERRIDE}",
    "\\N",
    "1e999",
    "[[[[((((",
    LONG,
    "'" * 5_000,
)

FILTERS = (
    "eq(name, {})",
    "neq(error, {})",
    "search({})",
    "has(tags, {})",
    "like(name, {})",
    "and(eq(metadata_key, {}), eq(metadata_value, {}))",
    "and(eq(feedback_key, {}), eq(feedback_value, {}))",
    "and(eq(input_key, {}), eq(input_value, {}))",
    "eq(thread_id, {})",
    "eq(id, {})",
    "gt(start_time, {})",
)
"""Well-formed filters around a literal."""

INSIDE = ("Traceback", "site-packages", "DB::Exception", "SELECT ", "argMax", "sqlite", "sqlalchemy")
"""Text that only the inside of the server has. Refusals repeat what was sent, which has none of it."""


def sample(place: str, count: int) -> list[str]:
    """Some of the strings, others in every place, the same in every run of the tests."""
    return random.Random(place).sample(HOSTILE, count)


def as_filters(place: str, hostile: str) -> list[str]:
    """The string as a filter, and as a literal in one."""
    literal = json.dumps(hostile, ensure_ascii=False)
    chosen = random.Random(place + hostile).choice(FILTERS)
    return [hostile, chosen.replace("{}", literal), chosen.replace("{}", f"'{hostile}'")]


# -- places in protobuf messages -------------------------------------------------------------------------

Path = tuple[FieldDescriptor, ...]

_STRINGS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def strings_of(message: Descriptor, above: tuple[Descriptor, ...] = ()) -> Iterator[Path]:
    """Every field of texts or bytes in a message, and in the messages in it."""
    for field in message.fields:
        if field.type in _STRINGS:
            yield (field,)
        elif field.message_type is not None and field.message_type not in (*above, message):
            yield from ((field, *path) for path in strings_of(field.message_type, (*above, message)))


def put(message: Message, path: Path, value: str, seeds: Mapping[str, Any]) -> None:
    """Set the field at the end of a path, and what else its messages need to be taken seriously."""
    field, *rest = path
    for other in message.DESCRIPTOR.fields:
        if other.name in seeds and other is not field and other.message_type is None:
            _set(message, other, seeds[other.name])
    if rest:
        inner = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _put_into_map(inner, field.message_type, value)
        else:
            inner = inner.add() if field.is_repeated else inner
            inner.SetInParent() if not field.is_repeated else None
            put(inner, tuple(rest), value, seeds)
    else:
        _set(message, field, value)


def _set(message: Message, field: Any, value: Any) -> None:
    if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str):
        value = value.encode()
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _put_into_map(entries: Any, entry: Descriptor, value: str) -> None:
    if entry.fields_by_name["value"].message_type is not None:
        entries[value].SetInParent()
    elif entry.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
        entries[value] = value


# -- places in JSON bodies, by their schema ------------------------------------------------------------------

Steps = tuple[str | int, ...]


def strings_in(
    schema: Mapping[str, Any], schemas: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[Steps]:
    """The way to every text that a schema allows: keys of objects, 0 for an item of an array."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name not in above:
            yield from strings_in(schemas[name], schemas, (*above, name))
        return
    found: set[Steps] = set()
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        found |= set(strings_in(part, schemas, above))
    if schema.get("type") == "string":
        found.add(())
    if "items" in schema:
        found |= {(0, *steps) for steps in strings_in(schema["items"], schemas, above)}
    for name, property_schema in schema.get("properties", {}).items():
        found |= {(name, *steps) for steps in strings_in(property_schema, schemas, above)}
    yield from sorted(found, key=str)


def body_with(steps: Steps, value: str, seeds: Mapping[str, Any]) -> Any:
    """A body with the text at the end of the way, and what else its outermost object needs."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(step, int):
        return [body_with(tuple(rest), value, seeds)]
    return {**seeds, step: body_with(tuple(rest), value, seeds)}
