"""Removes what has outlived its time; that nobody sees it any more is not the sweeper's doing."""

import asyncio
from typing import Final, Protocol

import structlog

from runstore.domain.errors import RunstoreError

_EVERY_S: Final = 60.0

_log = structlog.get_logger(__name__)


class Items(Protocol):
    """Where the items are."""

    async def forget_expired(self) -> int:
        """Removes those that have outlived their time; answers how many."""
        ...


class Sweeper:
    """Looks once a minute. Any number of stores may do so on one catalog."""

    def __init__(self, items: Items) -> None:
        self._items = items

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            try:
                if count := await self._items.forget_expired():
                    _log.info("items_expired", count=count)
            except RunstoreError as error:
                _log.warning("items_not_swept", reason=error.reason.name)
            await asyncio.sleep(_EVERY_S)
