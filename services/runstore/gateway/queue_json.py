"""Annotation queues and their items between the JSON of the contract (resources, section 5) and protobuf."""

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import Query
from google.protobuf.message import Message
from pydantic import BaseModel, Field

from runstore.domain.times import format_time
from runstore.gateway.time_fields import to_time_us, to_timestamp
from runstore.v1 import annotation_queue_service_pb2 as pb

KeepsTraces = Annotated[
    bool, Query(description="Whether the traces of the runs are kept for the long period of their project.")
]

SECTIONS: Final = {
    "needs_my_review": pb.QUEUE_SECTION_NEEDS_MY_REVIEW,
    "needs_others_review": pb.QUEUE_SECTION_NEEDS_OTHERS_REVIEW,
    "archived": pb.QUEUE_SECTION_ARCHIVED,
}
ITEM_TYPES: Final = {"RUN": pb.QUEUE_ITEM_TYPE_RUN, "THREAD": pb.QUEUE_ITEM_TYPE_THREAD}
_ITEM_TYPE_NAMES: Final = {number: name for name, number in ITEM_TYPES.items()}


class QueueChange(BaseModel):
    """What of a queue a caller can set. Null is the same as absent."""

    name: str | None = Field(None, min_length=1)
    description: str | None = None
    rubric_instructions: str | None = None
    rubric_items: list[dict[str, Any]] | None = Field(
        None,
        description="`{feedback_key, description, value_descriptions, score_descriptions, is_required}`.",
    )
    metadata: dict[str, Any] | None = None
    default_dataset: UUID | None = None
    num_reviewers_per_item: int | None = Field(None, ge=1, le=100)
    enable_reservations: bool | None = None
    reservation_minutes: int | None = Field(None, ge=1, le=60 * 24 * 365)
    reviewer_access_mode: str | None = None


class QueueCreate(QueueChange):
    """A new queue."""

    name: str
    id: UUID | None = None


def queue_message(given: QueueChange, queue_id: UUID | None = None) -> pb.AnnotationQueue:
    """The queue as the store is told."""
    if isinstance(given, QueueCreate):
        queue_id = given.id
    return pb.AnnotationQueue(
        id="" if queue_id is None else str(queue_id),
        name=given.name or "",
        description=given.description,
        rubric_instructions=given.rubric_instructions,
        rubric_items=_json(given.rubric_items),
        metadata=_json(given.metadata),
        default_dataset_id=None if given.default_dataset is None else str(given.default_dataset),
        num_reviewers_per_item=given.num_reviewers_per_item,
        enable_reservations=given.enable_reservations,
        reservation_minutes=given.reservation_minutes,
        reviewer_access_mode=given.reviewer_access_mode,
    )


def item_key(
    *,
    run_id: UUID | None = None,
    thread_id: str | None = None,
    project_id: UUID | None = None,
    start_time_us: int | None = None,
    source_proposed_example_id: UUID | None = None,
) -> pb.QueueItemKey:
    """What to put into a queue."""
    return pb.QueueItemKey(
        run_id=None if run_id is None else str(run_id),
        thread_id=thread_id,
        project_id=None if project_id is None else str(project_id),
        start_time=None if start_time_us is None else to_timestamp(start_time_us),
        source_proposed_example_id=(
            None if source_proposed_example_id is None else str(source_proposed_example_id)
        ),
    )


def show_queue(queue: pb.AnnotationQueue) -> dict[str, Any]:
    """A queue as JSON content; with `total_runs` when it comes from a list."""
    shown = {
        "id": queue.id,
        "tenant_id": queue.tenant_id,
        "name": queue.name,
        "queue_type": "single",
        "description": _optional(queue, "description"),
        "rubric_instructions": _optional(queue, "rubric_instructions"),
        "rubric_items": _raw(queue, "rubric_items"),
        "metadata": _raw(queue, "metadata"),
        "default_dataset": _optional(queue, "default_dataset_id"),
        "num_reviewers_per_item": _optional(queue, "num_reviewers_per_item"),
        "enable_reservations": _optional(queue, "enable_reservations"),
        "reservation_minutes": _optional(queue, "reservation_minutes"),
        "reviewer_access_mode": _optional(queue, "reviewer_access_mode"),
        "assigned_reviewers": [],
        "created_at": _time(queue, "create_time"),
        "updated_at": _time(queue, "update_time"),
    }
    if queue.HasField("item_count"):
        shown["total_runs"] = queue.item_count
    return shown


def show_item(item: pb.QueueItem) -> dict[str, Any]:
    """An item as JSON content, without its run or thread."""
    return {
        "id": item.id,
        "queue_id": item.queue_id,
        "item_type": _ITEM_TYPE_NAMES[item.type],
        "run_id": _optional(item, "run_id"),
        "thread_id": _optional(item, "thread_id"),
        "project_id": item.project_id,
        "start_time": _time(item, "start_time"),
        "source_proposed_example_id": _optional(item, "source_proposed_example_id"),
        **_progress(item),
    }


def show_run_in_queue(item: pb.QueueItem, run: dict[str, Any]) -> dict[str, Any]:
    """A run of v1 with what the queue knows about it."""
    return {
        **run,
        "queue_run_id": item.id,
        "source_proposed_example_id": _optional(item, "source_proposed_example_id"),
        **_progress(item),
    }


def _progress(item: pb.QueueItem) -> dict[str, Any]:
    return {
        "added_at": _time(item, "add_time"),
        "effective_added_at": _time(item, "effective_add_time"),
        "last_reviewed_time": _time(item, "last_review_time"),
        "completed_by": list(item.completed_by),
        "reserved_by": list(item.reserved_by),
    }


def _json(content: Any) -> bytes | None:
    return None if content is None else msgspec.json.encode(content)


def _optional(message: Message, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _raw(message: Message, field: str) -> msgspec.Raw | None:
    return msgspec.Raw(getattr(message, field)) if message.HasField(field) else None


def _time(message: Message, field: str) -> str | None:
    return format_time(to_time_us(getattr(message, field))) if message.HasField(field) else None
