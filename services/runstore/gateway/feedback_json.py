"""Feedback between the JSON of the contract (resources, section 4) and protobuf. Null means "not given"."""

import uuid
from typing import Any, Final

import msgspec

from runstore.domain.agent_addresses import project_of_address
from runstore.domain.errors import invalid
from runstore.domain.times import format_time
from runstore.gateway.run_json import canonical_uuid, fill_time, parse_object
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import feedback_service_pb2 as pb

_NULL: Final = msgspec.Raw(b"null")
_Score = float | int | bool | None


class _SourceJson(msgspec.Struct):
    type: str | None = None
    user_id: str | None = None
    user_name: str | None = None
    metadata: msgspec.Raw = _NULL


class _FeedbackJson(msgspec.Struct):
    """The keys that are understood; all others are ignored."""

    id: str | None = None
    run_id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None
    address: str | None = None
    key: str | None = None
    score: _Score = None
    value: msgspec.Raw = _NULL
    comment: str | None = None
    correction: msgspec.Raw = _NULL
    error: bool | None = None
    feedback_source: _SourceJson | None = None
    extra: msgspec.Raw = _NULL
    comparative_experiment_id: str | None = None
    feedback_group_id: str | None = None
    start_time: str | int | float | None = None
    created_at: str | int | float | None = None
    modified_at: str | int | float | None = None
    extend_trace_retention: bool | None = None


class _ChangesJson(msgspec.Struct):
    score: _Score = None
    value: msgspec.Raw = _NULL
    comment: str | None = None
    correction: msgspec.Raw = _NULL


_FEEDBACK: Final = msgspec.json.Decoder(_FeedbackJson)
_CHANGES: Final = msgspec.json.Decoder(_ChangesJson)
_IDS: Final = {
    "run_id": "run_id",
    "trace_id": "trace_id",
    "session_id": "project_id",
    "comparative_experiment_id": "comparative_experiment_id",
    "feedback_group_id": "feedback_group_id",
}
_TIMES: Final = {"start_time": "run_start_time", "created_at": "create_time", "modified_at": "update_time"}


def read_feedback(raw: bytes, feedback_id: str | None = None) -> pb.Feedback:
    """The record in a JSON object. One without an id gets `feedback_id`, or a new one.

    Raises MALFORMED_BODY, and INVALID_ARGUMENT naming the key at fault.
    """
    given = parse_object(_FEEDBACK, raw)
    message = pb.Feedback(id=_id(given, feedback_id), key=given.key or "", error=bool(given.error))
    for key, field in _IDS.items():
        if (text := getattr(given, key)) is not None:
            setattr(message, field, canonical_uuid(key, text))
    if given.extend_trace_retention is not None:
        message.keeps_trace = given.extend_trace_retention
    if given.address is not None:
        message.project_name = project_of_address("address", given.address)
    for key, field in _TIMES.items():
        if (time := getattr(given, key)) is not None:
            fill_time(getattr(message, field), key, time)
    _fill_judgement(message, given)
    if given.extra != _NULL:
        message.extra = bytes(given.extra)
    source = given.feedback_source or _SourceJson()
    message.source.type = source.type or ""
    if source.user_id is not None:
        message.source.user_id = source.user_id
    if source.user_name is not None:
        message.source.user_name = source.user_name
    if source.metadata != _NULL:
        message.source.metadata = bytes(source.metadata)
    return message


def read_changes(feedback_id: str, raw: bytes) -> pb.UpdateFeedbackRequest:
    """The changes of a record in a JSON object. Raises as `read_feedback`."""
    request = pb.UpdateFeedbackRequest(id=feedback_id)
    _fill_judgement(request, parse_object(_CHANGES, raw))
    return request


def show_feedback(record: pb.Feedback) -> dict[str, Any]:
    """A record as JSON content."""
    source = record.source
    return {
        "id": record.id,
        "created_at": _time(record, "create_time"),
        "modified_at": _time(record, "update_time"),
        "run_id": _optional(record, "run_id"),
        "trace_id": _optional(record, "trace_id"),
        "session_id": _optional(record, "project_id"),
        "start_time": _time(record, "run_start_time"),
        "key": record.key,
        "score": _optional(record, "score"),
        "value": _json(record, "value"),
        "comment": _optional(record, "comment"),
        "correction": _json(record, "correction"),
        "error": record.error,
        "feedback_source": {
            "type": source.type,
            "metadata": _json(source, "metadata"),
            "user_id": _optional(source, "user_id"),
            "user_name": _optional(source, "user_name"),
        },
        "comparative_experiment_id": _optional(record, "comparative_experiment_id"),
        "feedback_group_id": _optional(record, "feedback_group_id"),
        "extra": _json(record, "extra"),
    }


def _id(given: _FeedbackJson, feedback_id: str | None) -> str:
    own_id = None if given.id is None else canonical_uuid("id", given.id)
    if feedback_id is None:
        return own_id or str(uuid.uuid4())
    if own_id not in (None, feedback_id):
        raise invalid("id", "differs from the id in the part's name")
    return feedback_id


def _fill_judgement(
    message: pb.Feedback | pb.UpdateFeedbackRequest, given: _FeedbackJson | _ChangesJson
) -> None:
    if given.score is not None:
        try:
            message.score = float(given.score)
        except OverflowError as error:
            raise invalid("score", "too large a number") from error
    if given.value != _NULL:
        message.value = bytes(given.value)
    if given.comment is not None:
        message.comment = given.comment
    if given.correction != _NULL:
        message.correction = bytes(given.correction)


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _json(message: Any, field: str) -> msgspec.Raw | None:
    return msgspec.Raw(getattr(message, field)) if message.HasField(field) else None


def _time(message: Any, field: str) -> str | None:
    return format_time(to_time_us(getattr(message, field))) if message.HasField(field) else None
