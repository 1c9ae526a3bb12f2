"""Stores side by side on one engine and one catalog, each with a log of its own.

A store sees its own acknowledged writes at once. Those of the others are in their logs for a moment, which
nobody else can read; each says in the catalog how far it has stored them. A reader that brings the token of
a write waits for that, and so does whoever must not act before everything is stored.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import structlog

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.stores import StorePosition
from runstore.ingest.sequence import node_of, sequence_at
from runstore.runtime.clock import Clock

EVERYTHING: Final = 2**64 - 1
REMEMBERED_S: Final = 2.0
"""For how long a store may go by what it knows of the catalog."""

_REPORT_EVERY_S: Final = 1.0
_LEAST_PAUSE_S: Final = 0.05
_POLL_S: Final = 0.05
_PATIENCE_S: Final = 30.0
# Stores that have said nothing for longer are away: nothing moves there until they come back.
_AWAY_AFTER_US: Final = 5_000_000

logger = structlog.get_logger()


class Stores(Protocol):
    """Where stores say how far they are; `StoreCatalog` describes its methods."""

    async def report(self, node: int, stored_sequence: int) -> None: ...

    async def positions(self) -> Mapping[int, StorePosition]: ...


class Visibility(Protocol):
    """The writes of this store."""

    async def see_sequence(self, sequence: int) -> None:
        """Return once everything acknowledged so far, and up to this number, can be read."""
        ...


class Peers:
    """This store among the others. Every method may raise RunstoreError UNAVAILABLE for the catalog."""

    def __init__(
        self,
        stores: Stores | None,
        node: int,
        visibility: Visibility,
        stored_sequence: Callable[[], int],
        clock: Clock,
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`stores` is None for a store that is alone. `stored_sequence`: up to where all that it ever
        acknowledges can be read."""
        self._stores = stores
        self._node = node
        self._visibility = visibility
        self._stored_sequence = stored_sequence
        self._clock = clock
        self._patience_s = patience_s
        self._news = asyncio.Event()

    def stored(self) -> None:
        """More can be read than before: others may wait for it."""
        self._news.set()

    async def run(self) -> None:
        """Tell the others how far this store is, until it is cancelled."""
        if self._stores is None:
            return
        while True:
            try:
                await self._stores.report(self._node, self._stored_sequence())
            except RunstoreError as error:
                logger.warning("position_not_reported", reason=error.reason.name)
            await asyncio.sleep(_LEAST_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_EVERY_S):
                    await self._news.wait()
            self._news.clear()

    async def see_sequence(self, sequence: int) -> None:
        """Return once the write with this number can be read here, whichever store has taken it; beyond
        `EVERYTHING` all that this store has taken so far.

        Raises UNAVAILABLE when the other store has not stored it for some seconds.
        """
        if self._stores is None or sequence > EVERYTHING or node_of(sequence) == self._node:
            await self._visibility.see_sequence(sequence)
            return
        node = node_of(sequence)
        if await self._wait(lambda others: node not in others or others[node].stored_sequence >= sequence):
            return
        raise RunstoreError(ErrorReason.UNAVAILABLE, "the store that took the write has not stored it yet")

    async def settle(self) -> None:
        """Return once what the stores that are there have acknowledged so far can be read, or after some
        seconds: whoever calls must be right without it, only less quick."""
        if self._stores is None:
            return
        now_us = self._clock.now_us()
        sequence, here_since_us = sequence_at(now_us), now_us - _AWAY_AFTER_US
        if not await self._wait(
            lambda others: all(
                other.stored_sequence >= sequence or other.seen_at_us < here_since_us
                for other in others.values()
            )
        ):
            logger.warning("other_stores_lag")

    async def forgotten(self) -> bool:
        """Return once no store remembers what the catalog said before this call, and what they took because
        of it is settled; False at once for a store that is alone."""
        if self._stores is None:
            return False
        await asyncio.sleep(REMEMBERED_S)
        await self.settle()
        return True

    async def stored_everywhere(self) -> int:
        """Up to where everything that any store ever acknowledged can be read; `EVERYTHING` when alone.

        A store that is away holds it back, for its log may have more."""
        if self._stores is None:
            return EVERYTHING
        positions = [position.stored_sequence for position in (await self._stores.positions()).values()]
        return min(positions, default=0)

    async def _wait(self, is_enough: Callable[[Mapping[int, StorePosition]], bool]) -> bool:
        """Whether the positions of the other stores became so in time."""
        assert self._stores is not None  # noqa: S101 - callers have looked
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    positions = await self._stores.positions()
                    others = {node: each for node, each in positions.items() if node != self._node}
                    if is_enough(others):
                        return True
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return False
