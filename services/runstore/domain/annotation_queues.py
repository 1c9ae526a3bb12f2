"""Annotation queues: runs and threads that wait for people's judgement, and how far reviewers are."""

from dataclasses import dataclass
from enum import StrEnum

MAX_QUEUE_PAGE = 1_000
"""Most queues, or items, that one list answers; a larger limit is lowered to this."""


class ItemType(StrEnum):
    """What an item is."""

    RUN = "run"
    THREAD = "thread"


class Section(StrEnum):
    """Where an item stands for one reviewer; the sections do not overlap, but for ACTIVE."""

    NEEDS_MY_REVIEW = "needs_my_review"
    NEEDS_OTHERS_REVIEW = "needs_others_review"
    ARCHIVED = "archived"
    ACTIVE = "active"
    """Either of those that need a review."""


class ReviewStatus(StrEnum):
    """What a reviewer has done with an item."""

    VIEWED = "viewed"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationQueue:
    """A queue with its rubric."""

    id: str
    tenant_id: str
    name: str
    """Unique in its tenant."""
    description: str | None = None
    rubric_instructions: str | None = None
    rubric_items: bytes | None = None
    """A JSON array of objects."""
    metadata: bytes | None = None
    """A JSON object."""
    default_dataset_id: str | None = None
    num_reviewers_per_item: int | None = None
    """How many reviewers have to complete an item; None is 1."""
    enable_reservations: bool | None = None
    reservation_minutes: int | None = None
    reviewer_access_mode: str | None = None
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePatch:
    """Changes to a queue. None keeps what is there."""

    name: str | None = None
    description: str | None = None
    rubric_instructions: str | None = None
    rubric_items: bytes | None = None
    metadata: bytes | None = None
    default_dataset_id: str | None = None
    num_reviewers_per_item: int | None = None
    enable_reservations: bool | None = None
    reservation_minutes: int | None = None
    reviewer_access_mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Which queues to list. Conditions left at their default do not restrict."""

    ids: tuple[str, ...] = ()
    name: str | None = None
    name_contains: str | None = None
    """Part of the name, upper and lower case alike."""
    run_id: str | None = None
    """Only queues that hold this run."""
    default_dataset_id: str | None = None
    descending: bool = True
    """By creation, newest first. Ties are broken by id."""
    offset: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """A run or thread to put into a queue. One of `run_id` and `thread_id` is given."""

    project_id: str
    run_id: str | None = None
    thread_id: str | None = None
    start_time_us: int | None = None
    source_proposed_example_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """A run or thread in a queue."""

    id: str
    queue_id: str
    type: ItemType
    project_id: str
    run_id: str | None
    thread_id: str | None
    start_time_us: int | None
    source_proposed_example_id: str | None
    added_at_us: int
    effective_added_at_us: int
    """Its place for the reviewer who asks."""
    last_reviewed_at_us: int | None
    archived_at_us: int | None
    section: Section
    """For the reviewer who asks; never ACTIVE."""
    completed_by: tuple[str, ...] = ()
    reserved_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemPlace:
    """A place between items in their order; where a page ended."""

    effective_added_at_us: int
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilter:
    """Which items of a queue are meant. Conditions left at None do not restrict."""

    queue_id: str
    reviewer: str
    """Who asks: sections and places are theirs."""
    section: Section | None = None
    type: ItemType | None = None
    min_start_time_us: int | None = None
    max_start_time_us: int | None = None
    archived_after_us: int | None = None
    """Exclusive, as `archived_before_us`."""
    archived_before_us: int | None = None
