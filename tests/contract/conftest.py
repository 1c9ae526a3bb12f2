"""Servers and SDK clients that the contract tests share."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from langsmith import AsyncClient, Client
from langsmith import utils as langsmith_utils
from tests.postgres import Postgres

from .servers import Server, serving
from .signing import JWT_SECRET, write_jwks

# Its assertions shall show what they compared.
pytest.register_assert_rewrite("tests.contract.surface")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The SDK deprecates half of the contract that runstore serves; its warnings would hide ours."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning"))


@pytest.fixture(autouse=True)
def no_sdk_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sees no settings but those that a test gives it."""
    for name in os.environ:
        if name.startswith(("LANGSMITH_", "LANGCHAIN_")):
            monkeypatch.delenv(name)
    # Cached for the life of the process; the overloads hide that.
    langsmith_utils.get_env_var.cache_clear()  # type: ignore[attr-defined]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Files marked `both_catalogs` meet a server with its catalog in SQLite and one with it in PostgreSQL."""
    mark = metafunc.definition.get_closest_marker("both_catalogs")
    if mark is not None and "server" in metafunc.fixturenames:
        marks = [pytest.mark.slow] if mark.kwargs.get("slow") else []
        catalogs = ["sqlite", pytest.param("postgresql", marks=marks)]
        metafunc.parametrize("server", catalogs, indirect=True, scope="module")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Server:
    """One server without authentication for all tests; none of them may leave a defect in its log."""
    running: Server = request.getfixturevalue(f"server_on_{getattr(request, 'param', 'sqlite')}")
    return running


@pytest.fixture(scope="session")
def server_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The usual one."""
    with serving(tmp_path_factory.mktemp("server"), gateway_workers="2") as running:
        yield running
        assert running.defects() == []


@pytest.fixture(scope="session")
def server_on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Server]:
    """The same with its catalog in PostgreSQL."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, catalog_url=postgres.create_database()) as running:
        yield running
        assert running.defects() == []


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server that wants API keys or service tokens, for all tests about them.

    It logs all it ever would, and takes any number of bad credentials, of which tests have many.
    """
    folder = tmp_path_factory.mktemp("guarded")
    settings = {"auth": "keys", "log_level": "debug", "failed_attempts_per_minute": "1000000"}
    settings["retention_interval_s"] = "1"  # Costs nothing as long as no tenant has a rule.
    tokens = {"jwt_secret": JWT_SECRET, "jwt_jwks_file": str(write_jwks(folder / "jwks.json"))}
    with serving(folder, **settings, **tokens) as running:
        yield running
        assert running.defects() == []


@pytest.fixture(scope="session")
def key(guarded: Server) -> str:
    """An API key of the guarded server."""
    return guarded.create_key("research")


@pytest.fixture(scope="session")
def foreign_key(guarded: Server) -> str:
    """An API key of another tenant of the guarded server."""
    return guarded.create_key("marketing")


@pytest.fixture
def project() -> str:
    """A project name that no other test uses."""
    return f"project-{uuid4().hex}"


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The newest synchronous SDK."""
    client = Client(server.url, api_key="any")
    yield client
    client.close()


@pytest.fixture
async def async_client(server: Server) -> AsyncIterator[AsyncClient]:
    """The newest asynchronous SDK; after ten seconds it would repeat a call, which may be a conflict."""
    async with AsyncClient(server.url, api_key="any", timeout_ms=(60_000,) * 4) as client:
        yield client
