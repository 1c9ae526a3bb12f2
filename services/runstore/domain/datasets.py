"""Datasets: named collections of examples, and the versions that every write to their examples makes."""

from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_DATASET_PAGE: Final = 1_000
"""Most datasets, versions or examples that one list answers; a larger limit is lowered to this."""

LATEST_TAG: Final = "latest"
"""The tag that the newest version always has, and no other can be given."""

DATASET_TYPES: Final = ("kv", "llm", "chat")

VersionName: TypeAlias = int | str
"""A version: microseconds since the epoch (the last version that is not later), or a tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named collection of examples in one tenant."""

    id: str
    """Canonical UUID text (lower case, dashes), unique in the deployment."""
    tenant_id: str
    name: str
    """Unique in its tenant; 1 to 512 characters."""
    description: str | None = None
    data_type: str = "kv"
    """One of `DATASET_TYPES`."""
    metadata: bytes = b"{}"
    """A JSON object, as all JSON here kept as it was sent."""
    inputs_schema: bytes | None = None
    """JSON Schema that inputs of examples satisfy when they are written."""
    outputs_schema: bytes | None = None
    transformations: bytes | None = None
    """A JSON array."""
    created_at_us: int
    """Microseconds since the Unix epoch, UTC, like every `_us` here."""
    modified_at_us: int
    example_count: int = 0
    """Examples in the latest version."""
    version_us: int | None = None
    """The latest version; None before the first example."""
    experiment_count: int = 0
    """Projects that refer to it."""
    last_experiment_us: int | None = None
    """When the last of them began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPatch:
    """Changes to a dataset. None keeps what is there; JSON `null` erases a schema or the transformations."""

    name: str | None = None
    description: str | None = None
    metadata: bytes | None = None
    inputs_schema: bytes | None = None
    outputs_schema: bytes | None = None
    transformations: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFilter:
    """Which datasets to list, in which order. Conditions left at their default do not restrict."""

    ids: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()
    name: str | None = None
    """The exact name."""
    name_contains: str | None = None
    """Part of the name, upper and lower case alike."""
    metadata: bytes | None = None
    """A JSON object that the metadata must contain (PostgreSQL's `@>`)."""
    tag_value_ids: tuple[str, ...] = ()
    """Values of tags, each of which it has."""
    by_last_experiment: bool = False
    """Order by the beginning of the last experiment, not by creation."""
    descending: bool = True
    offset: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A state of a dataset's examples."""

    as_of_us: int
    """When it was made; no two versions of a dataset have the same."""
    tags: tuple[str, ...] = ()
    """Sorted; `latest` for the newest."""


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """Ids of the examples that differ between two versions."""

    modified: tuple[str, ...]
    """Written in between, if only with the same content."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
