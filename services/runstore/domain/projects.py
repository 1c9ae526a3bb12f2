"""Projects (the contract's tracing sessions): what runs are grouped by."""

from dataclasses import dataclass

DEFAULT_PROJECT_NAME = "default"
"""The project of runs that name none. Exists in every tenant from its first moment."""

MAX_PROJECT_PAGE = 1_000
"""Most projects that one list answers; a larger limit is lowered to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A named group of runs in one tenant; an experiment when it refers to a dataset."""

    id: str
    """Canonical UUID text (lower case, dashes), unique in the deployment."""
    tenant_id: str
    name: str
    """Unique in its tenant; 1 to 512 characters."""
    description: str | None = None
    extra: bytes = b"{}"
    """A JSON object, kept as it was sent. Its key `metadata` is the project's metadata."""
    reference_dataset_id: str | None = None
    start_time_us: int
    """Microseconds since the Unix epoch, UTC, like every `_us` here."""
    end_time_us: int | None = None
    created_at_us: int
    modified_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPatch:
    """Changes to a project. None keeps what is there: a patch cannot erase."""

    name: str | None = None
    description: str | None = None
    extra: bytes | None = None
    """A JSON object that replaces the old one as a whole."""
    end_time_us: int | None = None
    reference_dataset_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFilter:
    """Which projects to list, in which order. Conditions left at their default do not restrict."""

    ids: tuple[str, ...] = ()
    name: str | None = None
    """The exact name."""
    name_contains: str | None = None
    """Part of the name, upper and lower case alike."""
    reference_dataset_ids: tuple[str, ...] = ()
    reference_free: bool | None = None
    """True: only projects without a reference dataset. False: only those with one."""
    metadata: str | None = None
    """JSON text of an object that `extra.metadata` must contain (PostgreSQL's `@>`)."""
    dataset_version: str | None = None
    """What `extra.metadata.dataset_version` must be: the same time, or the same text."""
    tag_value_ids: tuple[str, ...] = ()
    """Values of tags, each of which it has."""
    by_name: bool = False
    """The order: by name, else by start time. Ties are broken by id."""
    descending: bool = True
    """The last, or newest, first."""
    offset: int = 0
    limit: int = 100
