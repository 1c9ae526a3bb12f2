"""One engine for all conformance tests: chDB allows a single data directory per process.

Tests are kept apart by fresh tenants; nothing here truncates a table. With TESTS_ENGINE=front in the
environment they run against a server of the engine, through the HTTP client, with
TESTS_ENGINE=cluster against a cluster of one shard.
"""

import asyncio
import os
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.data_folder import copy_prepared
from tests.engine_front.front import engine_front

from runstore.storage.blobs import BlobStore, open_blob_store
from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store

from .pipeline import Pipeline

_KIND = os.environ.get("TESTS_ENGINE", "embedded")
CLUSTER = "one" if _KIND == "cluster" else ""


@pytest.fixture(scope="session")
def engine_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where every client of this process has to connect."""
    folder: Path = tmp_path_factory.mktemp("engine")
    if _KIND in ("front", "cluster"):
        with engine_front(folder, is_cluster=_KIND == "cluster") as front:
            yield front.dsn
    else:
        copy_prepared(folder / "data")
        yield f"chdb://{folder / 'data' / 'clickhouse'}"


@pytest.fixture(scope="session")
def run_store(engine_dsn: str) -> Iterator[ClickHouseRunStore]:
    """The store under test, with its schema; it works on any event loop."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(open_run_store(engine_dsn, cluster=CLUSTER)))
        yield store
        runner.run(stack.aclose())


@pytest.fixture
def tenant_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    """Blobs in a folder."""
    return open_blob_store(str(tmp_path_factory.mktemp("blobs")))


@pytest.fixture
def pipeline(run_store: ClickHouseRunStore, blobs: BlobStore) -> Pipeline:
    """Operations in, runs out, without log or transport."""
    return Pipeline(run_store, blobs)
