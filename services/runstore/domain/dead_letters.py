"""Dead letters: operations that were acknowledged and that the engine refuses, kept for an operator."""

import re
from dataclasses import dataclass
from enum import Enum

from runstore.domain.feedback import FeedbackPatch
from runstore.domain.runs import RunPatch

_ID = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One operation that could not be stored."""

    tenant_id: str
    run_id: str
    """Run of the operation; nil for feedback on a project."""
    sequence: int
    """Place of the operation in the order of all; a replay keeps it."""
    reason: str
    """Why the engine refuses it, in the engine's words."""
    size_bytes: int
    """Of the operation as it is kept."""
    buried_at_us: int
    """When it was refused the last time; 0 when that was not written down."""
    burials: frozenset[str]
    """Each time that it was refused, by an id: what tells a letter from the same one refused again."""
    patch: RunPatch | FeedbackPatch | None = None
    """The operation; None in lists, and when this version cannot read it."""

    @property
    def id(self) -> str:
        """Names the letter: its place in the order, and the beginning of its run's id."""
        return f"{self.sequence:016x}-{self.run_id[:8]}"


def is_dead_letter_id(text: str) -> bool:
    """Whether `text` could be the id of a letter."""
    return _ID.fullmatch(text) is not None


class ReplayOutcome(Enum):
    """What became of a letter that was replayed."""

    STORED = "stored"
    """The operation can be read; the letter is gone."""
    REFUSED = "refused"
    """It is still a letter."""
    NOT_FOUND = "not_found"
    """There is no such letter, any more."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A letter and what became of it."""

    id: str
    outcome: ReplayOutcome
    reason: str = ""
    """Why it was refused."""
