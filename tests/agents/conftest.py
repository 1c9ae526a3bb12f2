"""One server with graphs for the tests of a process, and the published SDK."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from tests.contract.servers import Server, serving
from tests.postgres import Postgres

MANIFEST = Path(__file__).parent / "graphs" / "langgraph.json"


@pytest.fixture(autouse=True)
def no_sdk_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sees no settings but those that a test gives it."""
    for name in os.environ:
        if name.startswith(("LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a worker that has the test graphs; no test may leave a defect in its log.

    Catalog and checkpoints are in SQLite or, when asked for, in PostgreSQL.
    """
    databases = {}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        databases = {name: postgres.create_database() for name in ("catalog_url", "agent_checkpoint_url")}
    with serving(tmp_path_factory.mktemp("agents"), agents=str(MANIFEST), **databases) as running:
        yield running
        assert running.defects() == []


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    """The published SDK."""
    async with get_client(url=server.url, api_key=None) as client:
        yield client


@pytest.fixture
async def thread(client: LangGraphClient) -> str:
    """A thread that no other test uses."""
    return (await client.threads.create())["thread_id"]
