"""Examples: inputs, what is expected of them, and files; each write leaves the older states readable."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec

from runstore.domain.datasets import VersionName

BASE_SPLIT: Final = "base"
"""The split of examples that are put into none."""

SPLITS_KEY: Final = "dataset_split"
"""Where the metadata names the splits."""

MAX_FILE_NAME_BYTES: Final = 256


class ExampleFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file of an example, which lies in the blob store."""

    name: str
    mime_type: str
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The state of an example from one version on."""

    id: str
    dataset_id: str
    inputs: bytes
    """A JSON object, or a reference to one (`domain.blob_refs`)."""
    outputs: bytes | None
    """The same; None when nobody knows them."""
    metadata: bytes
    """A JSON object with the splits in it."""
    files: tuple[ExampleFile, ...]
    source_run_id: str | None
    created_at_us: int
    modified_at_us: int
    """The version that wrote this state."""


@dataclass(frozen=True, slots=True)
class FileOperations:
    """What becomes of the files that an example has; those not named go."""

    rename: dict[str, str] = field(default_factory=dict)
    retain: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class ExampleChange:
    """An example to create, or to update; of an update, None keeps what is there."""

    id: str
    is_create: bool
    is_upsert: bool = False
    """Whether a create of an example that exists is an update."""
    inputs: bytes | None = None
    outputs: bytes | None = None
    metadata: bytes | None = None
    splits: tuple[str, ...] | None = None
    source_run_id: str | None = None
    created_at_us: int | None = None
    files: tuple[ExampleFile, ...] = ()
    file_operations: FileOperations | None = None
    """Without them, `files` replace all if there are any."""
    blob_keys: tuple[str, ...] = ()
    """Blobs that `inputs`, `outputs` and `files` refer to."""

    def merged_files(self, old: tuple[ExampleFile, ...]) -> tuple[ExampleFile, ...]:
        """The example's files after this change of the files `old` (contract resources, section 3)."""
        operations = self.file_operations
        if operations is None:
            return self.files or old
        kept = {}
        for file in old:
            if file.name in operations.rename:
                name = operations.rename[file.name]
                kept[name] = ExampleFile(name, file.mime_type, file.key, file.size_bytes)
            elif file.name in operations.retain:
                kept[file.name] = file
        kept.update({file.name: file for file in self.files})
        return tuple(kept.values())


class ExampleOrder(StrEnum):
    """In which order to list; ties go by the place in the write."""

    RECENT = "recent"
    CREATED = "created"
    ID = "id"
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleFilter:
    """Which examples to list, in which order. Conditions left at their default do not restrict."""

    dataset_id: str | None = None
    ids: tuple[str, ...] = ()
    version: VersionName = "latest"
    splits: tuple[str, ...] = ()
    """In any of these."""
    metadata: bytes | None = None
    """A JSON object that the metadata must contain."""
    condition: Any = None
    """A predicate on the decoded metadata, or None."""
    texts: tuple[str, ...] = ()
    """Each of them is somewhere in inputs, outputs or metadata, in any case."""
    order: ExampleOrder = ExampleOrder.RECENT
    descending: bool = True
    random_seed: float = 0.0
    offset: int = 0
    limit: int = 100


def merged_metadata(
    metadata: bytes | None, splits: tuple[str, ...] | None, old: bytes = b"{}"
) -> tuple[bytes, tuple[str, ...]]:
    """The metadata after a change, with the splits in it, and the splits.

    Splits that are given go before those in the given metadata, and these before those in the old.
    """
    before = _decoded(old)
    after = before if metadata is None else _decoded(metadata)
    if splits is None:
        splits = _splits(after.get(SPLITS_KEY)) or _splits(before.get(SPLITS_KEY))
    names = tuple(dict.fromkeys(splits or (BASE_SPLIT,)))
    after = {**after, SPLITS_KEY: msgspec.Raw(msgspec.json.encode(names))}
    return msgspec.json.encode(after), names


def _decoded(metadata: bytes) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(metadata, type=dict[str, msgspec.Raw])


def _splits(raw: msgspec.Raw | None) -> tuple[str, ...] | None:
    """What the metadata says of splits: a name or a list of names; None for anything else."""
    if raw is None:
        return None
    try:
        named = msgspec.json.decode(raw, type=str | list[str])
    except msgspec.DecodeError:
        return None
    return (named,) if isinstance(named, str) else tuple(named) or None
