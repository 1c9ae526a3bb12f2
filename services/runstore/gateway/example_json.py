"""Examples between the JSON of the contract (resources, section 3) and protobuf. Null means "not given"."""

import uuid
from typing import Any, Final

import msgspec

from runstore.domain.errors import invalid
from runstore.domain.times import format_time
from runstore.gateway.dataset_json import show_time
from runstore.gateway.large_answers import hole
from runstore.gateway.run_json import canonical_uuid, fill_time, parse_object
from runstore.gateway.run_values import attachment_path
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import example_service_pb2 as pb

_NULL: Final = msgspec.Raw(b"null")
_ABSENT: Final = (_NULL, msgspec.Raw())


class _OperationsJson(msgspec.Struct):
    rename: dict[str, str] | None = None
    retain: list[str] | None = None


class ExampleJson(msgspec.Struct):
    """The keys that are understood; all others are ignored."""

    id: str | None = None
    dataset_id: str | None = None
    inputs: msgspec.Raw = _NULL
    outputs: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL
    split: str | list[str] | None = None
    source_run_id: str | None = None
    use_source_run_io: bool | None = None
    use_source_run_attachments: list[str] | bool | None = None
    created_at: str | int | float | None = None
    attachments_operations: _OperationsJson | None = None


_EXAMPLE: Final = msgspec.json.Decoder(ExampleJson)
_EXAMPLES: Final = msgspec.json.Decoder(list[ExampleJson])
_OPERATIONS: Final = msgspec.json.Decoder(_OperationsJson)


def read_example(raw: bytes) -> ExampleJson:
    """The example in a JSON object. Raises MALFORMED_BODY, INVALID_ARGUMENT."""
    return parse_object(_EXAMPLE, raw)


def read_examples(raw: bytes) -> list[ExampleJson]:
    """The examples in a JSON array. Raises as `read_example`."""
    return parse_object(_EXAMPLES, raw)


def change_of(given: ExampleJson, *, create: bool, upsert: bool = False) -> pb.ExampleChange:
    """What an example's JSON asks for; a create without an id gets one. Raises INVALID_ARGUMENT."""
    if given.id is None and not create:
        raise invalid("id", "missing")
    change = pb.ExampleChange(
        id=str(uuid.uuid4()) if given.id is None else canonical_uuid("id", given.id),
        create=create,
        upsert=upsert,
    )
    for field in ("inputs", "outputs", "metadata"):
        content = getattr(given, field)
        if content not in _ABSENT:
            setattr(change, field, bytes(content))
    if given.split is not None:
        names = [given.split] if isinstance(given.split, str) else given.split
        change.splits.CopyFrom(pb.Splits(names=names))
    change.use_source_io = bool(given.use_source_run_io)
    if isinstance(given.use_source_run_attachments, list):
        change.source_files.extend(given.use_source_run_attachments)
    else:
        change.use_source_files = bool(given.use_source_run_attachments)
    if given.source_run_id is not None:
        change.source_run_id = canonical_uuid("source_run_id", given.source_run_id)
    if given.created_at is not None:
        fill_time(change.create_time, "created_at", given.created_at)
    if given.attachments_operations is not None:
        fill_operations(change, given.attachments_operations)
    return change


def read_operations(change: pb.ExampleChange, raw: bytes) -> None:
    """Adds what becomes of the example's files. Raises as `read_example`."""
    fill_operations(change, parse_object(_OPERATIONS, raw))


def fill_operations(change: pb.ExampleChange, given: _OperationsJson) -> None:
    """The same, of JSON that was read already."""
    change.attachments_operations.SetInParent()
    change.attachments_operations.rename.update(given.rename or {})
    change.attachments_operations.retain.extend(given.retain or ())


DEFAULT_KEYS: Final = (
    *("id", "dataset_id", "name", "inputs", "outputs", "metadata", "created_at", "modified_at"),
    "source_run_id",
)
"""Keys of an answer that selects none."""

SELECTABLE: Final = (*DEFAULT_KEYS, "attachment_urls")

ALL_KEYS: Final = frozenset(SELECTABLE)


def show_example(example: pb.Example, base_url: str, keys: frozenset[str] = ALL_KEYS) -> dict[str, Any]:
    """The `keys` of an example as JSON content; `base_url` is the server as callers see it, with a slash."""
    shown: dict[str, Any] = {
        "id": example.id,
        "dataset_id": example.dataset_id,
        "name": example.name,
        "inputs": _payload(example, "inputs"),
        "outputs": _payload(example, "outputs"),
        "metadata": msgspec.Raw(example.metadata),
        "created_at": show_time(example, "create_time"),
        "modified_at": show_time(example, "update_time"),
        "source_run_id": example.source_run_id if example.HasField("source_run_id") else None,
        "attachment_urls": {
            f"attachment.{file.name}": {
                "presigned_url": base_url + attachment_path(file),
                "mime_type": file.mime_type,
            }
            for file in example.attachments
        },
    }
    return {key: value for key, value in shown.items() if key in keys}


def written(answer: pb.WriteExamplesResponse) -> dict[str, Any]:
    """The answer to a write."""
    return {
        "count": len(answer.example_ids),
        "example_ids": list(answer.example_ids),
        "as_of": format_time(to_time_us(answer.as_of)),
    }


def _payload(example: pb.Example, field: str) -> msgspec.Raw | None:
    if field in example.large_payloads:
        return hole(example.large_payloads[field])
    return msgspec.Raw(getattr(example, field)) if example.HasField(field) else None  # type: ignore[arg-type]
