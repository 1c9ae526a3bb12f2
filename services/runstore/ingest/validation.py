"""Checks an operation before it is accepted, and spells its ids one way."""

import re
from collections.abc import Iterable
from typing import Final

from runstore.domain import dotted_order, json_text
from runstore.domain.dotted_order import DottedOrder
from runstore.domain.errors import invalid
from runstore.domain.runs import RunPatch, RunType
from runstore.domain.times import MAX_TIME_US, MIN_TIME_US

MAX_NAME_CHARS: Final = 4_096
MAX_TAGS: Final = 1_000
MAX_ATTACHMENT_NAME_BYTES: Final = 256

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_RUN_TYPES = frozenset(RunType)
_JSON_FIELDS = ("inputs", "outputs", "events", "extra", "manifest")


def validate(patch: RunPatch) -> None:
    """Raise `invalid(field, ...)` unless the patch can be stored; lower-case its ids.

    What `dotted_order` says and the patch leaves out (trace, parent) is filled in; halves of
    surrogate pairs in payloads become U+FFFD.
    """
    position = None if patch.dotted_order is None else dotted_order.parse(patch.dotted_order)
    if position is None or not _is_same_position(patch, position):
        _check_position_ids(patch)
        _check_position(patch, position)
    if patch.project_id is not None:
        patch.project_id = uuid_text("project_id", patch.project_id)
    if patch.reference_example_id is not None:
        patch.reference_example_id = uuid_text("reference_example_id", patch.reference_example_id)
    _check_name_and_type(patch)
    for field, time_us in (("start_time", patch.start_time_us), ("end_time", patch.end_time_us)):
        if time_us is not None and not MIN_TIME_US <= time_us <= MAX_TIME_US:
            raise invalid(field, "outside the years that can be stored")
    for field in _JSON_FIELDS:
        payload = getattr(patch, field)
        if payload is not None and not json_text.is_plain(payload):
            json_text.check(field, payload)
            setattr(patch, field, json_text.replace_lone_surrogates(payload))
    if patch.tags is not None and len(patch.tags) > MAX_TAGS:
        raise invalid("tags", f"more than {MAX_TAGS}")
    if patch.attachments is not None:
        _check_attachments(patch.attachments)


def uuid_text(field: str, value: str) -> str:
    """`value` as a lower-case UUID with dashes; raises `invalid(field, ...)` when it is none."""
    if _UUID.fullmatch(value):
        return value
    lowered = value.lower()
    if _UUID.fullmatch(lowered):
        return lowered
    shown = value if len(value) <= 64 else value[:64] + "…"
    raise invalid(field, f"{shown!r} is not a UUID")


def _is_same_position(patch: RunPatch, position: DottedOrder) -> bool:
    """Whether the patch gives the ids exactly as its dotted order does, as SDKs do; they are right then."""
    parents = position.parent_run_ids
    return (
        patch.run_id == position.run_id
        and patch.trace_id == position.trace_id
        and patch.parent_run_id == (parents[-1] if parents else None)
    )


def _check_position_ids(patch: RunPatch) -> None:
    patch.run_id = uuid_text("id", patch.run_id)
    if patch.trace_id is not None:
        patch.trace_id = uuid_text("trace_id", patch.trace_id)
    if patch.parent_run_id is not None:
        patch.parent_run_id = uuid_text("parent_run_id", patch.parent_run_id)


def _check_name_and_type(patch: RunPatch) -> None:
    if patch.is_create and not patch.name:
        raise invalid("name", "a run that is created needs a name")
    if patch.name is not None and len(patch.name) > MAX_NAME_CHARS:
        raise invalid("name", f"longer than {MAX_NAME_CHARS} characters")
    if patch.is_create and patch.run_type is None:
        raise invalid("run_type", "a run that is created needs a run_type")
    if patch.run_type is not None and patch.run_type not in _RUN_TYPES:
        raise invalid("run_type", f"{patch.run_type!r} is not one of {', '.join(RunType)}")


def _check_attachments(names: Iterable[str]) -> None:
    for name in names:
        if not name or len(name.encode()) > MAX_ATTACHMENT_NAME_BYTES:
            raise invalid("attachments", f"a name must have 1 to {MAX_ATTACHMENT_NAME_BYTES} bytes")
        if "." in name or "/" in name:
            raise invalid("attachments", f"the name {name!r} has a dot or a slash")


def _check_position(patch: RunPatch, position: DottedOrder | None) -> None:
    """Hold `dotted_order` against the ids beside it, and fill in what it says."""
    if position is None:
        if patch.parent_run_id == patch.run_id:
            raise invalid("parent_run_id", "a run cannot be its own parent")
        return
    if position.run_id != patch.run_id:
        raise invalid("dotted_order", f"ends with {position.run_id}, but id is {patch.run_id}")
    if patch.trace_id is not None and patch.trace_id != position.trace_id:
        raise invalid("dotted_order", f"begins with {position.trace_id}, but trace_id is {patch.trace_id}")
    parent = position.parent_run_ids[-1] if position.parent_run_ids else None
    if patch.parent_run_id is not None and patch.parent_run_id != parent:
        raise invalid("dotted_order", f"has {parent} as parent, but parent_run_id is {patch.parent_run_id}")
    patch.trace_id = position.trace_id
    patch.parent_run_id = parent
