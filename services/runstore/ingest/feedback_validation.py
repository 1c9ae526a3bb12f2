"""Checks an operation on feedback before it is accepted, and spells its ids one way."""

import math
from typing import Final

from runstore.domain import json_text
from runstore.domain.errors import invalid
from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.times import MAX_TIME_US, MIN_TIME_US
from runstore.ingest.validation import uuid_text

MAX_KEY_CHARS: Final = 180
MAX_SOURCE_TYPE_CHARS: Final = 64
MAX_USER_CHARS: Final = 1_024

_IDS = ("run_id", "trace_id", "project_id", "comparative_experiment_id", "feedback_group_id")
# SDKs fail to read a whole page of records when one of them has anything else.
_SHAPES = {
    "value": (b'"{tfn-0123456789', "text, a number, a truth value or an object"),
    "correction": (b'"{', "text or an object"),
    "source_metadata": (b"{", "an object"),
    "extra": (b"{", "an object"),
}
_SPACES = b" \t\r\n"


def validate_feedback(patch: FeedbackPatch) -> None:
    """Raise `invalid(field, ...)` unless the patch can be stored; lower-case its ids.

    Feedback on the root of a trace may name the trace alone.
    """
    patch.feedback_id = uuid_text("id", patch.feedback_id)
    for field in _IDS:
        if (text := getattr(patch, field)) is not None:
            setattr(patch, field, uuid_text(field, text))
    patch.run_id = patch.run_id or patch.trace_id
    if patch.run_id is None and patch.project_id is None:
        raise invalid("run_id", "feedback is on a run or on a project: one of both is needed")
    if patch.action is FeedbackAction.CREATE:
        _check_creation(patch)
    if patch.score is not None and not math.isfinite(patch.score):
        raise invalid("score", "not a finite number")
    for field, (beginnings, shape) in _SHAPES.items():
        if (raw := getattr(patch, field)) is not None:
            setattr(patch, field, _checked(field, raw, beginnings, shape))


def _check_creation(patch: FeedbackPatch) -> None:
    if not patch.key:
        raise invalid("key", "missing")
    for field, text, most in (
        ("key", patch.key, MAX_KEY_CHARS),
        ("source.type", patch.source_type, MAX_SOURCE_TYPE_CHARS),
        ("source.user_id", patch.source_user_id or "", MAX_USER_CHARS),
        ("source.user_name", patch.source_user_name or "", MAX_USER_CHARS),
    ):
        if len(text) > most:
            raise invalid(field, f"longer than {most} characters")
    for field, time_us in (
        ("run_start_time", patch.run_start_time_us),
        ("create_time", patch.created_at_us),
        ("update_time", patch.modified_at_us),
    ):
        if time_us is not None and not MIN_TIME_US <= time_us <= MAX_TIME_US:
            raise invalid(field, "outside the years that can be stored")


def _checked(field: str, raw: bytes, beginnings: bytes, shape: str) -> bytes | None:
    """The JSON, fit to be stored; None for null."""
    json_text.check(field, raw)
    text = raw.strip(_SPACES)
    if text[:1] not in beginnings:
        raise invalid(field, f"must be {shape}")
    return None if text == b"null" else json_text.replace_lone_surrogates(text)
