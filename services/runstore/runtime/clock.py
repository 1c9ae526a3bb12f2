"""The time, as something to pass in: tests drive it, production reads the system's.

Imports nothing of runstore, so every layer may depend on it.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one for timestamps that are stored, one for durations inside this process."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC. May jump when the system's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The operating system's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()
