"""Runs as v2 of the contract shows them (runs-v2, section 1).

Upper-case enums, RFC 3339 times, money as JSON numbers. Exactly the selected keys are present.
"""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urljoin

import msgspec

from runstore.domain.times import format_utc
from runstore.gateway.run_values import (
    RunValue,
    attachment_path,
    feedback_stats,
    has,
    moment,
    payload,
    required,
    scalar,
    texts,
)
from runstore.v1 import run_pb2 as pb


def _enum_name(enum: Any, prefix: str, name: str) -> RunValue:
    return lambda run: enum.Name(getattr(run, name)).removeprefix(prefix) if getattr(run, name) else None


def _money(name: str) -> RunValue:
    # A JSON number has the digits of the decimal text; a float would not.
    return lambda run: msgspec.Raw(getattr(run, name).encode()) if has(run, name) else None


def _token_details(name: str) -> RunValue:
    return lambda run: {"raw": dict(getattr(run, name))} if getattr(run, name) else None


def _cost_details(name: str) -> RunValue:
    def value(run: pb.Run) -> dict[str, Any] | None:
        costs = {key: msgspec.Raw(cost.encode()) for key, cost in getattr(run, name).items()}
        return {"raw": costs} if costs else None

    return value


_VALUES: Final[dict[str, RunValue]] = {
    "id": required("id"),
    "name": scalar("name"),
    "run_type": _enum_name(pb.RunType, "RUN_TYPE_", "run_type"),
    "status": _enum_name(pb.RunStatus, "RUN_STATUS_", "status"),
    "start_time": moment("start_time", format_utc),
    "end_time": moment("end_time", format_utc),
    "latency_seconds": scalar("latency_seconds"),
    "first_token_time": moment("first_token_time", format_utc),
    "error": scalar("error"),
    "error_preview": scalar("error_preview"),
    "extra": payload("extra"),
    "metadata": payload("metadata"),
    "events": payload("events"),
    "inputs": payload("inputs"),
    "inputs_preview": scalar("inputs_preview"),
    "outputs": payload("outputs"),
    "outputs_preview": scalar("outputs_preview"),
    "manifest": payload("manifest"),
    "parent_run_ids": texts("parent_run_ids"),
    "project_id": required("project_id"),
    "trace_id": required("trace_id"),
    "thread_id": scalar("thread_id"),
    "dotted_order": required("dotted_order"),
    "is_root": scalar("is_root"),
    "reference_example_id": scalar("reference_example_id"),
    "reference_dataset_id": scalar("reference_dataset_id"),
    "total_tokens": scalar("total_tokens"),
    "prompt_tokens": scalar("prompt_tokens"),
    "completion_tokens": scalar("completion_tokens"),
    "total_cost": _money("total_cost"),
    "prompt_cost": _money("prompt_cost"),
    "completion_cost": _money("completion_cost"),
    "prompt_token_details": _token_details("prompt_token_details"),
    "completion_token_details": _token_details("completion_token_details"),
    "prompt_cost_details": _cost_details("prompt_cost_details"),
    "completion_cost_details": _cost_details("completion_cost_details"),
    "price_model_id": scalar("price_model_id"),
    "tags": texts("tags"),
    "app_path": scalar("app_path"),
    "thread_evaluation_time": moment("thread_evaluation_time", format_utc),
    "is_in_dataset": scalar("is_in_dataset"),
    "last_queued_at": moment("last_queued_at", format_utc),
    # "attachments" and "share_url" need the server's own address; see `Selection`.
    "feedback_stats": feedback_stats,
    "ls_user_id": scalar("ls_user_id"),
}
_ATTACHMENTS: Final = "attachments"
_SHARE_URL: Final = "share_url"

# These say something by being there (contract runs-v2, section 1).
_ABSENT_WHEN_NULL: Final = frozenset({"share_url", "ls_user_id"})

# Names of v1, and of v2 as it was, for the same things.
_OLDER_NAMES: Final = {
    "session_id": "project_id",
    "serialized": "manifest",
    "in_dataset": "is_in_dataset",
    "latency": "latency_seconds",
    "s3_urls": _ATTACHMENTS,
    "share_token": "share_url",
}

_OF_V1: Final = frozenset({pb.RUN_FIELD_TRACE_TIER})

SELECTABLE: Final = tuple(
    name.removeprefix("RUN_FIELD_") for name, number in pb.RunField.items() if number and number not in _OF_V1
)
"""The values of `selects`, as the contract writes them."""


def select_name(text: str) -> str | None:
    """The key that a value of `selects` asks for, in any case and under older names; None when unknown."""
    name = text.lower()
    name = _OLDER_NAMES.get(name, name)
    return name if name in _VALUES or name in (_ATTACHMENTS, _SHARE_URL) else None


class Selection:
    """Which keys of a run to show, and what to ask the store for them."""

    def __init__(self, keys: Iterable[str], base_url: str) -> None:
        """`keys` come from `select_name`; `base_url` is the server as callers see it, ending in a slash."""
        self._keys = tuple(dict.fromkeys(keys)) or ("id",)
        self._base_url = base_url
        # Those that need the server's own address.
        self._own: dict[str, RunValue] = {_ATTACHMENTS: self._attachments, _SHARE_URL: self._share_url}
        self.fields: Final = [pb.RunField.Value(f"RUN_FIELD_{key.upper()}") for key in self._keys]
        """For the request to the store."""

    def show(self, run: pb.Run) -> dict[str, Any]:
        """The run as JSON content; payloads and money as `msgspec.Raw`."""
        shown = {}
        for key in self._keys:
            value = self._own[key](run) if key in self._own else _VALUES[key](run)
            if value is not None or key not in _ABSENT_WHEN_NULL:
                shown[key] = value
        return shown

    def _share_url(self, run: pb.Run) -> str | None:
        return urljoin(self._base_url, run.share_url) if run.HasField("share_url") else None

    def _attachments(self, run: pb.Run) -> dict[str, str]:
        return {
            name: self._base_url + attachment_path(attachment) for name, attachment in run.attachments.items()
        }
