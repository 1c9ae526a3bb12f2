"""What the body of a log's frame holds: one tenant's operations on runs or on feedback, or a deletion."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from runstore.domain.deletions import RunDeletion
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.runs import RunPatch


class _Other(msgspec.Struct, omit_defaults=True):
    """What is not building runs: operations of that kind, a thousand times as many, stand in a plain list."""

    feedback: list[FeedbackPatch] = []
    deletion: RunDeletion | None = None


_Body: TypeAlias = list[RunPatch] | _Other
_DECODER: Final = msgspec.msgpack.Decoder(_Body)


def encode_runs(patches: Sequence[RunPatch]) -> bytes:
    """The body for operations on runs."""
    return msgspec.msgpack.encode(patches)


def encode_feedback(patches: Sequence[FeedbackPatch]) -> bytes:
    """The body for operations on feedback."""
    return msgspec.msgpack.encode(_Other(list(patches)))


def encode_deletion(deletion: RunDeletion) -> bytes:
    """The body for a deletion, which stands alone in its frame."""
    return msgspec.msgpack.encode(_Other(deletion=deletion))


def decode(body: bytes) -> tuple[list[RunPatch], list[FeedbackPatch], RunDeletion | None]:
    """The operations of a frame, in order, which are all of one kind."""
    decoded = _DECODER.decode(body)
    return ([], decoded.feedback, decoded.deletion) if isinstance(decoded, _Other) else (decoded, [], None)
