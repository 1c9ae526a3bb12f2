"""Runs as v1 of the contract shows them (runs-v1, sections 5, 6 and 9).

Lower-case enums, naive times with microseconds, costs as decimal text. Keys that were not selected
are absent.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from runstore.domain.times import format_naive
from runstore.gateway.run_json import RUN_TYPES
from runstore.gateway.run_values import (
    RunValue,
    attachment_path,
    feedback_stats,
    moment,
    numbers_by_key,
    payload,
    required,
    scalar,
    texts,
)
from runstore.gateway.trace_tiers import TIER_NAMES
from runstore.v1 import run_pb2 as pb

_RUN_TYPE_NAMES: Final = {number: name for name, number in RUN_TYPES.items()}
_STATUS_NAMES: Final = {
    pb.RUN_STATUS_SUCCESS: "success",
    pb.RUN_STATUS_ERROR: "error",
    pb.RUN_STATUS_PENDING: "pending",
}
_NO_PAYLOAD: Final = msgspec.Raw(b"{}")
_STORED_INPUTS: Final = payload("inputs")


class _Key(NamedTuple):
    field: "pb.RunField.ValueType | None"
    """What to ask the store for; None when runstore has nothing of the kind."""
    value: RunValue


def _null(_run: pb.Run) -> None:
    return None


def _inputs(run: pb.Run) -> msgspec.Raw:
    # The SDK's model refuses null here, although not for outputs.
    inputs: msgspec.Raw | None = _STORED_INPUTS(run)
    return _NO_PAYLOAD if inputs is None else inputs


def _parent_run_id(run: pb.Run) -> str | None:
    return run.parent_run_ids[-1] if run.parent_run_ids else None


def _share_token(run: pb.Run) -> str | None:
    # <origin>/public/<token>/r
    parts = run.share_url.split("/")
    return parts[-2] if len(parts) > 2 else None


def _s3_urls(run: pb.Run, base_url: str) -> dict[str, Any]:
    # Absolute: the SDKs of 2025 fetch the address as it stands while they read a run.
    return {
        f"attachment.{name}": {
            "presigned_url": base_url + attachment_path(attachment),
            "mime_type": attachment.mime_type,
        }
        for name, attachment in run.attachments.items()
    }


def _tokens(name: str) -> RunValue:
    return lambda run: getattr(run, name)  # 0 when absent, which is the contract's default


_KEYS: Final[dict[str, _Key]] = {
    "id": _Key(pb.RUN_FIELD_ID, required("id")),
    "name": _Key(pb.RUN_FIELD_NAME, scalar("name")),
    "run_type": _Key(pb.RUN_FIELD_RUN_TYPE, lambda run: _RUN_TYPE_NAMES.get(run.run_type)),
    "start_time": _Key(pb.RUN_FIELD_START_TIME, moment("start_time", format_naive)),
    "end_time": _Key(pb.RUN_FIELD_END_TIME, moment("end_time", format_naive)),
    "status": _Key(pb.RUN_FIELD_STATUS, lambda run: _STATUS_NAMES.get(run.status)),
    "error": _Key(pb.RUN_FIELD_ERROR, scalar("error")),
    "extra": _Key(pb.RUN_FIELD_EXTRA, payload("extra")),
    "events": _Key(pb.RUN_FIELD_EVENTS, payload("events")),
    "inputs": _Key(pb.RUN_FIELD_INPUTS, _inputs),
    "inputs_preview": _Key(pb.RUN_FIELD_INPUTS_PREVIEW, scalar("inputs_preview")),
    "inputs_s3_urls": _Key(None, _null),
    "outputs": _Key(pb.RUN_FIELD_OUTPUTS, payload("outputs")),
    "outputs_preview": _Key(pb.RUN_FIELD_OUTPUTS_PREVIEW, scalar("outputs_preview")),
    "outputs_s3_urls": _Key(None, _null),
    "s3_urls": _Key(pb.RUN_FIELD_ATTACHMENTS, _null),  # `Selection.show` fills it in
    "parent_run_id": _Key(pb.RUN_FIELD_PARENT_RUN_IDS, _parent_run_id),
    "manifest_id": _Key(None, _null),
    "manifest_s3_id": _Key(None, _null),
    "manifest": _Key(pb.RUN_FIELD_MANIFEST, payload("manifest")),
    "session_id": _Key(pb.RUN_FIELD_PROJECT_ID, required("project_id")),
    "serialized": _Key(pb.RUN_FIELD_MANIFEST, payload("manifest")),
    "reference_example_id": _Key(pb.RUN_FIELD_REFERENCE_EXAMPLE_ID, scalar("reference_example_id")),
    "reference_dataset_id": _Key(pb.RUN_FIELD_REFERENCE_DATASET_ID, scalar("reference_dataset_id")),
    "total_tokens": _Key(pb.RUN_FIELD_TOTAL_TOKENS, _tokens("total_tokens")),
    "prompt_tokens": _Key(pb.RUN_FIELD_PROMPT_TOKENS, _tokens("prompt_tokens")),
    "prompt_token_details": _Key(pb.RUN_FIELD_PROMPT_TOKEN_DETAILS, numbers_by_key("prompt_token_details")),
    "completion_tokens": _Key(pb.RUN_FIELD_COMPLETION_TOKENS, _tokens("completion_tokens")),
    "completion_token_details": _Key(
        pb.RUN_FIELD_COMPLETION_TOKEN_DETAILS, numbers_by_key("completion_token_details")
    ),
    "total_cost": _Key(pb.RUN_FIELD_TOTAL_COST, scalar("total_cost")),
    "prompt_cost": _Key(pb.RUN_FIELD_PROMPT_COST, scalar("prompt_cost")),
    "prompt_cost_details": _Key(pb.RUN_FIELD_PROMPT_COST_DETAILS, numbers_by_key("prompt_cost_details")),
    "completion_cost": _Key(pb.RUN_FIELD_COMPLETION_COST, scalar("completion_cost")),
    "completion_cost_details": _Key(
        pb.RUN_FIELD_COMPLETION_COST_DETAILS, numbers_by_key("completion_cost_details")
    ),
    "price_model_id": _Key(pb.RUN_FIELD_PRICE_MODEL_ID, scalar("price_model_id")),
    "first_token_time": _Key(pb.RUN_FIELD_FIRST_TOKEN_TIME, moment("first_token_time", format_naive)),
    "trace_id": _Key(pb.RUN_FIELD_TRACE_ID, required("trace_id")),
    "dotted_order": _Key(pb.RUN_FIELD_DOTTED_ORDER, required("dotted_order")),
    "last_queued_at": _Key(pb.RUN_FIELD_LAST_QUEUED_AT, moment("last_queued_at", format_naive)),
    "feedback_stats": _Key(pb.RUN_FIELD_FEEDBACK_STATS, feedback_stats),
    "child_run_ids": _Key(None, _null),
    "parent_run_ids": _Key(pb.RUN_FIELD_PARENT_RUN_IDS, texts("parent_run_ids")),
    "tags": _Key(pb.RUN_FIELD_TAGS, texts("tags")),
    "in_dataset": _Key(pb.RUN_FIELD_IS_IN_DATASET, lambda run: run.is_in_dataset),
    "app_path": _Key(pb.RUN_FIELD_APP_PATH, scalar("app_path")),
    "share_token": _Key(pb.RUN_FIELD_SHARE_URL, _share_token),
    "trace_tier": _Key(pb.RUN_FIELD_TRACE_TIER, lambda run: TIER_NAMES.get(run.trace_tier)),
    "trace_first_received_at": _Key(None, _null),
    "ttl_seconds": _Key(pb.RUN_FIELD_TRACE_TIER, scalar("ttl_seconds")),
    "trace_upgrade": _Key(pb.RUN_FIELD_TRACE_TIER, lambda run: run.is_trace_kept),
    "thread_id": _Key(pb.RUN_FIELD_THREAD_ID, scalar("thread_id")),
    "trace_min_max_start_time": _Key(None, _null),
    "messages": _Key(None, _null),
    "inserted_at": _Key(None, _null),
}

# Payloads are never kept outside the answer, so "inline or signed URL" is always inline.
_OR_SIGNED_URL: Final = {
    f"{key}_or_signed_url": key for key in ("inputs", "outputs", "error", "events", "extra", "serialized")
}

SELECTABLE: Final = (*_KEYS, *_OR_SIGNED_URL)
"""The values of `select`."""

_NOT_BY_DEFAULT: Final = frozenset(
    {
        "inputs_preview",
        "outputs_preview",
        "inputs_s3_urls",
        "outputs_s3_urls",
        "child_run_ids",
        "trace_min_max_start_time",
        "messages",
        "inserted_at",
    }
)

# The SDK's models need the required keys and `start_time`; its tests read the details and the
# attachments although its own default selection leaves them out (contract runs-v1, section 6).
_ALWAYS: Final = (
    *("id", "name", "run_type", "status", "trace_id", "dotted_order", "session_id", "app_path", "start_time"),
    *("prompt_token_details", "completion_token_details", "prompt_cost_details", "completion_cost_details"),
    "s3_urls",
)


class Selection:
    """Which keys of a run to show, and what to ask the store for them."""

    def __init__(self, keys: Iterable[str]) -> None:
        wanted = {_OR_SIGNED_URL.get(key, key) for key in keys} | set(_ALWAYS)
        self.keys: Final = frozenset(wanted)
        self._values = [(name, key.value) for name, key in _KEYS.items() if name in wanted]
        self.fields: Final = sorted(
            {key.field for name, key in _KEYS.items() if name in wanted and key.field is not None}
        )
        """For the request to the store."""

    def show(self, run: pb.Run, base_url: str) -> dict[str, Any]:
        """The run as JSON content; payloads as `msgspec.Raw`.

        `base_url` is the server as callers see it, ending in a slash.
        """
        shown = {name: value(run) for name, value in self._values}
        if run.attachments:
            shown["s3_urls"] = _s3_urls(run, base_url)
        return shown


DEFAULT_SELECTION: Final = Selection(name for name in _KEYS if name not in _NOT_BY_DEFAULT)
