"""What unit tests of several parts need."""

import asyncio
from pathlib import Path

import pytest
from tests.manual_clock import ManualClock

from runstore.catalog.database import open_database
from runstore.catalog.migrations import migrate


@pytest.fixture
def clock() -> ManualClock:
    """A clock that only the test moves."""
    return ManualClock()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file without rows, to be copied: its migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.sqlite"

    async def open_and_close() -> None:
        async with open_database(f"sqlite:///{path}") as database:
            await migrate(database)

    asyncio.run(open_and_close())
    return path
