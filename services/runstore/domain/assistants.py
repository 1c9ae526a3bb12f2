"""Assistants: graphs with a configuration of their own."""

import uuid
from dataclasses import dataclass
from typing import Final

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


def default_assistant_id(graph_id: str) -> str:
    """Id of the assistant that every registered graph has."""
    return str(uuid.uuid5(_DEFAULT_ASSISTANTS, graph_id))
