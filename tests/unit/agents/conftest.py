"""A worker's parts without a store: graphs of `tests/agents/graphs`, checkpoints in a file of their own."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import Postgres

from runstore.agents.attempts import Attempt, Ended, Event
from runstore.agents.checkpoints import Checkpoints, open_checkpoints
from runstore.agents.execute import Execution, Surroundings
from runstore.agents.graphs import RegisteredGraph, load_graphs
from runstore.agents.json_values import from_json
from runstore.agents.leases import Lease
from runstore.agents.manifest import read_manifest
from runstore.agents.tracing import Tracing
from runstore.runtime.settings import extend_environment

MANIFEST = Path(__file__).parents[2] / "agents" / "graphs" / "langgraph.json"


@dataclass
class Bench:
    """Executes attempts as a worker would."""

    graphs: dict[str, RegisteredGraph]
    checkpoints: Checkpoints
    surroundings: Surroundings
    thread_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    said: list[Event] = field(default_factory=list)

    def execution(
        self, graph_id: str, run_id: str | None = None, number: int = 1, **kwargs: Any
    ) -> Execution:
        """One attempt on the bench's thread; `stateless` leaves the checkpoints out."""
        stateless = kwargs.pop("stateless", False)
        attempt = Attempt(
            run_id=run_id or str(uuid.uuid4()),
            thread_id=self.thread_id,
            assistant_id=str(uuid.uuid4()),
            graph_id=graph_id,
            number=number,
            kwargs=kwargs,
            metadata={"of": "the run"},
            has_checkpoints=not stateless,
        )
        self.said.clear()

        async def emit(event: Event) -> None:
            self.said.append(event)

        return Execution(attempt, self.graphs[graph_id], Lease(60), self.surroundings, emit)

    async def run(self, graph_id: str, **kwargs: Any) -> Ended:
        """The end of an attempt that is left alone."""
        ended = await self.execution(graph_id, **kwargs).run()
        assert ended is not None
        return ended

    async def result(self, graph_id: str, **kwargs: Any) -> Any:
        """What `wait` answers about it."""
        return from_json((await self.run(graph_id, **kwargs)).result)

    async def checkpoint_count(self) -> int:
        """Checkpoints of the thread."""
        config: Any = {"configurable": {"thread_id": self.thread_id}}
        return len([found async for found in self.checkpoints.saver.alist(config)])


@pytest.fixture(scope="session")
def graphs() -> dict[str, RegisteredGraph]:
    manifest = read_manifest(MANIFEST)
    extend_environment(manifest.environment)
    return load_graphs(manifest)


@pytest.fixture
def sqlite_location(tmp_path: Path) -> str:
    """Of a file that is not there yet."""
    return f"sqlite:///{tmp_path / 'data' / 'checkpoints.sqlite'}"


@pytest.fixture
def postgresql_location(postgres: Postgres) -> str:
    """Of an empty database."""
    return postgres.create_database()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def checkpoint_location(request: pytest.FixtureRequest) -> str:
    """Of an empty database of either kind."""
    location: str = request.getfixturevalue(f"{request.param}_location")
    return location


@pytest.fixture
async def bench(graphs: dict[str, RegisteredGraph], checkpoint_location: str) -> AsyncIterator[Bench]:
    async with open_checkpoints(checkpoint_location) as checkpoints:
        yield Bench(graphs, checkpoints, Surroundings(checkpoints, None, Tracing(None), 60.0))
