"""Stores side by side."""

from dataclasses import dataclass
from typing import Final

MAX_STORES: Final = 256
"""On one catalog. A sequence number names its store in its last byte."""


@dataclass(frozen=True, slots=True)
class StorePosition:
    """How far a store has come."""

    stored_sequence: int
    """Everything that it acknowledged up to here can be read."""
    seen_at_us: int
    """When it said so."""
