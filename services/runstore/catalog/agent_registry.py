"""Registered agents in the catalog."""

import dataclasses
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, select, update

from runstore.catalog.database import Conflict, Database
from runstore.catalog.management_tables import registered_agents
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_name
from runstore.domain.agent_addresses import check_agent_id
from runstore.domain.agent_registry import (
    MAX_AGENTS,
    Agent,
    AgentFilter,
    AgentPatch,
    AgentType,
    SourceType,
)
from runstore.domain.errors import ErrorReason, RunstoreError, invalid

_MAX_OWNER_CHARACTERS = 64

_agents = registered_agents.c


class AgentRegistry:
    """Reads and writes agents, always inside one tenant; their projects are the caller's to make.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, agent: Agent) -> None:
        """Stores `agent` as given.

        Raises ALREADY_EXISTS when the id is taken, INVALID_ARGUMENT for what cannot be stored.
        """
        check_agent_id("id", agent.id)
        _check(agent)
        if agent.production_only and agent.source_type is not SourceType.FLEET:
            raise invalid("production_only", "only agents of source_type FLEET can be in production alone")
        counting = select(func.count()).where(_agents.tenant_id == agent.tenant_id)
        try:
            async with self._database.write() as connection:
                if (await connection.execute(counting)).scalar_one() >= MAX_AGENTS:
                    raise invalid("id", f"the workspace has {MAX_AGENTS} agents already")
                await connection.execute(insert(registered_agents).values(dataclasses.asdict(agent)))
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, f"an agent with id {agent.id} already exists", field="id"
            ) from error

    async def get(self, tenant_id: str, agent_id: str) -> Agent:
        """Raises NOT_FOUND when the tenant has no such agent."""
        async with self._database.read() as connection:
            query = select(registered_agents).where(_is(tenant_id, agent_id))
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _not_found(agent_id)
        return _agent(row)

    async def list(self, tenant_id: str, condition: AgentFilter) -> list[Agent]:
        """All agents that meet `condition`, in no order."""
        query = select(registered_agents).where(_agents.tenant_id == tenant_id)
        if condition.ids:
            query = query.where(_agents.id.in_(condition.ids))
        if condition.name is not None:
            query = query.where(has_part(_agents.name, condition.name))
        if condition.source_type is not None:
            query = query.where(_agents.source_type == condition.source_type)
        async with self._database.read() as connection:
            return [_agent(row) for row in await connection.execute(query)]

    async def update(self, tenant_id: str, agent_id: str, patch: AgentPatch) -> Agent:
        """Applies what `patch` sets and returns the result.

        Raises NOT_FOUND; INVALID_ARGUMENT when what runs the agent cannot change, and like `register`.
        """
        _check(patch)
        changes = {key: value for key, value in dataclasses.asdict(patch).items() if value is not None}
        if patch.owner_id == "":
            changes["owner_id"] = None
        async with self._database.write() as connection:
            query = select(registered_agents).where(_is(tenant_id, agent_id)).with_for_update()
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise _not_found(agent_id)
            before = _agent(row)
            if patch.source_type not in (None, before.source_type, *_may_become(before)):
                raise invalid("source_type", f"the source_type of a {before.source_type} agent is fixed")
            if changes:
                statement = update(registered_agents).where(_is(tenant_id, agent_id))
                await connection.execute(statement.values(changes))
        return dataclasses.replace(before, **changes)

    async def delete(self, tenant_id: str, agent_id: str) -> None:
        """Removes the agent, if it is there."""
        async with self._database.write() as connection:
            await connection.execute(delete(registered_agents).where(_is(tenant_id, agent_id)))


def _is(tenant_id: str, agent_id: str) -> Any:
    return and_(_agents.tenant_id == tenant_id, _agents.id == agent_id)


def _may_become(agent: Agent) -> tuple[SourceType, ...]:
    return tuple(SourceType) if agent.source_type is SourceType.EXTERNAL else ()


def _check(agent: Agent | AgentPatch) -> None:
    if agent.name is not None:
        check_name("name", agent.name)
    if agent.owner_id:
        check_name("owner_id", agent.owner_id)
        if len(agent.owner_id) > _MAX_OWNER_CHARACTERS:
            raise invalid("owner_id", f"more than {_MAX_OWNER_CHARACTERS} characters")


def _agent(row: Row[Any]) -> Agent:
    return Agent(
        **{
            **row._mapping,
            "agent_type": AgentType(row.agent_type),
            "source_type": SourceType(row.source_type),
        }
    )


def _not_found(agent_id: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"no agent with id {agent_id}", field="id")
