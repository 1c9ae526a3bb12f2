"""Assistants: graphs with a configuration of their own."""

import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_ASSISTANT_PAGE: Final = 1_000

# Not one of RFC 4122's namespaces; the contract's ids depend on it (agents.md, section 3).
_DEFAULT_ASSISTANTS: Final = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistant:
    """One version of an assistant; JSON objects as bytes."""

    assistant_id: str
    tenant_id: str
    graph_id: str
    name: str
    description: str | None = None
    config: bytes = b"{}"
    context: bytes = b"{}"
    metadata: bytes = b"{}"
    version: int = 1
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that a worker has."""

    graph_id: str
    name: str
    """Name of its default assistant."""
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantPatch:
    """What a new version changes, or a new assistant begins with; None leaves what there is."""

    graph_id: str | None = None
    config: bytes | None = None
    context: bytes | None = None
    metadata: bytes | None = None
    """Its keys replace those of the same name."""
    name: str | None = None
    description: str | None = None


class AssistantOrder(Enum):
    """What assistants are listed by."""

    CREATE_TIME = "created_at_us"
    UPDATE_TIME = "updated_at_us"
    NAME = "name"
    ASSISTANT_ID = "assistant_id"
    GRAPH_ID = "graph_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantFilter:
    """Which assistants to list, and how. Conditions left at None do not restrict."""

    graph_id: str | None = None
    metadata: dict[str, object] | None = None
    """What theirs contains."""
    name_contains: str | None = None
    order: AssistantOrder = AssistantOrder.CREATE_TIME
    ascending: bool = False
    offset: int = 0
    limit: int = 10


def default_assistant_id(graph_id: str) -> str:
    """Id of the assistant that every registered graph has."""
    return str(uuid.uuid5(_DEFAULT_ASSISTANTS, graph_id))


def assistant_id_of(id_or_graph: str) -> str:
    """The canonical id that a UUID or the name of a graph stands for, be there such an assistant or not."""
    try:
        return str(uuid.UUID(id_or_graph))
    except ValueError:
        return default_assistant_id(id_or_graph)
