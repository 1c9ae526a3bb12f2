"""The scripted store's part for agents: unary methods by their default answers, joins by scripts."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_run_service_pb2 as pb
from runstore.v1 import agent_run_service_pb2_grpc as runs_grpc
from runstore.v1 import assistant_service_pb2 as assistants
from runstore.v1 import assistant_service_pb2_grpc as assistants_grpc
from runstore.v1 import thread_service_pb2 as threads
from runstore.v1 import thread_service_pb2_grpc as threads_grpc

THREAD_ID = "11111111-1111-4111-8111-111111111111"
RUN_ID = "22222222-2222-4222-8222-222222222222"
ASSISTANT_ID = "33333333-3333-4333-8333-333333333333"

RUN = runs.AgentRun(
    run_id=RUN_ID,
    thread_id=THREAD_ID,
    assistant_id=ASSISTANT_ID,
    status=runs.AGENT_RUN_STATUS_PENDING,
    metadata=b'{"created_by":"system"}',
    multitask_strategy=runs.MULTITASK_STRATEGY_ENQUEUE,
    kwargs=b'{"input":{"n":1},"resumable":true}',
)
RUN.due_time.FromJsonString("2026-01-01T00:00:03Z")
RUN.update_time.FromJsonString("2026-01-01T00:00:00.5Z")

THREAD = threads.AgentThread(
    thread_id=THREAD_ID,
    metadata=b'{"graph_id":"steps"}',
    config=b"{}",
    status=threads.AGENT_THREAD_STATUS_INTERRUPTED,
    values=b'{"log":["a",{"b":[1,2]}],"n":1}',
    interrupts=b'{"t":[{"id":"i","value":1}]}',
)
THREAD.create_time.FromJsonString("2026-01-01T00:00:00Z")
THREAD.update_time.FromJsonString("2026-01-01T00:00:01Z")

ASSISTANT = assistants.Assistant(
    assistant_id=ASSISTANT_ID,
    graph_id="steps",
    config=b"{}",
    context=b"{}",
    metadata=b"{}",
    name="n",
    version=1,
)
ASSISTANT.create_time.FromJsonString("2026-01-01T00:00:00Z")
ASSISTANT.update_time.FromJsonString("2026-01-01T00:00:01Z")

STATE = b'{"values":{"log":["a"],"n":1},"next":["b"],"checkpoint":{"checkpoint_id":"c"},"tasks":[]}'

DEFAULTS: dict[str, Any] = {
    "CreateAgentRun": pb.CreateAgentRunResponse(run=RUN),
    "CreateAgentRuns": pb.CreateAgentRunsResponse(runs=[RUN, RUN]),
    "GetAgentRun": pb.GetAgentRunResponse(run=RUN),
    "ListAgentRuns": pb.ListAgentRunsResponse(runs=[RUN]),
    "CancelAgentRun": pb.CancelAgentRunResponse(),
    "CancelAgentRuns": pb.CancelAgentRunsResponse(cancelled_count=1),
    "DeleteAgentRun": pb.DeleteAgentRunResponse(),
    "CreateAgentThread": threads.CreateAgentThreadResponse(thread=THREAD),
    "GetAgentThread": threads.GetAgentThreadResponse(thread=THREAD),
    "UpdateAgentThread": threads.UpdateAgentThreadResponse(thread=THREAD),
    "DeleteAgentThread": threads.DeleteAgentThreadResponse(),
    "SearchAgentThreads": threads.SearchAgentThreadsResponse(threads=[THREAD], total_count=9),
    "CountAgentThreads": threads.CountAgentThreadsResponse(count=7),
    "CopyAgentThread": threads.CopyAgentThreadResponse(thread=THREAD),
    "PruneAgentThreads": threads.PruneAgentThreadsResponse(pruned_count=2),
    "GetThreadState": threads.GetThreadStateResponse(state=STATE),
    "ListThreadHistory": threads.ListThreadHistoryResponse(states=[STATE, STATE]),
    "UpdateThreadState": threads.UpdateThreadStateResponse(result=b'{"checkpoint":{"checkpoint_id":"d"}}'),
    "CreateAssistant": assistants.CreateAssistantResponse(assistant=ASSISTANT),
    "GetAssistant": assistants.GetAssistantResponse(assistant=ASSISTANT),
    "UpdateAssistant": assistants.UpdateAssistantResponse(assistant=ASSISTANT),
    "DeleteAssistant": assistants.DeleteAssistantResponse(),
    "SearchAssistants": assistants.SearchAssistantsResponse(assistants=[ASSISTANT], total_count=1),
    "CountAssistants": assistants.CountAssistantsResponse(count=1),
    "ListAssistantVersions": assistants.ListAssistantVersionsResponse(versions=[ASSISTANT]),
    "SetLatestAssistantVersion": assistants.SetLatestAssistantVersionResponse(assistant=ASSISTANT),
    "GetAssistantSchemas": assistants.GetAssistantSchemasResponse(schemas=b'{"graph_id":"steps"}'),
    "GetAssistantGraph": assistants.GetAssistantGraphResponse(graph=b'{"nodes":[],"edges":[]}'),
    "GetAssistantSubgraphs": assistants.GetAssistantSubgraphsResponse(subgraphs=b"{}"),
}
"""What a method answers unless it is scripted."""

_SERVICES = (
    ("AgentRunService", runs_grpc.add_AgentRunServiceServicer_to_server),
    ("ThreadService", threads_grpc.add_ThreadServiceServicer_to_server),
    ("AssistantService", assistants_grpc.add_AssistantServiceServicer_to_server),
)


class _Agents:
    """A servicer of all three services: a method for each name that is asked for."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, method: str) -> Any:
        return self._join(method) if method.startswith("Join") else self._unary(method)

    def _unary(self, method: str) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            return await self._store.answer(method, request, context, DEFAULTS[method])

        return answer

    def _join(self, method: str) -> Any:
        async def steps(request: Any, context: Any) -> AsyncIterator[Any]:
            copy = type(request)()
            copy.CopyFrom(request)
            self._store.requests.append((method, copy, dict(context.invocation_metadata())))
            async for step in self._store.answers[method](request):
                if isinstance(step, grpc.StatusCode):
                    await context.abort(step, "scripted")
                if not isinstance(step, pb.JoinAgentRunResponse | threads.JoinAgentThreadResponse):
                    await self._store.refuse(step, context)
                yield step

        return steps


def add_agents(store: Any, server: grpc.aio.Server) -> None:
    """Serve the three services of agents on `server`, scripted by `store`."""
    for _, add in _SERVICES:
        add(_Agents(store), server)  # type: ignore[arg-type]  # has every method that is asked for


def event(number: int, mode: str, data: bytes, *namespace: str) -> pb.JoinAgentRunResponse:
    """A step: the run says something."""
    said = runs.AgentRunEvent(event_id=f"1000-{number}", mode=mode, data=data, namespace=namespace)
    return pb.JoinAgentRunResponse(event=said)


def end(
    result: bytes = b"{}", status: Any = runs.AGENT_RUN_STATUS_SUCCESS, error: tuple[str, str] | None = None
) -> pb.JoinAgentRunResponse:
    """A step: the run has ended."""
    ended = runs.AgentRunEnd(status=status, result=result)
    if error is not None:
        ended.error.error, ended.error.message = error
    return pb.JoinAgentRunResponse(end=ended)
