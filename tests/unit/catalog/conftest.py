"""A real SQLite catalog in a temporary folder, on a clock that tests move."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runstore.catalog import Catalog, open_catalog


class ManualClock:
    """Stands still until it is told to advance."""

    def __init__(self) -> None:
        self._now_us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._now_us / 1_000_000

    def advance(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'data' / 'catalog.sqlite'}"


@pytest_asyncio.fixture
async def catalog(url: str, clock: ManualClock) -> AsyncIterator[Catalog]:
    async with open_catalog(url, clock) as opened:
        yield opened


@pytest_asyncio.fixture
async def other(url: str, catalog: Catalog, clock: ManualClock) -> AsyncIterator[Catalog]:
    """A second process on the same database, with its own memory."""
    async with open_catalog(url, clock) as opened:
        yield opened
