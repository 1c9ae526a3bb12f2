"""The routes of registered agents (contract resources, section 8), and of what addresses stand for."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from runstore.domain.agent_addresses import Environment, check_agent_id, project_name
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.times import format_time
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import agent_registry_service_pb2 as pb
from runstore.v1 import project_service_pb2 as projects_pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {409: {"model": Detail, "description": "The id is taken."}}
_ORDERS: Final = {"created_at": pb.REGISTERED_AGENT_ORDER_CREATED, "name": pb.REGISTERED_AGENT_ORDER_NAME}
# The SDK writes what evaluators trace there.
_EVALUATORS_PROJECT: Final = "evaluators"

_SourceType = Literal["LSD", "MDA", "EXTERNAL", "FLEET"]
_AgentType = Literal["CUSTOM", "CODING"]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class _Create(BaseModel):
    id: str
    name: str | None = None
    source_type: _SourceType = "EXTERNAL"
    agent_type: _AgentType = "CUSTOM"
    production_only: bool = False


class _Update(BaseModel):
    """Changes; absent keys keep what is there, a null `owner_id` clears it."""

    # `id` cannot change, and whoever sends it shall know.
    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    source_type: _SourceType | None = None
    agent_type: _AgentType | None = None
    owner_id: str | None = None


class _ListQuery(BaseModel):
    """Query parameters of the list; all conditions hold together."""

    model_config = ConfigDict(extra="forbid")

    id: list[str] = Field(default=[], max_length=100)
    name: str | None = Field(None, description="Part of the name, in any case; the whole name comes first.")
    source_type: _SourceType | None = None
    sort_by: Literal["created_at", "name", "last_run_start_time"] = Field(
        "created_at", description="`last_run_start_time` is not offered."
    )
    sort_order: Literal["asc", "desc"] | None = Field(None, description="Names: asc; others: desc.")
    page_size: int = Field(20, ge=1, le=100)
    cursor: str = ""


class _ResolveQuery(BaseModel):
    """An address; kind and environment in any case."""

    kind: Annotated[Literal["agent", "experiment", "evaluator"], BeforeValidator(_lower)]
    id: str | None = None
    environment: Annotated[Environment | None, BeforeValidator(_lower)] = None


def agent_registry_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the agents and projects of `store`."""
    router = GuardedRouter(tags=["Agents (registry)"])
    _add_list(router, store)
    _add_single(router, store)
    _add_resolution(router, store)
    return router


def _add_list(router: GuardedRouter, store: StoreClient) -> None:
    @router.get("/agents")
    async def list_agents(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists agents, the last registered first unless told; an unknown parameter is refused."""
        if query.sort_by == "last_run_start_time":
            raise RunstoreError(
                ErrorReason.UNIMPLEMENTED, "agents are not sorted by their runs", field="sort_by"
            )
        message = pb.ListRegisteredAgentsRequest(
            ids=query.id,
            name=query.name,
            source_type=query.source_type,
            order=_ORDERS[query.sort_by],
            ascending=(query.sort_order or ("asc" if query.sort_by == "name" else "desc")) == "asc",
            page_token=query.cursor,
            page_size=query.page_size,
        )
        credentials = credentials_of(request.headers)
        answer = await store.ask(store.agent_registry.ListRegisteredAgents, message, credentials)
        items = [_show(agent) for agent in answer.agents]
        return json_response({"items": items, "next_cursor": answer.next_page_token or None})


def _add_single(router: GuardedRouter, store: StoreClient) -> None:
    agents = store.agent_registry

    @router.post("/agents", status_code=201, responses=_TAKEN)
    async def register_agent(request: Request, body: _Create) -> Response:
        """Registers an agent, with a project for each environment."""
        agent = pb.RegisteredAgent(
            id=body.id, name=body.name or "", source_type=body.source_type, agent_type=body.agent_type
        )
        message = pb.RegisterAgentRequest(agent=agent, production_only=body.production_only)
        answer = await store.ask(agents.RegisterAgent, message, credentials_of(request.headers))
        return json_response(_show(answer.agent), 201)

    @router.get("/agents/{agent_id}", responses=_NOT_FOUND)
    async def read_agent(
        request: Request, agent_id: str, include: Literal["runtime_bindings"] | None = None
    ) -> Response:
        """Reads an agent. No runtime is bound to one here."""
        message = pb.GetRegisteredAgentRequest(id=agent_id)
        answer = await store.ask(agents.GetRegisteredAgent, message, credentials_of(request.headers))
        return json_response(_show(answer.agent, with_bindings=include is not None))

    @router.patch("/agents/{agent_id}", responses=_NOT_FOUND)
    async def update_agent(request: Request, agent_id: str, body: _Update) -> Response:
        """Changes an agent; absent keys keep what is there."""
        message = pb.UpdateRegisteredAgentRequest(
            id=agent_id, name=body.name, source_type=body.source_type, agent_type=body.agent_type
        )
        if "owner_id" in body.model_fields_set:
            message.owner_id = body.owner_id or ""
        answer = await store.ask(agents.UpdateRegisteredAgent, message, credentials_of(request.headers))
        return json_response(_show(answer.agent))

    @router.delete("/agents/{agent_id}", status_code=204)
    async def delete_agent(request: Request, agent_id: str) -> Response:
        """Deletes an agent with its projects and their runs, if there is one."""
        message = pb.DeleteRegisteredAgentRequest(id=agent_id)
        await store.ask(agents.DeleteRegisteredAgent, message, credentials_of(request.headers))
        return Response(status_code=204)


def _add_resolution(router: GuardedRouter, store: StoreClient) -> None:
    @router.get("/sessions/resolutions", responses=_NOT_FOUND)
    async def resolve_address(request: Request, query: Annotated[_ResolveQuery, Query()]) -> Response:
        """Says which project an address stands for (contract runs-v2, section 14)."""
        project_id = await _resolved(store, query, credentials_of(request.headers))
        return json_response({"session_id": project_id})


async def _resolved(store: StoreClient, query: _ResolveQuery, credentials: Credentials) -> str:
    if query.kind == "experiment":
        message = projects_pb.GetProjectRequest(id=str(_uuid(query.id)))
        project = (await store.get_project(message, credentials)).project
        if not project.HasField("reference_dataset_id"):
            raise _not_found("the project is no experiment")
        return project.id
    name = _EVALUATORS_PROJECT
    if query.kind == "agent":
        if query.id is None or query.environment is None:
            missing = "id" if query.id is None else "environment"
            raise invalid(missing, "an agent's address needs id and environment")
        check_agent_id("id", query.id)
        name = project_name(query.id, query.environment)
    found = await store.list_projects(projects_pb.ListProjectsRequest(name=name, page_size=1), credentials)
    if not found.projects:
        raise _not_found("nothing has this address")
    return found.projects[0].id


def _uuid(text: str | None) -> UUID:
    try:
        return UUID(text or "")
    except ValueError as error:
        raise invalid("id", "must be the UUID of an experiment") from error


def _not_found(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, message, field="id")


def _show(agent: pb.RegisteredAgent, *, with_bindings: bool = False) -> dict[str, Any]:
    environments = [
        {
            "id": each.project_id,
            "agent_id": agent.id,
            "environment": pb.AgentEnvironment.Name(each.environment).removeprefix("AGENT_ENVIRONMENT_"),
            "tracer_session_id": each.project_id,
            "tracer_session_name": each.project_name,
            **({"runtime_bindings": []} if with_bindings else {}),
        }
        for each in agent.environments
    ]
    return {
        "id": agent.id,
        "name": agent.name,
        "agent_type": agent.agent_type,
        "source_type": agent.source_type,
        "owner_id": agent.owner_id if agent.HasField("owner_id") else None,
        "owner": None,
        "avatar_url": None,
        "tag_key_id": None,
        "tag_value_id": None,
        "created_at": format_time(to_time_us(agent.create_time)),
        "environments": environments,
    }
