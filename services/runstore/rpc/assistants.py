"""Serves `AssistantService`."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.agent_threads import AgentThreadCatalog
from runstore.catalog.assistants import AssistantCatalog
from runstore.catalog.texts import json_object
from runstore.dispatch.runs import AgentRuns
from runstore.domain.agent_runs import MAX_AGENT_PAGE, AgentThread, ThreadQuery
from runstore.domain.assistants import Assistant, AssistantFilter, AssistantOrder, AssistantPatch
from runstore.domain.errors import invalid
from runstore.ingest.validation import uuid_text
from runstore.rpc.agent_questions import WorkerQuestions
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import set_time
from runstore.v1 import agent_worker_service_pb2 as worker_pb
from runstore.v1 import assistant_service_pb2 as pb
from runstore.v1 import assistant_service_pb2_grpc

_DEFAULT_PAGE_SIZE: Final = 10
_ORDERS: Final = {
    pb.ASSISTANT_ORDER_UNSPECIFIED: AssistantOrder.CREATE_TIME,
    **{pb.AssistantOrder.Value(f"ASSISTANT_ORDER_{order.name}"): order for order in AssistantOrder},
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AssistantServicer(assistant_service_pb2_grpc.AssistantServiceServicer):
    """Maps calls to the catalog; asks workers about graphs."""

    def __init__(
        self,
        assistants: AssistantCatalog,
        threads: AgentThreadCatalog,
        runs: AgentRuns,
        questions: WorkerQuestions,
        delete_thread: Callable[[AgentThread], Awaitable[None]],
    ) -> None:
        self._assistants = assistants
        self._threads = threads
        self._runs = runs
        self._questions = questions
        self._delete_thread = delete_thread

    # -- rows --------------------------------------------------------------------------------------

    async def CreateAssistant(
        self, request: pb.CreateAssistantRequest, context: _Context
    ) -> pb.CreateAssistantResponse:
        assistant_id = uuid_text("assistant_id", request.assistant_id) if request.assistant_id else None
        created = await self._assistants.create(
            _tenant_id(), assistant_id, _patch(request), return_existing=request.return_existing
        )
        return pb.CreateAssistantResponse(assistant=_message(created))

    async def GetAssistant(
        self, request: pb.GetAssistantRequest, context: _Context
    ) -> pb.GetAssistantResponse:
        assistant_id = uuid_text("assistant_id", request.assistant_id)
        assistant = await self._assistants.get(_tenant_id(), assistant_id)
        return pb.GetAssistantResponse(assistant=_message(assistant))

    async def UpdateAssistant(
        self, request: pb.UpdateAssistantRequest, context: _Context
    ) -> pb.UpdateAssistantResponse:
        assistant_id = uuid_text("assistant_id", request.assistant_id)
        changed = await self._assistants.update(_tenant_id(), assistant_id, _patch(request))
        return pb.UpdateAssistantResponse(assistant=_message(changed))

    async def DeleteAssistant(
        self, request: pb.DeleteAssistantRequest, context: _Context
    ) -> pb.DeleteAssistantResponse:
        assistant_id = uuid_text("assistant_id", request.assistant_id)
        await self._assistants.get(_tenant_id(), assistant_id)
        await self._runs.cancel_of_assistant(_tenant_id(), assistant_id)
        if request.delete_threads:
            await self._delete_threads(assistant_id)
        await self._assistants.delete(_tenant_id(), assistant_id)
        return pb.DeleteAssistantResponse()

    async def _delete_threads(self, assistant_id: str) -> None:
        """Deletes the threads whose latest run was the assistant's."""
        query = ThreadQuery(metadata={"assistant_id": assistant_id}, limit=MAX_AGENT_PAGE)
        while threads := (await self._threads.search(_tenant_id(), query))[0]:
            for thread in threads:
                await self._delete_thread(thread)

    async def SearchAssistants(
        self, request: pb.SearchAssistantsRequest, context: _Context
    ) -> pb.SearchAssistantsResponse:
        _check_not_negative(request, "offset", "page_size")
        if request.order not in _ORDERS:
            raise invalid("order", f"{request.order} is no order of assistants")
        found, total = await self._assistants.search(
            _tenant_id(),
            _filter(
                request.condition,
                order=_ORDERS[request.order],
                ascending=request.ascending,
                offset=request.offset,
                limit=request.page_size or _DEFAULT_PAGE_SIZE,
            ),
        )
        return pb.SearchAssistantsResponse(assistants=map(_message, found), total_count=total)

    async def CountAssistants(
        self, request: pb.CountAssistantsRequest, context: _Context
    ) -> pb.CountAssistantsResponse:
        count = await self._assistants.count(_tenant_id(), _filter(request.condition))
        return pb.CountAssistantsResponse(count=count)

    async def ListAssistantVersions(
        self, request: pb.ListAssistantVersionsRequest, context: _Context
    ) -> pb.ListAssistantVersionsResponse:
        _check_not_negative(request, "offset", "page_size")
        versions = await self._assistants.versions(
            _tenant_id(),
            uuid_text("assistant_id", request.assistant_id),
            _metadata(request),
            request.offset,
            request.page_size or _DEFAULT_PAGE_SIZE,
        )
        return pb.ListAssistantVersionsResponse(versions=map(_message, versions))

    async def SetLatestAssistantVersion(
        self, request: pb.SetLatestAssistantVersionRequest, context: _Context
    ) -> pb.SetLatestAssistantVersionResponse:
        assistant_id = uuid_text("assistant_id", request.assistant_id)
        changed = await self._assistants.set_latest(_tenant_id(), assistant_id, request.version)
        return pb.SetLatestAssistantVersionResponse(assistant=_message(changed))

    # -- graphs ------------------------------------------------------------------------------------

    async def GetAssistantSchemas(
        self, request: pb.GetAssistantSchemasRequest, context: _Context
    ) -> pb.GetAssistantSchemasResponse:
        question = await self._about(uuid_text("assistant_id", request.assistant_id))
        question.schemas.SetInParent()
        return pb.GetAssistantSchemasResponse(schemas=await self._answer(question))

    async def GetAssistantGraph(
        self, request: pb.GetAssistantGraphRequest, context: _Context
    ) -> pb.GetAssistantGraphResponse:
        question = await self._about(request.assistant_id)
        question.drawing.SetInParent()
        question.drawing.xray = request.xray
        return pb.GetAssistantGraphResponse(graph=await self._answer(question))

    async def GetAssistantSubgraphs(
        self, request: pb.GetAssistantSubgraphsRequest, context: _Context
    ) -> pb.GetAssistantSubgraphsResponse:
        question = await self._about(uuid_text("assistant_id", request.assistant_id))
        question.subgraphs.recurse = request.recurse
        if request.HasField("namespace"):
            question.subgraphs.namespace = request.namespace
        return pb.GetAssistantSubgraphsResponse(subgraphs=await self._answer(question))

    async def _about(self, id_or_graph: str) -> worker_pb.WorkerQuestion:
        """A question to be about the graph of an assistant, made with the assistant's configuration."""
        assistant = await self._assistants.resolve(_tenant_id(), id_or_graph)
        return worker_pb.WorkerQuestion(graph_id=assistant.graph_id, config=assistant.config)

    async def _answer(self, question: worker_pb.WorkerQuestion) -> bytes:
        return (await self._questions.ask(_tenant_id(), question)).value


def _tenant_id() -> str:
    return current_principal.get().tenant_id


def _check_not_negative(request: Any, *fields: str) -> None:
    for field in fields:
        if getattr(request, field) < 0:
            raise invalid(field, "must not be negative")


def _patch(request: pb.CreateAssistantRequest | pb.UpdateAssistantRequest) -> AssistantPatch:
    given: dict[str, Any] = {
        field: getattr(request, field)
        for field in ("config", "context", "metadata", "name", "description")
        if request.HasField(field)
    }
    return AssistantPatch(graph_id=request.graph_id or None, **given)


def _filter(condition: pb.AssistantCondition, **page: Any) -> AssistantFilter:
    return AssistantFilter(
        graph_id=condition.graph_id if condition.HasField("graph_id") else None,
        name_contains=condition.name_contains if condition.HasField("name_contains") else None,
        metadata=_metadata(condition),
        **page,
    )


def _metadata(message: Any) -> dict[str, object] | None:
    return json_object("metadata", message.metadata) if message.HasField("metadata") else None


def _message(assistant: Assistant) -> pb.Assistant:
    message = pb.Assistant(
        assistant_id=assistant.assistant_id,
        graph_id=assistant.graph_id,
        config=assistant.config,
        context=assistant.context,
        metadata=assistant.metadata,
        name=assistant.name,
        description=assistant.description,
        version=assistant.version,
    )
    set_time(message.create_time, assistant.created_at_us)
    set_time(message.update_time, assistant.updated_at_us)
    return message
