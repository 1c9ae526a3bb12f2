"""Serves `AgentWorkerService`: the stream of each worker, and the renewal of leases."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.agent_claims import LEASE_S, Worker
from runstore.catalog.assistants import AssistantCatalog
from runstore.catalog.texts import check_name
from runstore.dispatch.dispatcher import Dispatcher
from runstore.dispatch.feeds import RunEvent
from runstore.dispatch.questions import Questions
from runstore.dispatch.workers import Asked, ConnectedWorker, Lost, Recorded, ToWorker
from runstore.domain.agent_runs import Cancel, Claim, ClaimedRun, Finished, Outcome
from runstore.domain.assistants import Graph
from runstore.domain.errors import invalid
from runstore.domain.projects import DEFAULT_PROJECT_NAME
from runstore.ingest.validation import uuid_text
from runstore.rpc.agent_messages import (
    ACTION_NUMBERS,
    chosen,
    claim_of,
    error_of,
    run_message,
    snapshot_of,
)
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import optional_time_us
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import agent_worker_service_pb2_grpc

_MAX_SLOTS: Final = 1_000
_MAX_GRAPHS: Final = 1_000
_OUTCOMES: Final = {
    pb.WORKER_OUTCOME_SUCCESS: Outcome.SUCCESS,
    pb.WORKER_OUTCOME_ERROR: Outcome.ERROR,
    pb.WORKER_OUTCOME_TIMEOUT: Outcome.TIMEOUT,
    pb.WORKER_OUTCOME_INTERRUPTED: Outcome.INTERRUPTED,
    pb.WORKER_OUTCOME_ROLLED_BACK: Outcome.ROLLED_BACK,
    pb.WORKER_OUTCOME_REQUEUE: Outcome.REQUEUE,
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AgentWorkerServicer(agent_worker_service_pb2_grpc.AgentWorkerServiceServicer):
    """Maps a worker's messages to the dispatcher's methods, and back."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        questions: Questions,
        assistants: AssistantCatalog,
        *,
        run_timeout_s: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._questions = questions
        self._assistants = assistants
        self._run_timeout_s = run_timeout_s

    async def Work(
        self, request_iterator: AsyncIterator[pb.WorkRequest], context: _Context
    ) -> AsyncIterator[pb.WorkResponse]:
        tenant_id = _tenant_id()
        hello = await _hello(request_iterator)
        graphs = _graphs(hello)
        await self._assistants.register(tenant_id, graphs)
        worker = Worker(
            tenant_id,
            uuid_text("hello.worker_id", hello.worker_id),
            frozenset(graph.graph_id for graph in graphs),
            hello.is_tracing,
        )
        connected = await self._dispatcher.connect(
            worker, hello.slots, [claim_of(claim) for claim in hello.claims]
        )
        reading = asyncio.create_task(self._read(connected, request_iterator))
        reading.add_done_callback(
            lambda task: connected.close(None if task.cancelled() else task.exception())
        )
        try:
            yield self._welcome()
            while (message := await connected.next_message()) is not None:
                yield _response(message)
        finally:
            reading.cancel()
            self._dispatcher.disconnect(connected)

    def _welcome(self) -> pb.WorkResponse:
        welcome = pb.WorkerWelcome(default_project_name=DEFAULT_PROJECT_NAME)
        welcome.lease.FromMilliseconds(round(LEASE_S * 1_000))
        welcome.run_timeout.FromMilliseconds(round(self._run_timeout_s * 1_000))
        return pb.WorkResponse(welcome=welcome)

    async def _read(self, connected: ConnectedWorker, requests: AsyncIterator[pb.WorkRequest]) -> None:
        """Handles what the worker says, in order, until it ends its stream."""
        async for request in requests:
            # The end of the stream does not cut short what the worker has said before.
            await asyncio.shield(asyncio.ensure_future(self._handle(connected, request)))

    async def _handle(self, connected: ConnectedWorker, request: pb.WorkRequest) -> None:
        match request.WhichOneof("message"):
            case "events":
                events = [
                    RunEvent(event.mode, tuple(event.namespace), event.data)
                    for event in request.events.events
                ]
                self._dispatcher.publish(connected, claim_of(request.events.claim), events)
            case "finished":
                await self._dispatcher.finish(connected, _finished(request.finished))
            case "answer":
                self._questions.answer(connected, request.answer.question_id, request.answer)
            case "draining":
                self._dispatcher.drain(connected)
            case "hello":
                raise invalid("hello", "said twice")
            case _:
                raise invalid("message", "none that is known")

    async def RenewClaims(self, request: pb.RenewClaimsRequest, context: _Context) -> pb.RenewClaimsResponse:
        if len(request.claims) > _MAX_SLOTS:
            raise invalid("claims", f"more than {_MAX_SLOTS}")
        claims = [claim_of(claim) for claim in request.claims]
        lost, cancels = await self._dispatcher.renew(_tenant_id(), claims)
        return pb.RenewClaimsResponse(
            lost=[_claim_message(claim) for claim in lost],
            cancels=[_cancel_message(cancel) for cancel in cancels],
        )


async def _hello(requests: AsyncIterator[pb.WorkRequest]) -> pb.WorkerHello:
    async for request in requests:
        if request.WhichOneof("message") != "hello":
            break
        if not 1 <= request.hello.slots <= _MAX_SLOTS:
            raise invalid("hello.slots", f"must be between 1 and {_MAX_SLOTS}")
        if len(request.hello.claims) > _MAX_SLOTS:
            raise invalid("hello.claims", f"more than {_MAX_SLOTS}")
        return request.hello
    raise invalid("hello", "must come first")


def _graphs(hello: pb.WorkerHello) -> list[Graph]:
    if len(hello.graphs) > _MAX_GRAPHS:
        raise invalid("hello.graphs", f"more than {_MAX_GRAPHS}")
    for index, graph in enumerate(hello.graphs):
        check_name(f"hello.graphs[{index}].graph_id", graph.graph_id)
    return [
        Graph(
            graph.graph_id,
            graph.name or graph.graph_id,
            graph.description if graph.HasField("description") else None,
        )
        for graph in hello.graphs
    ]


def _finished(message: pb.WorkerFinished) -> Finished:
    return Finished(
        claim=claim_of(message.claim),
        outcome=chosen("finished.outcome", _OUTCOMES, message.outcome),
        result=message.result,
        snapshot=snapshot_of(message),
        error=error_of(message, "error"),
        started_at_us=optional_time_us(message, "start_time"),
        ended_at_us=optional_time_us(message, "end_time"),
        is_failure=message.is_failure,
    )


def _response(message: ToWorker) -> pb.WorkResponse:
    match message:
        case ClaimedRun():
            return pb.WorkResponse(run=_run_message(message))
        case Cancel():
            return pb.WorkResponse(cancel=_cancel_message(message))
        case Lost(claim):
            return pb.WorkResponse(lost=_claim_message(claim))
        case Recorded(claim):
            return pb.WorkResponse(recorded=_claim_message(claim))
        case Asked(question_id, question):
            response = pb.WorkResponse()
            if not isinstance(question, pb.WorkerQuestion):
                raise TypeError(f"{type(question)} is no question")
            response.question.CopyFrom(question)
            response.question.question_id = question_id
            return response


def _run_message(claimed: ClaimedRun) -> pb.WorkerRun:
    run = claimed.run
    message = pb.WorkerRun(
        claim=_claim_message(claimed.claim),
        run=run_message(run),
        graph_id=run.graph_id,
        has_checkpoints=run.has_checkpoints,
        user_id=run.user_id,
    )
    if run.cancel_action is not None:
        cancel = Cancel(claimed.claim, run.cancel_action, run.cancel_reason or "")
        message.cancel.CopyFrom(_cancel_message(cancel))
    return message


def _cancel_message(cancel: Cancel) -> pb.WorkerCancel:
    return pb.WorkerCancel(
        claim=_claim_message(cancel.claim), action=ACTION_NUMBERS[cancel.action], reason=cancel.reason
    )


def _claim_message(claim: Claim) -> pb.AgentRunClaim:
    return pb.AgentRunClaim(run_id=claim.run_id, claim_token=claim.token)


def _tenant_id() -> str:
    return current_principal.get().tenant_id
