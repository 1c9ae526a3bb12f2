"""Datasets and their versions between the JSON of the contract (resources, section 2) and protobuf."""

from typing import Any, Final

import msgspec

from runstore.domain.errors import RunstoreError, invalid
from runstore.domain.times import format_time, parse_time
from runstore.gateway.time_fields import to_time_us, to_timestamp
from runstore.v1 import dataset_service_pb2 as pb

DATA_TYPES: Final = {
    "kv": pb.DATASET_TYPE_KV,
    "llm": pb.DATASET_TYPE_LLM,
    "chat": pb.DATASET_TYPE_CHAT,
}
"""The contract's names of types."""

_DATA_TYPE_NAMES: Final = {number: name for name, number in DATA_TYPES.items()}


def show_dataset(dataset: pb.Dataset) -> dict[str, Any]:
    """A dataset as JSON content."""
    return {
        "id": dataset.id,
        "tenant_id": dataset.tenant_id,
        "name": dataset.name,
        "description": dataset.description if dataset.HasField("description") else None,
        "data_type": _DATA_TYPE_NAMES.get(dataset.type),
        "created_at": show_time(dataset, "create_time"),
        "modified_at": show_time(dataset, "update_time"),
        "example_count": dataset.example_count,
        "session_count": dataset.experiment_count,
        "last_session_start_time": show_time(dataset, "last_experiment_start_time"),
        "inputs_schema_definition": raw(dataset, "inputs_schema"),
        "outputs_schema_definition": raw(dataset, "outputs_schema"),
        "transformations": raw(dataset, "transformations"),
        "metadata": msgspec.Raw(dataset.metadata),
        "externally_managed": False,
    }


def show_version(version: pb.DatasetVersion) -> dict[str, Any]:
    """A version as JSON content."""
    return {"as_of": format_time(to_time_us(version.as_of)), "tags": list(version.tags) or None}


def read_version(field: str, text: str | None) -> pb.VersionName:
    """A version by time or tag; the latest when None. Raises INVALID_ARGUMENT for an empty text."""
    if text is None:
        return pb.VersionName()
    if not text:
        raise invalid(field, "neither a time nor a tag")
    try:
        # In a query, the plus of an offset may have become a space.
        return pb.VersionName(as_of=to_timestamp(parse_time(field, _with_plus(text))))
    except RunstoreError:
        return pb.VersionName(tag=text)


def show_time(message: Any, field: str) -> str | None:
    """A time that may be absent."""
    return format_time(to_time_us(getattr(message, field))) if message.HasField(field) else None


def raw(message: Any, field: str) -> msgspec.Raw | None:
    """Stored JSON that may be absent."""
    return msgspec.Raw(getattr(message, field)) if message.HasField(field) else None


def _with_plus(text: str) -> str:
    day, separator, rest = text.partition("T")
    return day + separator + rest.replace(" ", "+") if separator else text
