"""Questions to workers, with their messages."""

import msgspec

from runstore.catalog.assistants import AssistantCatalog
from runstore.dispatch.questions import Questions
from runstore.domain.agent_runs import AgentThread
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import error_pb2

_NO_CONFIG = b"{}"


class WorkerQuestions:
    """Asks a worker and understands its refusals."""

    def __init__(self, questions: Questions, assistants: AssistantCatalog) -> None:
        self._questions = questions
        self._assistants = assistants

    async def ask(self, tenant_id: str, question: pb.WorkerQuestion) -> pb.WorkerAnswer:
        """The answer of a worker that has the graph. Raises what the worker refuses with, and UNAVAILABLE."""
        answer = await self._questions.ask(tenant_id, question.graph_id, question)
        if not isinstance(answer, pb.WorkerAnswer):
            raise TypeError(f"{type(answer)} is no answer")
        if answer.WhichOneof("answer") == "refusal":
            raise RunstoreError(_reason(answer.refusal.reason), answer.refusal.message)
        return answer

    async def about(self, thread: AgentThread) -> pb.WorkerQuestion:
        """A question to be about `thread`: its graph, and the configuration that the graph is made with."""
        return pb.WorkerQuestion(graph_id=thread.graph_id or "", config=await self._config(thread))

    async def _config(self, thread: AgentThread) -> bytes:
        assistant_id = msgspec.json.decode(thread.metadata, type=dict[str, object]).get("assistant_id")
        try:
            assistant = await self._assistants.resolve(thread.tenant_id, str(assistant_id))
        except RunstoreError as error:
            if error.reason is ErrorReason.UNAVAILABLE:
                raise
            return thread.config or _NO_CONFIG
        own = msgspec.json.decode(thread.config, type=dict[str, object])
        base = msgspec.json.decode(assistant.config, type=dict[str, object])
        configurable = {**_object(base.get("configurable")), **_object(own.get("configurable"))}
        return msgspec.json.encode({**base, **own, "configurable": configurable})


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _reason(number: error_pb2.ErrorReason.ValueType) -> ErrorReason:
    try:
        return ErrorReason[error_pb2.ErrorReason.Name(number).removeprefix("ERROR_REASON_")]
    except (KeyError, ValueError):
        return ErrorReason.INTERNAL
