"""Serves `AgentRegistryService`."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import msgspec

from runstore.catalog.agent_registry import AgentRegistry
from runstore.catalog.projects import ProjectCatalog
from runstore.domain.agent_addresses import Environment
from runstore.domain.agent_registry import Agent, AgentFilter, AgentPatch, AgentType, SourceType
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.ingest.delete_project import DeleteProject
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import set_time
from runstore.runtime.clock import Clock
from runstore.v1 import agent_registry_service_pb2 as pb
from runstore.v1 import agent_registry_service_pb2_grpc

MAX_IDS: Final = 100
_MAX_PAGE_SIZE: Final = 100
_DEFAULT_PAGE_SIZE: Final = 20
_ENVIRONMENTS: Final = {
    environment: pb.AgentEnvironment.Value(f"AGENT_ENVIRONMENT_{environment.name}")
    for environment in Environment
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Name = TypeVar("_Name", bound=StrEnum)


_Place = tuple[bool, str | int, str]
"""Where an agent stands in a list, and what a page token holds: whether its name is another than the one that
was asked for, what the list goes by, its id."""


class AgentRegistryServicer(agent_registry_service_pb2_grpc.AgentRegistryServiceServicer):
    """Maps calls to the catalog; makes and deletes the projects of agents."""

    def __init__(
        self, agents: AgentRegistry, projects: ProjectCatalog, deletion: DeleteProject, clock: Clock
    ) -> None:
        self._agents = agents
        self._projects = projects
        self._deletion = deletion
        self._clock = clock

    async def RegisterAgent(
        self, request: pb.RegisterAgentRequest, context: _Context
    ) -> pb.RegisterAgentResponse:
        given = request.agent
        agent = Agent(
            id=given.id,
            tenant_id=_tenant_id(),
            name=given.name or given.id,
            agent_type=_name(AgentType, "agent_type", given.agent_type or AgentType.CUSTOM),
            source_type=_name(SourceType, "source_type", given.source_type or SourceType.EXTERNAL),
            owner_id=given.owner_id if given.HasField("owner_id") else None,
            production_only=request.production_only,
            created_at_us=self._clock.now_us(),
        )
        await self._agents.register(agent)
        for project in agent.projects.values():
            await self._projects.resolve(agent.tenant_id, project)
        [message] = await self._messages([agent])
        return pb.RegisterAgentResponse(agent=message)

    async def GetRegisteredAgent(
        self, request: pb.GetRegisteredAgentRequest, context: _Context
    ) -> pb.GetRegisteredAgentResponse:
        [message] = await self._messages([await self._agents.get(_tenant_id(), request.id)])
        return pb.GetRegisteredAgentResponse(agent=message)

    async def ListRegisteredAgents(
        self, request: pb.ListRegisteredAgentsRequest, context: _Context
    ) -> pb.ListRegisteredAgentsResponse:
        if request.page_size < 0:
            raise invalid("page_size", "must not be negative")
        if len(request.ids) > MAX_IDS:
            raise invalid("ids", f"more than {MAX_IDS}")
        name = request.name if request.HasField("name") else None
        source = request.source_type if request.HasField("source_type") else None
        condition = AgentFilter(
            ids=tuple(request.ids),
            name=name,
            source_type=None if source is None else _name(SourceType, "source_type", source),
        )
        by_name = request.order == pb.REGISTERED_AGENT_ORDER_NAME
        agents = {
            (
                name is not None and agent.name.lower() != name.lower(),
                agent.name if by_name else agent.created_at_us,
                agent.id,
            ): agent
            for agent in await self._agents.list(_tenant_id(), condition)
        }
        places = _in_order(agents, ascending=request.ascending)
        if request.page_token:
            places = _behind(
                places, _place(request.page_token, str if by_name else int), ascending=request.ascending
            )
        size = min(request.page_size or _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        return pb.ListRegisteredAgentsResponse(
            agents=await self._messages([agents[place] for place in places[:size]]),
            next_page_token=_token(places[size - 1]) if len(places) > size else "",
        )

    async def UpdateRegisteredAgent(
        self, request: pb.UpdateRegisteredAgentRequest, context: _Context
    ) -> pb.UpdateRegisteredAgentResponse:
        has = request.HasField
        patch = AgentPatch(
            name=request.name if has("name") else None,
            agent_type=_name(AgentType, "agent_type", request.agent_type) if has("agent_type") else None,
            source_type=(
                _name(SourceType, "source_type", request.source_type) if has("source_type") else None
            ),
            owner_id=request.owner_id if has("owner_id") else None,
        )
        [message] = await self._messages([await self._agents.update(_tenant_id(), request.id, patch)])
        return pb.UpdateRegisteredAgentResponse(agent=message)

    async def DeleteRegisteredAgent(
        self, request: pb.DeleteRegisteredAgentRequest, context: _Context
    ) -> pb.DeleteRegisteredAgentResponse:
        tenant_id = _tenant_id()
        with _nothing_if_gone():
            agent = await self._agents.get(tenant_id, request.id)
            # The agent last: a crash in between leaves one that can be deleted again.
            projects = await self._projects.named(tenant_id, list(agent.projects.values()))
            for project_id in projects.values():
                with _nothing_if_gone():
                    await self._deletion.delete(tenant_id, project_id)
            await self._agents.delete(tenant_id, agent.id)
        return pb.DeleteRegisteredAgentResponse()

    async def _messages(self, agents: Sequence[Agent]) -> list[pb.RegisteredAgent]:
        names = [name for agent in agents for name in agent.projects.values()]
        project_ids = await self._projects.named(_tenant_id(), names)
        return [_message(agent, project_ids) for agent in agents]


@contextmanager
def _nothing_if_gone() -> Iterator[None]:
    """Deleting what is not there, or what somebody else deletes just now, is done already."""
    try:
        yield
    except RunstoreError as error:
        if error.reason is not ErrorReason.NOT_FOUND:
            raise


def _tenant_id() -> str:
    return current_principal.get().tenant_id


def _name(kind: type[_Name], field: str, text: str) -> _Name:
    try:
        return kind(text)
    except ValueError as error:
        raise invalid(field, f"must be one of {', '.join(kind)}") from error


def _in_order(places: Iterable[_Place], *, ascending: bool) -> list[_Place]:
    """The order of the list, in either direction; those of exactly the name that was asked for stay first."""
    ordered = sorted(places, key=lambda place: place[1:], reverse=not ascending)
    return sorted(ordered, key=lambda place: place[0])


def _behind(places: Sequence[_Place], last: _Place, *, ascending: bool) -> list[_Place]:
    """What comes behind the place where a page ended; the agent there may be gone."""
    ordered = _in_order({*places, last}, ascending=ascending)
    return ordered[ordered.index(last) + 1 :]


def _token(place: _Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _place(token: str, sorts_by: type[str | int]) -> _Place:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        place: _Place = msgspec.json.decode(raw, type=_Place)
    except (ValueError, msgspec.DecodeError) as error:
        raise _bad_cursor() from error
    if not isinstance(place[1], sorts_by):
        raise _bad_cursor()
    return place


def _bad_cursor() -> RunstoreError:
    return RunstoreError(ErrorReason.INVALID_CURSOR, "not a cursor of this list", field="cursor")


def _message(agent: Agent, project_ids: Mapping[str, str]) -> pb.RegisteredAgent:
    message = pb.RegisteredAgent(
        id=agent.id,
        name=agent.name,
        agent_type=agent.agent_type,
        source_type=agent.source_type,
        owner_id=agent.owner_id,
        environments=[
            pb.RegisteredAgentEnvironment(
                environment=_ENVIRONMENTS[environment],
                project_id=project_ids[project_name],
                project_name=project_name,
            )
            for environment, project_name in agent.projects.items()
            if project_name in project_ids
        ],
    )
    set_time(message.create_time, agent.created_at_us)
    return message
