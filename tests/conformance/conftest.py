"""One engine for all conformance tests: chDB allows a single data directory per process.

Tests are kept apart by fresh tenants; nothing here truncates a table.
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store

from .pipeline import Pipeline


@pytest.fixture(scope="session")
def engine_dsn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where every client of this process has to connect."""
    folder: Path = tmp_path_factory.mktemp("engine")
    return f"chdb://{folder}"


@pytest.fixture(scope="session")
def run_store(engine_dsn: str) -> Iterator[ClickHouseRunStore]:
    """The store under test, with its schema; it works on any event loop."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(open_run_store(engine_dsn)))
        yield store
        runner.run(stack.aclose())


@pytest.fixture
def tenant_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def pipeline(run_store: ClickHouseRunStore) -> Pipeline:
    """Operations in, runs out, without log or transport."""
    return Pipeline(run_store)
