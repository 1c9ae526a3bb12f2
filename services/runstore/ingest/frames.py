"""What a log's frame holds: one tenant's operations on runs or on feedback, or one that stands alone."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from runstore.domain.deletions import RunDeletion
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunPatch

Alone: TypeAlias = RunDeletion | TraceKeep
"""An operation before which everything is to be stored, and nothing after it."""


class _Other(msgspec.Struct, omit_defaults=True):
    """What is not building runs: operations of that kind, a thousand times as many, stand in a plain list."""

    feedback: list[FeedbackPatch] = []
    deletion: RunDeletion | None = None
    keep: TraceKeep | None = None


_Body: TypeAlias = list[RunPatch] | _Other
_DECODER: Final = msgspec.msgpack.Decoder(_Body)


def encode_runs(patches: Sequence[RunPatch]) -> bytes:
    """The body for operations on runs."""
    return msgspec.msgpack.encode(patches)


def encode_feedback(patches: Sequence[FeedbackPatch]) -> bytes:
    """The body for operations on feedback."""
    return msgspec.msgpack.encode(_Other(list(patches)))


def encode_alone(operation: Alone) -> bytes:
    """The body for an operation that stands alone in its frame."""
    if isinstance(operation, TraceKeep):
        return msgspec.msgpack.encode(_Other(keep=operation))
    return msgspec.msgpack.encode(_Other(deletion=operation))


def decode(body: bytes) -> tuple[list[RunPatch], list[FeedbackPatch], Alone | None]:
    """The operations of a frame, in order, which are all of one kind."""
    decoded = _DECODER.decode(body)
    if isinstance(decoded, _Other):
        return [], decoded.feedback, decoded.deletion or decoded.keep
    return decoded, [], None
