"""Slows down callers that go on and on with what is refused, so that the work is left for others.

A leaky bucket for each caller: what was done in vain for it fills the bucket, a point a second leaks out.
Above a level the caller waits before it is looked at again, the longer the fuller the bucket. Successes take
nothing out: a flood whose every tenth call is good would never be slowed. Who waits sends less, so the bucket
settles where a caller is refused about once a second; one that runs into its limit of runs or queries ends up
near that limit, instead of being locked out.
"""

import hashlib
from collections.abc import Hashable, Iterable
from typing import Final, TypeAlias

from runstore.domain.expiring import ExpiringMap
from runstore.domain.networks import client_network
from runstore.runtime.clock import Clock

TOLERATED: Final = 100.0
"""Points that a caller may have all at once without waiting."""
MAX_PAUSE_S: Final = 10.0

_LEAK_PER_S: Final = 1.0
_PAUSE_S_PER_POINT: Final = 0.05
_MAX_POINTS: Final = TOLERATED + MAX_PAUSE_S / _PAUSE_S_PER_POINT
_MAX_CALLERS: Final = 10_000
_KNOWN_FOR_S: Final = 600.0

# A body that is too large was read, and perhaps decompressed, in vain.
_POINTS: Final = {413: 25.0, 429: 1.0}
# Of calls that were not admitted, good or bad: 50 a second are nobody's pages and probes.
_STRANGER_POINTS: Final = 0.02

Caller: TypeAlias = tuple[str, bytes]
"""Network, and digest of the credential; b"" for all in it whose credential was not good lately."""


def stranger_at(address: str) -> Caller:
    """All callers at an address whose credential was not good lately, as one."""
    return client_network(address), b""


class Pacing:
    """The buckets of one process. Bounded: of many callers, those charged first are forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Caller → points, and when it had them.
        self._points: dict[Hashable, tuple[float, float]] = {}

    def charge(self, caller: Hashable, points: float) -> None:
        """Put `points` on a caller."""
        points += self._points_of(caller)
        self._points.pop(caller, None)  # So that the dict's order is that of the last charges.
        if len(self._points) >= _MAX_CALLERS:
            del self._points[next(iter(self._points))]
        self._points[caller] = (min(points, _MAX_POINTS), self._clock.monotonic())

    def pause_s(self, caller: Hashable) -> float:
        """How long the caller has to wait: from 0 to `MAX_PAUSE_S`."""
        if caller not in self._points:  # As almost always.
            return 0.0
        return max(0.0, self._points_of(caller) - TOLERATED) * _PAUSE_S_PER_POINT

    def _points_of(self, caller: Hashable) -> float:
        points, since = self._points.get(caller, (0.0, 0.0))
        return max(0.0, points - (self._clock.monotonic() - since) * _LEAK_PER_S) if points else 0.0


class PacedCallers:
    """Who is slowed down, and for which calls.

    Callers with a good credential are told apart by it, because many may share the address of a proxy. All
    others are one caller for each address, because strangers invent credentials.
    """

    def __init__(self, pacing: Pacing, clock: Clock) -> None:
        self._pacing = pacing
        self._known: ExpiringMap[Caller, bool] = ExpiringMap(
            clock, max_entries=_MAX_CALLERS, ttl_s=_KNOWN_FOR_S
        )

    def named(self, address: str, credentials: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller by what it shows: the names and values of its `CREDENTIAL_HEADERS`."""
        digest = hashlib.sha256()
        for pair in credentials:
            digest.update(b"%b\0%b\0" % pair)
        return client_network(address), digest.digest()

    def pause_s(self, named: Caller) -> float:
        """How long a call has to wait, before anything is done for it."""
        return self._pacing.pause_s(self._who(named))

    def ended(self, named: Caller, status: int, *, is_admitted: bool) -> None:
        """Charge for a call that ended with this status of HTTP."""
        if is_admitted and self._known.get(named) is None:
            self._known.put(named, True, self._known.ticket())
        points = _POINTS.get(status, 0.0 if is_admitted else _STRANGER_POINTS)
        if points:
            self._pacing.charge(self._who(named), points)

    def _who(self, named: Caller) -> Caller:
        return named if self._known.get(named) else (named[0], b"")
