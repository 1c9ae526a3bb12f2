"""What tracers tell the soak's server: traces as batches of operations, in every order that is allowed.

Every value that an operation sets is unlike any other, so that a read tells which operation it is of.
"""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

RUN_TYPES = ("tool", "chain", "llm", "retriever", "embedding", "prompt", "parser")
PROJECTS = ("soak-a", "soak-b", "soak-c")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGE_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class Node:
    """Where a run truly is, whatever its operations tell of it."""

    run_id: str
    start_us: int
    project: str
    parent: "Node | None"

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The root first, the direct parent last."""
        return () if self.parent is None else (*self.parent.ancestors, self.parent.run_id)

    @property
    def trace_id(self) -> str:
        """Id of the root."""
        return self.run_id if self.parent is None else self.parent.trace_id

    @property
    def dotted_order(self) -> str:
        """The path from the root."""
        own = f"{_EPOCH + timedelta(microseconds=self.start_us):%Y%m%dT%H%M%S%fZ}{self.run_id}"
        return own if self.parent is None else f"{self.parent.dotted_order}.{own}"


@dataclass(frozen=True, slots=True)
class Operation:
    """A creation or an update."""

    node: Node
    is_create: bool
    is_bare: bool
    """Tells neither trace nor dotted order, and an update no project: the run has to be looked up."""
    told: dict[str, Any]
    """By the contract's names: times in microseconds; `inputs`, `outputs`, `events`, `serialized` as JSON
    text; `extra` as an object; `attachments` as name → (MIME type, content)."""


Batch = list[Operation]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a way to the server can carry."""

    bare: bool = True
    positioned: bool = True
    attachments: bool = True
    is_single: bool = False
    """One operation a request."""


@dataclass(slots=True)
class Story:
    """One trace: its batches, to be acknowledged one after the other."""

    batches: list[Batch] = field(default_factory=list)


class StoryTeller:
    """Makes stories for ever, the same for the same seed."""

    def __init__(self, seed: str, abilities: Abilities, now_us: Callable[[], int]) -> None:
        self._random = random.Random(seed)
        self._abilities = abilities
        self._now_us = now_us
        self._told = 0

    def story(self) -> Story:
        """The next trace."""
        chance = self._random
        is_bare = self._abilities.bare and (not self._abilities.positioned or chance.random() < 0.5)
        nodes = self._nodes()
        creates = [self._create(node, is_bare=is_bare) for node in nodes]
        rounds = [
            [self._update(node, is_bare=is_bare) for node in nodes if chance.random() < 0.8]
            for _ in range(chance.randint(1, 3))
        ]
        batches = self._arranged(creates, [batch for batch in rounds if batch])
        for _ in range(len(batches)):
            if chance.random() < 0.1:  # Repeated at any later time, as after a lost answer.
                position = chance.randrange(len(batches))
                batches.insert(chance.randint(position + 1, len(batches)), batches[position])
        return Story(batches)

    def _arranged(self, creates: Batch, rounds: list[Batch]) -> list[Batch]:
        match self._random.randrange(5):
            case 0:  # All at once.
                return [creates + [update for batch in rounds for update in batch]]
            case 1:  # Updates before what they update.
                return [*rounds, creates]
            case 2:  # Children before their parents, one by one.
                return [*([create] for create in reversed(creates)), *rounds]
            case 3:  # Updates between the creations.
                middle = len(creates) // 2
                return [batch for batch in (creates[:middle], *rounds, creates[middle:]) if batch]
        return [creates, *rounds]

    def _nodes(self) -> list[Node]:
        chance = self._random
        project = chance.choice(PROJECTS)
        start_us = self._now_us() - chance.randrange(60_000_000)
        nodes: list[Node] = []
        for index in range(chance.choice((1, 1, 2, 3, 5, 8))):
            run_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
            parent = chance.choice(nodes) if nodes else None
            nodes.append(Node(run_id, start_us + index * 1_000, project, parent))
        return nodes

    def _create(self, node: Node, *, is_bare: bool) -> Operation:
        told = {
            "name": self._token("name"),
            "run_type": self._random.choice(RUN_TYPES),
            "start_time": node.start_us,
            **self._some(("inputs", "tags", "extra", "serialized", "attachments")),
        }
        return Operation(node, is_create=True, is_bare=is_bare, told=told)

    def _update(self, node: Node, *, is_bare: bool) -> Operation:
        told = {
            "end_time": node.start_us + self._random.randrange(1, 10_000_000),
            **self._some(("outputs", "extra", "tags", "events", "error", "attachments", "name", "inputs")),
        }
        return Operation(node, is_create=False, is_bare=is_bare, told=told)

    def _some(self, names: tuple[str, ...]) -> dict[str, Any]:
        likely = {"inputs": 0.7, "outputs": 0.8, "extra": 0.8, "attachments": 0.1, "error": 0.1, "name": 0.1}
        return {
            name: self._value(name)
            for name in names
            if self._random.random() < likely.get(name, 0.3)
            and (name != "attachments" or self._abilities.attachments)
        }

    def _value(self, name: str) -> Any:
        chance = self._random
        token = self._token(name)
        match name:
            case "tags":
                return [token, "common"]
            case "error" | "name":
                return token
            case "extra":
                metadata = {"common": token, chance.choice("abc"): token, token: 1}
                return {"runtime": {"sdk": token}, chance.choice("xyz"): token, "metadata": metadata}
            case "events":
                return _json([{"name": "new_token", "time": "2026-11-20T12:00:00Z", "of": token}])
            case "attachments":
                size = chance.choice((0, 10, 1_000, 100_000))
                return {
                    chance.choice(("a", "b")): ("text/plain", (token * (1 + size // len(token))).encode())
                }
        text = "x" * (_LARGE_CHARS if chance.random() < 0.005 else chance.choice((10, 200, 2_000)))
        return _json({"of": token, "text": text, "unicode": "\u00e9\U0001f600"})

    def _token(self, name: str) -> str:
        self._told += 1
        return f"{name}-{self._random.getrandbits(40):x}-{self._told}"


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
