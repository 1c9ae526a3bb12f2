"""Sequence numbers: the one order of all operations, across restarts and stores.

A number is a hybrid clock: microseconds since the Unix epoch in the high 52 bits, a counter in the next
four, and in the last byte the store that gave it. So no two stores give the same one. A store's numbers never
repeat and never go back, whatever the wall clock does.
"""

from typing import Final

from runstore.domain.stores import MAX_STORES
from runstore.runtime.clock import Clock

ALL_TAKEN: Final = 2**64
"""Beyond every number; for those who wait: all that this store has taken so far."""

_LOW_BITS = 12


class Sequence:
    """Hands out sequence numbers. Not thread-safe: one event loop owns it."""

    def __init__(self, clock: Clock, last: int = 0, node: int = 0) -> None:
        """Continue behind `last`, the highest number that store `node` may have handed out before."""
        self._clock = clock
        self._node = node
        self.last = last

    def take(self, count: int) -> range:
        """Reserve `count` numbers, at least one, and return them in their order."""
        first = max(self.last + 1, sequence_at(self._clock.now_us()))
        first += (self._node - first) % MAX_STORES
        self.last = first + (count - 1) * MAX_STORES
        return range(first, self.last + 1, MAX_STORES)


def accepted_time_us(sequence: int) -> int:
    """When the operation with this number was accepted; ahead of the wall clock if that went back."""
    return sequence >> _LOW_BITS


def sequence_at(time_us: int) -> int:
    """Smaller than the number of anything accepted then, by whichever store."""
    return time_us << _LOW_BITS


def node_of(sequence: int) -> int:
    """The store that gave the number."""
    return sequence % MAX_STORES
