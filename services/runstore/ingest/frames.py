"""What the body of a frame of the log holds: operations on runs, or operations on feedback, of one tenant."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from runstore.domain.feedback import FeedbackPatch
from runstore.domain.runs import RunPatch


class FeedbackBatch(msgspec.Struct):
    """Operations on feedback. Those on runs, a thousand times as many, stand in a plain list."""

    feedback: list[FeedbackPatch]


_Body: TypeAlias = list[RunPatch] | FeedbackBatch
_DECODER: Final = msgspec.msgpack.Decoder(_Body)


def encode_runs(patches: Sequence[RunPatch]) -> bytes:
    """The body for operations on runs."""
    return msgspec.msgpack.encode(patches)


def encode_feedback(patches: Sequence[FeedbackPatch]) -> bytes:
    """The body for operations on feedback."""
    return msgspec.msgpack.encode(FeedbackBatch(list(patches)))


def decode(body: bytes) -> tuple[list[RunPatch], list[FeedbackPatch]]:
    """The operations of a frame, in order; one of the lists is empty."""
    decoded = _DECODER.decode(body)
    return ([], decoded.feedback) if isinstance(decoded, FeedbackBatch) else (decoded, [])
