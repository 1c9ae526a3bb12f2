"""Real catalogs, in SQLite and in PostgreSQL, on a clock that tests move."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.manual_clock import ManualClock
from tests.postgres import Postgres

from runstore.catalog import Catalog, open_catalog, tables


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Of a file that is not there yet."""
    return f"sqlite:///{tmp_path / 'data' / 'catalog.sqlite'}"


@pytest.fixture(scope="session")
def migrated_url(postgres: Postgres) -> str:
    """Of a PostgreSQL database that all tests share, for making one takes longer than most of them."""
    url = postgres.create_database()

    async def open_and_close() -> None:
        async with open_catalog(url):
            pass

    asyncio.run(open_and_close())
    return url


@pytest.fixture
def postgresql_url(postgres: Postgres, migrated_url: str) -> str:
    """Of tables without rows."""
    postgres.truncate(migrated_url, tables.metadata.tables)
    return migrated_url


@pytest.fixture
def copied_url(sqlite_url: str, migrated_file: Path) -> str:
    """Of an SQLite file without rows."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.parent.mkdir()
    shutil.copy(migrated_file, path)
    return sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of a catalog of either kind in which nothing is stored yet."""
    fixture = "copied_url" if request.param == "sqlite" else "postgresql_url"
    chosen: str = request.getfixturevalue(fixture)
    return chosen


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """Of a database of either kind that has no tables yet."""
    if request.param == "sqlite":
        sqlite_url: str = request.getfixturevalue("sqlite_url")
        return sqlite_url
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.create_database()


@pytest_asyncio.fixture
async def catalog(url: str, clock: ManualClock) -> AsyncIterator[Catalog]:
    async with open_catalog(url, clock) as opened:
        yield opened


@pytest_asyncio.fixture
async def other(url: str, catalog: Catalog, clock: ManualClock) -> AsyncIterator[Catalog]:
    """A second process on the same database, with its own memory."""
    async with open_catalog(url, clock) as opened:
        yield opened
