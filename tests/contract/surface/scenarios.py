"""Scenarios: each calls some methods of the SDK, and checks that they do what they say."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from langsmith import Client


@dataclass(frozen=True)
class World:
    """What all scenarios find on the server: a trace of two runs in a thread, an experiment on a dataset."""

    url: str
    client: Client
    """Prepares and looks up what a scenario is not about."""
    project: str = field(default_factory=lambda: f"surface-{uuid.uuid4().hex}")
    run_id: uuid.UUID = field(default_factory=uuid.uuid4)
    child_id: uuid.UUID = field(default_factory=uuid.uuid4)
    thread_id: str = field(default_factory=lambda: f"thread-{uuid.uuid4().hex}")
    started: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(minutes=5))

    def name(self) -> str:
        """One that nothing has yet."""
        return f"surface-{uuid.uuid4().hex}"

    @property
    def project_id(self) -> uuid.UUID:
        """Of the trace."""
        project: uuid.UUID = self.client.read_project(project_name=self.project).id
        return project

    def dataset(self, questions: int = 2) -> uuid.UUID:
        """A new dataset, whose example number n asks n and expects n."""
        made = self.client.create_dataset(self.name())
        examples = [{"inputs": {"q": n}, "outputs": {"a": n}} for n in range(questions)]
        if examples:
            self.client.create_examples(dataset_id=made.id, examples=examples)
        return made.id

    def prepare(self) -> None:
        """Writes the trace."""
        for name, run_id, parent_id in (
            ("root", self.run_id, None),
            ("child", self.child_id, self.run_id),
        ):
            self.client.create_run(
                name,
                {"q": "why"},
                "chain",
                id=run_id,
                parent_run_id=parent_id,
                start_time=self.started,
                end_time=self.started + timedelta(seconds=1),
                outputs={"a": "because"},
                project_name=self.project,
                extra={"metadata": {"thread_id": self.thread_id}},
            )


Scenario = Callable[[Any, World], None]
"""Takes the client under test, as `calling.Sdk`, and the world."""


@dataclass(frozen=True)
class Shown:
    """A scenario with the methods that it shows to work."""

    scenario: Scenario
    clients: tuple[str, ...]
    """Any of `Client`, `AsyncClient` and `generated`."""
    methods: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where it is written."""
        return f"{self.scenario.__module__.rpartition('.')[2]}.{self.scenario.__name__}"


SYNC: Final = ("Client",)
BOTH: Final = ("Client", "AsyncClient")
GENERATED: Final = ("generated",)

SHOWN: Final[list[Shown]] = []


def shows(clients: tuple[str, ...], *methods: str) -> Callable[[Scenario], Scenario]:
    """Registers a scenario."""

    def register(scenario: Scenario) -> Scenario:
        SHOWN.append(Shown(scenario, clients, methods))
        return scenario

    return register
