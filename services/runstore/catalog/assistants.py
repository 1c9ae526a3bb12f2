"""Assistants in the catalog, and the graphs that workers have registered."""

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, Select, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import agent_tables as tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.json_matching import counted_page, page_containing
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_description, check_name, json_object
from runstore.domain.assistants import (
    MAX_ASSISTANT_PAGE,
    Assistant,
    AssistantFilter,
    AssistantPatch,
    Graph,
    assistant_id_of,
    default_assistant_id,
)
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.runtime.clock import Clock

_assistants = tables.assistants.c
_versions = tables.assistant_versions.c

_UNTITLED = "Untitled"
_MADE_BY_SYSTEM = b'{"created_by":"system"}'
# What a version keeps of an assistant.
_VERSIONED = ("graph_id", "config", "context", "metadata", "name", "description", "version")


class AssistantCatalog:
    """Reads and writes assistants, always inside one tenant.

    A graph has a default assistant from when a worker registers it; one that was deleted comes back when a
    worker registers its graph again. Ids are canonical UUID text. Every method may raise RunstoreError
    UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def register(self, tenant_id: str, graphs: Sequence[Graph]) -> None:
        """The default assistants of `graphs` exist afterwards, with the graphs' names and descriptions,
        unless somebody has changed them.

        Raises INVALID_ARGUMENT for a name that cannot be stored. Safe to repeat.
        """
        ids = {default_assistant_id(graph.graph_id): graph for graph in graphs}
        query = select(tables.assistants).where(
            _assistants.tenant_id == tenant_id, _assistants.assistant_id.in_(ids)
        )
        async with self._database.read() as connection:
            known = {row.assistant_id: row for row in await connection.execute(query)}
        for assistant_id, graph in ids.items():
            row = known.get(assistant_id)
            if row is None:
                given = AssistantPatch(
                    graph_id=graph.graph_id,
                    name=graph.name,
                    description=graph.description,
                    metadata=_MADE_BY_SYSTEM,
                )
                await self._create_default(self._new(tenant_id, assistant_id, given))
            elif row.version == 1 and (row.name, row.description) != (graph.name, graph.description):
                check_name("name", graph.name)
                check_description("description", graph.description)
                told = {"name": graph.name, "description": graph.description}
                is_first = and_(_is(tenant_id, assistant_id), _assistants.version == 1)
                async with self._database.write() as connection:
                    await connection.execute(update(tables.assistants).where(is_first).values(told))

    async def _create_default(self, made: Assistant) -> None:
        check_name("graph_id", made.graph_id)
        try:
            async with self._database.write() as connection:
                await _insert(connection, made)
        except Conflict:  # Another worker has the graph, too, and was first.
            return

    async def resolve(self, tenant_id: str, id_or_graph: str) -> Assistant:
        """The assistant of an id, or the default one of a graph.

        Raises NOT_FOUND for a UUID that names none, INVALID_ARGUMENT for what is neither UUID nor graph.
        """
        assistant_id = assistant_id_of(id_or_graph)
        try:
            return await self.get(tenant_id, assistant_id)
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND or assistant_id != default_assistant_id(id_or_graph):
                raise
            problem = f"{id_or_graph[:100]!r} is neither the id of an assistant nor a graph"
            raise invalid("assistant_id", problem) from error

    async def get(self, tenant_id: str, assistant_id: str) -> Assistant:
        """Raises NOT_FOUND when the tenant has no such assistant."""
        query = select(tables.assistants).where(_is(tenant_id, assistant_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _not_found(assistant_id)
        return _assistant(row)

    async def create(
        self,
        tenant_id: str,
        assistant_id: str | None,
        given: AssistantPatch,
        *,
        return_existing: bool = False,
    ) -> Assistant:
        """Stores a new assistant, version 1, of a random id when none is given.

        Raises NOT_FOUND for an unknown graph; ALREADY_EXISTS when the id is taken, unless `return_existing`;
        INCONSISTENT when both `context` and `config.configurable` are given; INVALID_ARGUMENT for what cannot
        be stored.
        """
        made = self._new(tenant_id, assistant_id or str(uuid.uuid4()), given)
        await self._check_graph(tenant_id, made.graph_id)
        try:
            async with self._database.write() as connection:
                await _insert(connection, made)
        except Conflict as error:
            if return_existing:
                return await self.get(tenant_id, made.assistant_id)
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS,
                f"an assistant of id {made.assistant_id} already exists",
                field="assistant_id",
            ) from error
        return made

    def _new(self, tenant_id: str, assistant_id: str, given: AssistantPatch) -> Assistant:
        now_us = self._clock.now_us()
        empty = Assistant(
            assistant_id=assistant_id,
            tenant_id=tenant_id,
            graph_id="",
            name=_UNTITLED,
            created_at_us=now_us,
            updated_at_us=now_us,
        )
        return dataclasses.replace(empty, **_changes(empty, given))

    async def _check_graph(self, tenant_id: str, graph_id: str) -> None:
        query = select(_assistants.version).where(_is(tenant_id, default_assistant_id(graph_id)))
        async with self._database.read() as connection:
            if (await connection.execute(query)).one_or_none() is None:
                problem = f"no graph is called {graph_id[:100]!r}"
                raise RunstoreError(ErrorReason.NOT_FOUND, problem, field="graph_id")

    async def update(self, tenant_id: str, assistant_id: str, patch: AssistantPatch) -> Assistant:
        """Makes a new version of what is in use and `patch`, and has it in use.

        Raises NOT_FOUND, also for an unknown graph; INCONSISTENT and INVALID_ARGUMENT like `create`.
        """
        if patch.graph_id is not None:
            await self._check_graph(tenant_id, patch.graph_id)
        newest = select(func.max(_versions.version)).where(_is_version_of(tenant_id, assistant_id))
        async with self._database.write() as connection:
            current = await _locked(connection, tenant_id, assistant_id)
            now_us = self._clock.now_us()
            version = (await connection.execute(newest)).scalar_one() + 1
            changed = dataclasses.replace(
                current, **_changes(current, patch), version=version, updated_at_us=now_us
            )
            await _insert_version(connection, changed, now_us)
            await _use(connection, changed)
        return changed

    async def set_latest(self, tenant_id: str, assistant_id: str, version: int) -> Assistant:
        """Has an earlier version in use. Raises NOT_FOUND without the assistant or the version."""
        query = select(tables.assistant_versions).where(
            _is_version_of(tenant_id, assistant_id), _versions.version == version
        )
        async with self._database.write() as connection:
            current = await _locked(connection, tenant_id, assistant_id)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise RunstoreError(
                    ErrorReason.NOT_FOUND, f"the assistant has no version {version}", field="version"
                )
            kept = {name: row._mapping[name] for name in _VERSIONED}
            changed = dataclasses.replace(current, **kept, updated_at_us=self._clock.now_us())
            await _use(connection, changed)
        return changed

    async def delete(self, tenant_id: str, assistant_id: str) -> None:
        """Removes the assistant and its versions. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            statement = delete(tables.assistants).where(_is(tenant_id, assistant_id))
            if not (await connection.execute(statement)).rowcount:
                raise _not_found(assistant_id)

    async def search(self, tenant_id: str, condition: AssistantFilter) -> tuple[list[Assistant], int]:
        """The page `offset`, `limit` of the assistants that meet `condition`, and how many do."""
        column = tables.assistants.c[condition.order.value]
        query = _listing(tenant_id, condition)
        query = (
            query.order_by(column, _assistants.assistant_id)
            if condition.ascending
            else query.order_by(column.desc(), _assistants.assistant_id.desc())
        )
        limit = min(condition.limit, MAX_ASSISTANT_PAGE)
        async with self._database.read() as connection:
            rows, total = await counted_page(
                connection, query, ("metadata", condition.metadata), condition.offset, limit
            )
        return [_assistant(row) for row in rows], total

    async def count(self, tenant_id: str, condition: AssistantFilter) -> int:
        """How many assistants meet `condition`; its page and order do not matter."""
        return (await self.search(tenant_id, dataclasses.replace(condition, offset=0, limit=0)))[1]

    async def versions(
        self,
        tenant_id: str,
        assistant_id: str,
        metadata: dict[str, object] | None,
        offset: int,
        limit: int,
    ) -> list[Assistant]:
        """A page of the versions whose metadata contains `metadata`, the newest first. Raises NOT_FOUND."""
        await self.get(tenant_id, assistant_id)
        query = (
            select(tables.assistant_versions)
            .where(_is_version_of(tenant_id, assistant_id))
            .order_by(_versions.version.desc())
        )
        limit = min(limit, MAX_ASSISTANT_PAGE)
        async with self._database.read() as connection:
            rows = await page_containing(connection, query, ("metadata", metadata), offset, limit)
        return [_version(row) for row in rows]


async def _locked(connection: AsyncConnection, tenant_id: str, assistant_id: str) -> Assistant:
    """The assistant, which nobody else changes before the transaction ends."""
    query = select(tables.assistants).where(_is(tenant_id, assistant_id)).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise _not_found(assistant_id)
    return _assistant(row)


async def _insert(connection: AsyncConnection, assistant: Assistant) -> None:
    await connection.execute(insert(tables.assistants).values(dataclasses.asdict(assistant)))
    await _insert_version(connection, assistant, assistant.created_at_us)


async def _insert_version(connection: AsyncConnection, assistant: Assistant, created_at_us: int) -> None:
    columns = ("tenant_id", "assistant_id", *_VERSIONED)
    row = {name: getattr(assistant, name) for name in columns}
    await connection.execute(insert(tables.assistant_versions).values(**row, created_at_us=created_at_us))


async def _use(connection: AsyncConnection, assistant: Assistant) -> None:
    values = {name: getattr(assistant, name) for name in (*_VERSIONED, "updated_at_us")}
    is_it = _is(assistant.tenant_id, assistant.assistant_id)
    await connection.execute(update(tables.assistants).where(is_it).values(values))


def _changes(current: Assistant, patch: AssistantPatch) -> dict[str, Any]:
    """What `patch` changes: config and context stay mirror images of each other."""
    check_description("description", patch.description)
    changes: dict[str, Any] = {
        name: value
        for name in ("graph_id", "name", "description")
        if (value := getattr(patch, name)) is not None
    }
    if "name" in changes:
        check_name("name", changes["name"])
    if patch.metadata is not None:
        merged = {**json_object("metadata", current.metadata), **json_object("metadata", patch.metadata)}
        changes["metadata"] = msgspec.json.encode(merged)
    if patch.config is None and patch.context is None:
        return changes
    config = json_object("config", current.config if patch.config is None else patch.config)
    configurable = config.get("configurable") or {}
    if not isinstance(configurable, dict):
        raise invalid("config.configurable", "not a JSON object")
    if patch.context is None:
        context = configurable
    elif patch.config is not None and configurable:
        raise RunstoreError(
            ErrorReason.INCONSISTENT, "both config.configurable and context are given", field="context"
        )
    else:
        context = json_object("context", patch.context)
    if context or "configurable" in config:
        config["configurable"] = context
    changes["config"], changes["context"] = msgspec.json.encode(config), msgspec.json.encode(context)
    return changes


def _listing(tenant_id: str, condition: AssistantFilter) -> Select[Any]:
    query = select(tables.assistants).where(_assistants.tenant_id == tenant_id)
    if condition.graph_id is not None:
        query = query.where(_assistants.graph_id == condition.graph_id)
    if condition.name_contains is not None:
        query = query.where(has_part(_assistants.name, condition.name_contains))
    return query


def _is(tenant_id: str, assistant_id: str) -> Any:
    return and_(_assistants.tenant_id == tenant_id, _assistants.assistant_id == assistant_id)


def _is_version_of(tenant_id: str, assistant_id: str) -> Any:
    return and_(_versions.tenant_id == tenant_id, _versions.assistant_id == assistant_id)


def _assistant(row: Row[Any]) -> Assistant:
    return Assistant(**row._mapping)


def _version(row: Row[Any]) -> Assistant:
    return Assistant(**row._mapping, updated_at_us=row.created_at_us)


def _not_found(assistant_id: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"no assistant with id {assistant_id}", field="assistant_id")
