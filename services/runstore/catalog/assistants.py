"""Assistants in the catalog, and the graphs that workers have registered: each has a default assistant."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, insert, select, update

from runstore.catalog.agent_tables import assistant_versions, assistants
from runstore.catalog.database import Conflict, Database
from runstore.domain.assistants import Assistant, Graph, default_assistant_id
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.runtime.clock import Clock

_SYSTEM = b'{"created_by":"system"}'
_VERSIONED = ("version", "graph_id", "name", "description", "config", "context", "metadata")

_assistants = assistants.c


class AssistantCatalog:
    """Reads and writes assistants, always inside one tenant.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def register(self, tenant_id: str, graphs: Sequence[Graph]) -> None:
        """The default assistants of `graphs` exist afterwards, with the graphs' names and descriptions."""
        ids = {default_assistant_id(graph.graph_id): graph for graph in graphs}
        query = select(assistants).where(
            _assistants.tenant_id == tenant_id, _assistants.assistant_id.in_(ids)
        )
        async with self._database.read() as connection:
            known = {row.assistant_id: row for row in await connection.execute(query)}
        for assistant_id, graph in ids.items():
            row = known.get(assistant_id)
            if row is None:
                await self._create_default(tenant_id, assistant_id, graph)
            elif row.metadata == _SYSTEM and (row.name, row.description) != (graph.name, graph.description):
                described = {"name": graph.name, "description": graph.description}
                async with self._database.write() as connection:
                    await connection.execute(
                        update(assistants).where(_is(tenant_id, assistant_id)).values(described)
                    )

    async def _create_default(self, tenant_id: str, assistant_id: str, graph: Graph) -> None:
        now_us = self._clock.now_us()
        row = {
            "tenant_id": tenant_id,
            "assistant_id": assistant_id,
            "graph_id": graph.graph_id,
            "name": graph.name,
            "description": graph.description,
            "config": b"{}",
            "context": b"{}",
            "metadata": _SYSTEM,
            "version": 1,
            "created_at_us": now_us,
            "updated_at_us": now_us,
        }
        version = {key: row[key] for key in ("tenant_id", "assistant_id", *_VERSIONED, "created_at_us")}
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(assistants).values(row))
                await connection.execute(insert(assistant_versions).values(version))
        except Conflict:  # Another worker with the same graph was first.
            pass

    async def resolve(self, tenant_id: str, name: str) -> Assistant:
        """The assistant of the id `name`, or the default one of the graph `name`.

        Raises NOT_FOUND for an unknown id, INVALID_ARGUMENT for a name that is neither an id nor a graph.
        """
        try:
            assistant_id, is_id = str(uuid.UUID(name)), True
        except ValueError:
            assistant_id, is_id = default_assistant_id(name), False
        async with self._database.read() as connection:
            query = select(assistants).where(_is(tenant_id, assistant_id))
            row = (await connection.execute(query)).one_or_none()
        if row is not None:
            return _assistant(row)
        if is_id:
            raise RunstoreError(
                ErrorReason.NOT_FOUND, f"there is no assistant {assistant_id}", field="assistant_id"
            )
        raise invalid("assistant_id", "neither the id of an assistant nor the name of a registered graph")


def _is(tenant_id: str, assistant_id: str) -> Any:
    return and_(_assistants.tenant_id == tenant_id, _assistants.assistant_id == assistant_id)


def _assistant(row: Row[Any]) -> Assistant:
    return Assistant(**row._mapping)
