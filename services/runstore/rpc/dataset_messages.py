"""Datasets, versions and examples as messages."""

from typing import Any

from runstore.domain.blob_refs import BlobRef
from runstore.domain.datasets import DATASET_TYPES, LATEST_TAG, Dataset, DatasetVersion, VersionName
from runstore.domain.errors import invalid
from runstore.domain.examples import Example
from runstore.ingest.example_contents import reference
from runstore.query.read_tokens import FileRef, ReadTokens
from runstore.rpc.mapping import optional_time_us, set_time
from runstore.v1 import dataset_service_pb2 as pb
from runstore.v1 import example_service_pb2 as examples_pb

_TYPES = {pb.DatasetType.Value(f"DATASET_TYPE_{name.upper()}"): name for name in DATASET_TYPES}
_TYPE_NUMBERS = {name: number for number, name in _TYPES.items()}


def data_type(number: "pb.DatasetType.ValueType") -> str:
    """The name of a type; `kv` when none is given. Raises INVALID_ARGUMENT."""
    name = "kv" if number == pb.DATASET_TYPE_UNSPECIFIED else _TYPES.get(number)
    if name is None:
        raise invalid("type", f"{number} is not a type of dataset")
    return name


def version_name(version: pb.VersionName) -> VersionName:
    """The version that is named; the latest when none is."""
    as_of_us = optional_time_us(version, "as_of")
    return as_of_us if as_of_us is not None else version.tag or LATEST_TAG


def version_message(version: DatasetVersion) -> pb.DatasetVersion:
    """A version."""
    message = pb.DatasetVersion(tags=version.tags)
    set_time(message.as_of, version.as_of_us)
    return message


def dataset_message(dataset: Dataset) -> pb.Dataset:
    """The dataset as readers get it."""
    message = pb.Dataset(
        id=dataset.id,
        tenant_id=dataset.tenant_id,
        name=dataset.name,
        description=dataset.description,
        type=_TYPE_NUMBERS[dataset.data_type],
        metadata=dataset.metadata,
        inputs_schema=dataset.inputs_schema,
        outputs_schema=dataset.outputs_schema,
        transformations=dataset.transformations,
        example_count=dataset.example_count,
        experiment_count=dataset.experiment_count,
    )
    set_time(message.create_time, dataset.created_at_us)
    set_time(message.update_time, dataset.modified_at_us)
    if dataset.last_experiment_us is not None:
        set_time(message.last_experiment_start_time, dataset.last_experiment_us)
    return message


def example_message(example: Example, dataset_name: str, read_tokens: ReadTokens) -> examples_pb.Example:
    """The example as readers get it, with tokens for its files and for what is large."""
    message = examples_pb.Example(
        id=example.id,
        dataset_id=example.dataset_id,
        name=f"#{example.id[:4]} @ {dataset_name}",
        metadata=example.metadata,
        source_run_id=example.source_run_id,
    )
    set_time(message.create_time, example.created_at_us)
    set_time(message.update_time, example.modified_at_us)
    for field in ("inputs", "outputs"):
        _set_payload(message, field, getattr(example, field), read_tokens)
    for file in example.files:
        ref = BlobRef(file.key, file.size_bytes)
        message.attachments.add(
            name=file.name,
            mime_type=file.mime_type,
            size_bytes=file.size_bytes,
            read_token=read_tokens.of_file(FileRef(file.mime_type, ref)),
        )
    return message


def _set_payload(message: Any, field: str, column: bytes | None, read_tokens: ReadTokens) -> None:
    ref = reference(column)
    if ref is not None:
        payload = message.large_payloads[field]
        payload.size_bytes = ref.size_bytes
        payload.read_token = read_tokens.of_payload(ref)
    elif column is not None:
        setattr(message, field, column)
