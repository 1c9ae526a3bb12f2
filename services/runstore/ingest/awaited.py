"""The runs that parked operations wait for.

Most arrive through the store that parked. When several stores share an engine, a run may also arrive through
another one, of which nobody tells: so it is looked for, soon at first and then ever more rarely.
"""

import heapq
import time
from collections.abc import Callable, Mapping
from typing import Final

RunRef = tuple[str, str]
"""(tenant id, run id)"""

_FIRST_LOOK_S: Final = 0.2
_LAST_LOOK_S: Final = 600.0
_LOOKED_UP_AT_ONCE: Final = 1_000


class AwaitedRuns:
    """How many operations wait for each run, and when to look for it next."""

    def __init__(
        self,
        counts: Mapping[RunRef, int],
        *,
        looks: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`looks`: whether runs may arrive through other stores. `clock`: seconds that never go back."""
        self._counts = dict(counts)
        self._looks = looks
        self._clock = clock
        self._due: list[tuple[float, float, RunRef]] = []
        for ref in self._counts:
            self._look_after(ref, _FIRST_LOOK_S)

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, ref: RunRef) -> bool:
        return ref in self._counts

    @property
    def run_ids(self) -> frozenset[str]:
        """Ids of the runs."""
        return frozenset(run_id for _, run_id in self._counts)

    def add(self, ref: RunRef) -> None:
        """One more operation waits for the run."""
        self._counts[ref] = self._counts.get(ref, 0) + 1
        if self._counts[ref] == 1:
            self._look_after(ref, _FIRST_LOOK_S)

    def remove(self, ref: RunRef) -> None:
        """One operation does not wait for it any more; it may be one that another store has parked."""
        left = self._counts.get(ref, 0) - 1
        if left > 0:
            self._counts[ref] = left
        else:
            self._counts.pop(ref, None)

    @property
    def next_look_s(self) -> float | None:
        """Seconds until `due` has something to look for, at most 0 when it has; None for never."""
        while self._due and self._due[0][2] not in self._counts:
            heapq.heappop(self._due)
        return self._due[0][0] - self._clock() if self._due else None

    def due(self) -> list[RunRef]:
        """The runs to look for now; those that are not there are due again later."""
        found: dict[RunRef, float] = {}
        while len(found) < _LOOKED_UP_AT_ONCE and (left_s := self.next_look_s) is not None and left_s <= 0:
            _, pause_s, ref = heapq.heappop(self._due)
            found[ref] = pause_s
        for ref, pause_s in found.items():
            self._look_after(ref, min(2 * pause_s, _LAST_LOOK_S))
        return list(found)

    def _look_after(self, ref: RunRef, pause_s: float) -> None:
        if self._looks:
            heapq.heappush(self._due, (self._clock() + pause_s, pause_s, ref))
