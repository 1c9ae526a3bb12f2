"""Bodies of the log's frames, by what they hold."""

import msgspec

from runstore.domain.deletions import RunDeletion
from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunPatch
from runstore.ingest import frames

RUNS = [RunPatch("t", f"run {number}", sequence=number, inputs=b"{}") for number in range(3)]
FEEDBACK = [
    FeedbackPatch("t", "a", None, FeedbackAction.CREATE, sequence=1, key="k", score=0.0, value=b'"\xff"'),
    FeedbackPatch("t", "b", "run", FeedbackAction.DELETE, sequence=2),
]


def test_what_is_encoded_is_decoded() -> None:
    """Operations come back whole and in order, as what they were."""
    assert frames.decode(frames.encode_runs(RUNS)) == (RUNS, [], None)
    assert frames.decode(frames.encode_feedback(FEEDBACK)) == ([], FEEDBACK, None)
    deletion = RunDeletion("t", 5, ("run 1",), ("trace",), "project")
    assert frames.decode(frames.encode_alone(deletion)) == ([], [], deletion)
    keep = TraceKeep("t", 6, ("run 1",), ("trace",))
    assert frames.decode(frames.encode_alone(keep)) == ([], [], keep)


def test_a_log_from_before_feedback_is_read() -> None:
    """A frame of operations on runs is what it always was: their plain list."""
    assert frames.encode_runs(RUNS) == msgspec.msgpack.encode(RUNS)
