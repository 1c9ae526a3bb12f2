"""What was learned when runs were looked for, so that the next who asks the same looks where they are."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from runstore.domain.runs import RunQuery
from runstore.storage.clickhouse.list_sql import KeyRange, condition_of

_REMEMBERED_KINDS = 10_000
_REMEMBERED_S = 60.0
"""The next reader reads what came since: no more than may come in this time."""


class Way(NamedTuple):
    """How the newest runs that meet a condition are found by one statement."""

    floor_us: int | None
    """No further back than this; None for as far as there are rows."""
    driver: int | None
    """Which of the candidates names the rows to look at; None: they all do."""


_What = TypeVar("_What")
Memory: TypeAlias = OrderedDict[Hashable, tuple[_What, float]]
"""What was learned, and when."""


class Horizon(Generic[_What]):
    """Remembers for a while what was learned when the newest runs of a kind were looked for, so that whoever
    asks for them again need not look into parts of the table that are older. A guess, which the finder
    checks."""

    def __init__(self, memory: Memory[_What], query: RunQuery, key_range: KeyRange) -> None:
        self._memory = memory
        is_newest = query.descending and query.after is None and key_range.max_start_time_us is None
        self._kind = (query.tenant_id, key_range, condition_of(query), query.limit) if is_newest else None

    @property
    def known(self) -> _What | None:
        """None if nothing is, or not any more."""
        what, learned_s = self._memory.get(self._kind, (None, 0.0))
        return what if time.monotonic() - learned_s < _REMEMBERED_S else None

    def learned(self, what: _What) -> None:
        """From now on this is known."""
        if self._kind is None:
            return
        self._memory[self._kind] = what, time.monotonic()
        self._memory.move_to_end(self._kind)
        if len(self._memory) > _REMEMBERED_KINDS:
            self._memory.popitem(last=False)
