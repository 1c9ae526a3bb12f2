"""Slows down whoever guesses credentials: failed attempts are counted by the address that they come from."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.expiring import ExpiringMap
from runstore.domain.networks import client_network
from runstore.runtime.clock import Clock

_MAX_ADDRESSES: Final = 10_000
_MAX_KNOWN: Final = 10_000
# A client that was let in goes on, whatever its neighbours behind the same address do.
_KNOWN_FOR_S: Final = 600.0
_MINUTE_S: Final = 60.0


class FailedAttempts:
    """So many failures a minute for each address, all of them at once if need be; then it has to wait.

    Attempts come back one by one, so a neighbour behind the same address is not locked out for long; other
    addresses never are.

    Bounded in memory: of many addresses, those that failed first are forgotten first.
    """

    def __init__(self, clock: Clock, *, per_minute: int) -> None:
        self._clock = clock
        self._burst = float(per_minute)
        self._per_s = per_minute / _MINUTE_S
        # Address → attempts left, and when that was so.
        self._left: dict[str, tuple[float, float]] = {}
        # Digests of credentials.
        self._known: ExpiringMap[bytes, bool] = ExpiringMap(clock, max_entries=_MAX_KNOWN, ttl_s=_KNOWN_FOR_S)

    @contextmanager
    def counted(self, address: str, credential: str) -> Iterator[None]:
        """Around a check of `credential`: one that ends with UNAUTHENTICATED is a failed attempt.

        Raises RATE_LIMITED before the check when the address has to wait, unless the credential was good
        lately. A call without a credential guesses nothing, and is not counted.
        """
        if not credential:
            yield
            return
        digest = hashlib.sha256(credential.encode()).digest()
        self._check(address, digest)
        try:
            yield
        except RunstoreError as error:
            if error.reason is ErrorReason.UNAUTHENTICATED:
                self._fail(address)
            raise
        if self._known.get(digest) is None:
            self._known.put(digest, True, self._known.ticket())

    def _check(self, address: str, digest: bytes) -> None:
        if not self._left:  # As almost always.
            return
        left = self._attempts(client_network(address))
        if left >= 1 or self._known.get(digest):
            return
        raise RunstoreError(
            ErrorReason.RATE_LIMITED,
            "too many bad credentials from this address",
            retry_after_s=math.ceil((1 - left) / self._per_s),
        )

    def _fail(self, address: str) -> None:
        name = client_network(address)
        left = max(self._attempts(name) - 1, 0.0)
        self._left.pop(name, None)  # So that the dict's order is that of the last failures.
        if len(self._left) >= _MAX_ADDRESSES:
            del self._left[next(iter(self._left))]
        self._left[name] = (left, self._clock.monotonic())

    def _attempts(self, name: str) -> float:
        left, since = self._left.get(name, (self._burst, 0.0))
        if left < self._burst:
            left = min(self._burst, left + (self._clock.monotonic() - since) * self._per_s)
        return left
