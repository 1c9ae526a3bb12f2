"""A bounded map whose entries expire, cheap enough to be asked once per ingested run."""

from typing import Generic, TypeVar

from runstore.runtime.clock import Clock

K = TypeVar("K")
V = TypeVar("V")


class ExpiringMap(Generic[K, V]):
    """Keeps up to `max_entries` values for `ttl_s` seconds each; the oldest entry makes room.

    A hit is one dict look-up and one reading of the clock (a tenth of what general cache
    libraries need for their bookkeeping): the ingest path asks once per run.

    A value read from a database may be outdated by the time it is put here. Take a `ticket` before
    reading and pass it to `put`: nothing is kept when anything was forgotten in between.
    """

    def __init__(self, clock: Clock, *, max_entries: int, ttl_s: float) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._forgotten = 0
        self._entries: dict[K, tuple[V, float]] = {}

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires_at = entry
        if self._clock.monotonic() < expires_at:
            return value
        del self._entries[key]
        return None

    def ticket(self) -> int:
        return self._forgotten

    def put(self, key: K, value: V, ticket: int) -> None:
        if ticket != self._forgotten:
            return
        self._entries.pop(key, None)  # So that the dict's order stays the order of insertion.
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, self._clock.monotonic() + self._ttl_s)

    def forget(self, key: K) -> None:
        self._forgotten += 1
        self._entries.pop(key, None)

    def forget_all(self) -> None:
        self._forgotten += 1
        self._entries.clear()
