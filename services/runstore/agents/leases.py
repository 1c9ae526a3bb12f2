"""Until when a worker may act for a run: renewed by heartbeats, checked before each write."""

import asyncio
import time
from collections.abc import Callable

from runstore.agents.failures import LeaseLost

# A write that begins this long before the end has ended by then; the database gives up sooner.
_MARGIN_S = 10.0
_POLL_S = 0.02


class Lease:
    """One attempt's right to write. Any thread may use it: each attribute is written at once."""

    def __init__(self, lease_s: float, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._margin_s = min(_MARGIN_S, lease_s / 3)
        self._lost = False
        self._until_s = monotonic_s() + lease_s

    def renew(self, until_s: float) -> None:
        """The store has confirmed the lease until `until_s` of the monotonic clock."""
        self._until_s = until_s

    def suspend(self) -> None:
        """The store may have cut the lease short: nothing is written until it is renewed."""
        self._until_s = 0.0

    def lose(self) -> None:
        """The run belongs to this attempt no longer, or has ended."""
        self._lost = True

    @property
    def is_lost(self) -> bool:
        """Whether it will never be held again."""
        return self._lost

    @property
    def is_held(self) -> bool:
        """Whether a write that starts now ends within the lease."""
        return not self._lost and self._monotonic_s() < self._until_s - self._margin_s

    async def held(self) -> None:
        """Returns once it is held: at once, but while the store is away. Raises LeaseLost when it is lost."""
        while not self.is_held:
            if self._lost:
                raise LeaseLost("the lease of this attempt is lost")
            await asyncio.sleep(_POLL_S)
