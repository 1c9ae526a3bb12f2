"""Reads single values of a protobuf run for JSON; both dialects of the contract build on these.

Each maker returns a function from the run to what JSON shall say, None (null) when the run has no
such value. Payloads come as `msgspec.Raw`: stored JSON, written as it stands.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from runstore.gateway.large_answers import hole
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import example_service_pb2, run_pb2

RunValue = Callable[[run_pb2.Run], Any]


def has(run: run_pb2.Run, name: str) -> bool:
    """Whether an optional field is set; `name` is checked by protobuf when called, not by mypy."""
    has_field: Callable[[str], bool] = run.HasField  # type: ignore[assignment] # a Literal of every name
    return has_field(name)


def scalar(name: str) -> RunValue:
    """An optional text, number or truth value."""
    return lambda run: getattr(run, name) if has(run, name) else None


def required(name: str) -> RunValue:
    """A value that every run has."""
    return lambda run: getattr(run, name)


def payload(name: str) -> RunValue:
    """Stored JSON, or a hole for it (`large_answers`)."""

    def value(run: run_pb2.Run) -> msgspec.Raw | None:
        if has(run, name):
            return msgspec.Raw(getattr(run, name))
        return hole(run.large_payloads[name]) if name in run.large_payloads else None

    return value


def texts(name: str) -> RunValue:
    """A list of texts; empty when there are none."""
    return lambda run: list(getattr(run, name))


def numbers_by_key(name: str) -> RunValue:
    """A map such as token details; None when empty."""
    return lambda run: dict(getattr(run, name)) or None


def moment(name: str, write: Callable[[int], str]) -> RunValue:
    """A time, written by `write` from microseconds since the epoch."""
    return lambda run: write(to_time_us(getattr(run, name))) if has(run, name) else None


def attachment_path(attachment: run_pb2.Attachment | example_service_pb2.ExampleAttachment) -> str:
    """Where the gateway serves an attachment, relative to its root."""
    return f"attachments/{quote(attachment.read_token, safe='')}"


def feedback_stats(run: run_pb2.Run) -> dict[str, Any] | None:
    """Feedback by key, summed up; None when there is none."""
    return feedback_by_key(run.feedback_stats) or None


def feedback_by_key(feedback: Mapping[str, run_pb2.FeedbackStats]) -> dict[str, Any]:
    """Feedback of each key, summed up."""
    return {
        key: {
            "n": stats.n,
            "avg": stats.avg if stats.HasField("avg") else None,
            "min": stats.min if stats.HasField("min") else None,
            "max": stats.max if stats.HasField("max") else None,
            "stdev": stats.stdev if stats.HasField("stdev") else None,
            "values": dict(stats.values),
            "comments": list(stats.comments),
            "errors": stats.errors,
            "sources": list(stats.sources),
            # The contract knows no way to give feedback on a thread.
            "contains_thread_feedback": False,
        }
        for key, stats in feedback.items()
    }
