"""Feedback: what people and programs say about runs and projects, record by record.

Ids and times are as in `domain.runs`. `value`, `correction`, `extra` and `source_metadata` are JSON as bytes,
kept as sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec


class FeedbackAction(StrEnum):
    """What an operation does."""

    CREATE = "create"
    """Replaces whatever has the id."""
    UPDATE = "update"
    """Changes the given of score, value, comment and correction."""
    DELETE = "delete"


class FeedbackPatch(msgspec.Struct, omit_defaults=True, gc=False):
    """One operation on one record. None means "says nothing", in a creation "has none"."""

    tenant_id: str
    feedback_id: str
    run_id: str | None
    """None for feedback on a project."""
    action: FeedbackAction
    sequence: int = 0
    """Position in the order of all operations; see `ingest.sequence`."""
    modified_at_us: int = 0
    created_at_us: int = 0
    """Of a creation."""
    project_id: str | None = None
    trace_id: str | None = None
    run_start_time_us: int | None = None
    """When the run began, as the client told it."""
    key: str = ""
    score: float | None = None
    value: bytes | None = None
    comment: str | None = None
    correction: bytes | None = None
    error: bool = False
    """Whether what was to judge has failed."""
    source_type: str = ""
    source_user_id: str | None = None
    source_user_name: str | None = None
    source_metadata: bytes | None = None
    extra: bytes | None = None
    comparative_experiment_id: str | None = None
    feedback_group_id: str | None = None
    keeps_trace: bool = True
    """Of a creation: whether the trace of its run is kept from now on."""

    def size_bytes(self) -> int:
        """About how much memory and log the operation takes."""
        payloads = (self.value, self.comment, self.correction, self.source_metadata, self.extra)
        return 512 + sum(len(payload) for payload in payloads if payload is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One merged record; None where it says nothing."""

    id: str
    run_id: str | None
    project_id: str | None
    trace_id: str | None
    run_start_time_us: int | None
    key: str
    score: float | None
    value: bytes | None
    comment: str | None
    correction: bytes | None
    error: bool
    source_type: str
    source_user_id: str | None
    source_user_name: str | None
    source_metadata: bytes | None
    extra: bytes | None
    comparative_experiment_id: str | None
    feedback_group_id: str | None
    created_at_us: int
    modified_at_us: int


@dataclass(frozen=True, slots=True)
class FeedbackQuery:
    """Which records to list; all conditions hold together, and an empty one does not restrict."""

    tenant_id: str
    feedback_ids: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    project_ids: tuple[str, ...] = ()
    """Records on these projects, and on runs of them."""
    keys: tuple[str, ...] = ()
    source_types: tuple[str, ...] = ()
    user_ids: tuple[str, ...] = ()
    has_score: bool | None = None
    has_comment: bool | None = None
    is_on_run: bool | None = None
    """On runs only, or on projects only."""
    min_created_at_us: int | None = None
    max_created_at_us: int | None = None
    comparative_experiment_id: str | None = None
    offset: int = 0
    limit: int = 100


class FeedbackStats(msgspec.Struct, frozen=True):
    """Records of one key, summed up."""

    n: int
    """Scores, or labels when there are no scores."""
    avg: float | None
    min: float | None
    max: float | None
    stdev: float | None
    """Of the sample; None under two scores."""
    values: Mapping[str, int]
    """How often each label was given."""
    comments: tuple[str, ...]
    """A sample."""
    errors: int
    sources: tuple[str, ...]
    """Types of the sources."""


FeedbackByKey = Mapping[str, FeedbackStats]
