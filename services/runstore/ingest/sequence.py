"""Sequence numbers: the one order of all operations, across restarts and replicas.

A number is a hybrid clock: microseconds since the Unix epoch in the high 52 bits, a counter in the
low 12. It never repeats and never goes back, whatever the wall clock does.
"""

from runstore.runtime.clock import Clock

_COUNTER_BITS = 12


class Sequence:
    """Hands out sequence numbers. Not thread-safe: one event loop owns it."""

    def __init__(self, clock: Clock, last: int = 0) -> None:
        """Continue behind `last`, the highest number that may have been handed out before."""
        self._clock = clock
        self.last = last

    def take(self, count: int) -> int:
        """Reserve `count` consecutive numbers and return the first."""
        first = max(self.last + 1, self._clock.now_us() << _COUNTER_BITS)
        self.last = first + count - 1
        return first


def accepted_time_us(sequence: int) -> int:
    """When the operation with this number was accepted; ahead of the wall clock if that went back."""
    return sequence >> _COUNTER_BITS
