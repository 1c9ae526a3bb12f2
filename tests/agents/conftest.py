"""One server with graphs for the tests of a process, and the published SDK."""

import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from tests.contract.servers import ROOT, Server, serving
from tests.postgres import Postgres

GUIDE = (ROOT / "docs" / "agents.md").read_text()
MANIFEST = Path(__file__).parent / "graphs" / "langgraph.json"


def blocks(language: str) -> list[str]:
    """The fenced blocks of docs/agents.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def manifest_with_the_guides_graphs(folder: Path) -> Path:
    """A langgraph.json of the tests' graphs and of those in docs/agents.md: one server is enough for both."""
    (folder / "agent.py").write_text(blocks("python")[0])
    guide = json.loads(blocks("json")[0])
    tests = json.loads(MANIFEST.read_text().replace('"./', f'"{MANIFEST.parent}/'))
    merged = {
        **tests,
        "dependencies": [str(MANIFEST.parent), *guide["dependencies"]],
        "graphs": {**tests["graphs"], **guide["graphs"]},
    }
    path = folder / "langgraph.json"
    path.write_text(json.dumps(merged))
    return path


@pytest.fixture(autouse=True)
def no_sdk_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sees no settings but those that a test gives it."""
    for name in os.environ:
        if name.startswith(("LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose worker has the graphs of the tests and of the guide; its log must stay without defects.

    Catalog and checkpoints are in SQLite or, when asked for, in PostgreSQL.
    """
    manifest = manifest_with_the_guides_graphs(tmp_path_factory.mktemp("graphs"))
    databases = {}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        databases = {name: postgres.create_database() for name in ("catalog_url", "agent_checkpoint_url")}
    with serving(
        tmp_path_factory.mktemp("agents"), agents=str(manifest), agent_slots="3", **databases
    ) as running:
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
