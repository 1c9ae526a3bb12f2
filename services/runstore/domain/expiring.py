"""A bounded map whose entries expire, cheap enough to be asked once per ingested run."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from runstore.runtime.clock import Clock

K = TypeVar("K")
V = TypeVar("V")


_maps: "WeakSet[ExpiringMap[Any, Any]]" = WeakSet()


class ExpiringMap(Generic[K, V]):
    """Keeps up to `max_entries` values for `ttl_s` seconds each; the oldest entry makes room.

    A hit is one dict look-up and one reading of the clock (a tenth of what general cache
    libraries need for their bookkeeping): the ingest path asks once per run.

    A value read from a database may be outdated by the time it is put here. Take a `ticket` before
    reading and pass it to `put`: nothing is kept when anything was forgotten in between.
    """

    def __init__(self, clock: Clock, *, max_entries: int, ttl_s: float, name: str = "") -> None:
        """`name` is that of its figures in `cache_figures`; without one it has none."""
        self.name = name
        self.hits = 0
        """Times that a value was there."""
        self.misses = 0
        """Times that none was."""
        self._clock = clock
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._forgotten = 0
        self._entries: dict[K, tuple[V, float]] = {}
        if name:
            _maps.add(self)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        value, expires_at = entry
        if self._clock.monotonic() < expires_at:
            self.hits += 1
            return value
        self.misses += 1
        del self._entries[key]
        return None

    @property
    def size(self) -> int:
        """Values that are kept, those included that have expired and were not asked for since."""
        return len(self._entries)

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


@dataclass(slots=True)
class CacheFigures:
    """What the maps of one name have done in this process, together."""

    hits: int = 0
    misses: int = 0
    entries: int = 0


def cache_figures() -> dict[str, CacheFigures]:
    """The figures of all maps of this process that have a name, by name."""
    figures: dict[str, CacheFigures] = {}
    for each in list(_maps):
        of_name = figures.setdefault(each.name, CacheFigures())
        of_name.hits += each.hits
        of_name.misses += each.misses
        of_name.entries += each.size
    return figures
