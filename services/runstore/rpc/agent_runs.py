"""Serves `AgentRunService`."""

import math
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import grpc
import msgspec

from runstore.catalog.agent_runs import AgentRunCatalog, run_not_found
from runstore.catalog.agent_threads import AgentThreadCatalog
from runstore.catalog.texts import check_name, json_object
from runstore.dispatch.feeds import RunEvent
from runstore.dispatch.runs import AgentRuns
from runstore.domain.agent_runs import (
    MAX_AGENT_PAGE,
    AgentRunStatus,
    AgentThread,
    AgentThreadStatus,
    NewAgentRun,
    RunEnd,
)
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.ingest.validation import uuid_text
from runstore.rpc.agent_messages import (
    ACTIONS,
    STATUSES,
    STRATEGIES,
    check_checkpoint,
    chosen,
    end_message,
    event_id,
    event_message,
    run_message,
)
from runstore.rpc.agent_questions import WorkerQuestions
from runstore.rpc.authentication import current_principal
from runstore.v1 import agent_run_pb2 as run_pb
from runstore.v1 import agent_run_service_pb2 as pb
from runstore.v1 import agent_run_service_pb2_grpc, thread_service_pb2

_DEFAULT_PAGE_SIZE: Final = 10
_MAX_AT_ONCE: Final = 1_000
_MAX_DELAY_S: Final = 366 * 24 * 3_600
_DURABILITIES: Final = {
    run_pb.DURABILITY_SYNC: "sync",
    run_pb.DURABILITY_ASYNC: "async",
    run_pb.DURABILITY_EXIT: "exit",
}
_IN_FLIGHT: Final = {
    run_pb.AGENT_RUN_STATUS_PENDING: AgentRunStatus.PENDING,
    run_pb.AGENT_RUN_STATUS_RUNNING: AgentRunStatus.RUNNING,
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AgentRunServicer(agent_run_service_pb2_grpc.AgentRunServiceServicer):
    """Maps calls to the use cases of runs."""

    def __init__(
        self,
        runs: AgentRuns,
        catalog: AgentRunCatalog,
        threads: AgentThreadCatalog,
        questions: WorkerQuestions,
    ) -> None:
        self._runs = runs
        self._catalog = catalog
        self._threads = threads
        self._questions = questions

    async def CreateAgentRun(
        self, request: pb.CreateAgentRunRequest, context: _Context
    ) -> pb.CreateAgentRunResponse:
        new = new_run(request, user_id())
        await self._check_checkpoint(new)
        (run,) = await self._runs.create(_tenant_id(), [(request.assistant_id, new)])
        return pb.CreateAgentRunResponse(run=run_message(run))

    async def CreateAgentRuns(
        self, request: pb.CreateAgentRunsRequest, context: _Context
    ) -> pb.CreateAgentRunsResponse:
        if not 1 <= len(request.requests) <= _MAX_AT_ONCE:
            raise invalid("requests", f"must be 1 to {_MAX_AT_ONCE}")
        requests = []
        for index, each in enumerate(request.requests):
            try:
                requests.append((each.assistant_id, new_run(each, user_id())))
            except RunstoreError as error:
                field = f"requests[{index}].{error.field}"
                raise RunstoreError(error.reason, error.message, field=field) from error
        for _, new in requests:
            await self._check_checkpoint(new)
        runs = await self._runs.create(_tenant_id(), requests)
        return pb.CreateAgentRunsResponse(runs=[run_message(run) for run in runs])

    async def _check_checkpoint(self, new: NewAgentRun) -> None:
        """Raises NOT_FOUND when the run is to start from a checkpoint that its thread does not have."""
        if new.thread_id is None or not (new.checkpoint or {}).get("checkpoint_id"):
            return
        thread = await self._threads.get(_tenant_id(), new.thread_id)
        if thread.graph_id is not None:
            question = await self._questions.about(thread)
            question.state.CopyFrom(
                thread_service_pb2.GetThreadStateRequest(
                    thread_id=new.thread_id, checkpoint=msgspec.json.encode(new.checkpoint)
                )
            )
            answer = await self._questions.ask(_tenant_id(), question)
            if msgspec.json.decode(answer.value).get("created_at") is not None:
                return
        raise RunstoreError(ErrorReason.NOT_FOUND, "the thread has no such checkpoint", field="checkpoint_id")

    async def GetAgentRun(self, request: pb.GetAgentRunRequest, context: _Context) -> pb.GetAgentRunResponse:
        run = await self._catalog.get(_tenant_id(), *_ids(request))
        return pb.GetAgentRunResponse(run=run_message(run))

    async def ListAgentRuns(
        self, request: pb.ListAgentRunsRequest, context: _Context
    ) -> pb.ListAgentRunsResponse:
        if request.offset < 0 or request.page_size < 0:
            raise invalid("offset" if request.offset < 0 else "page_size", "negative")
        status = chosen("status", STATUSES, request.status) if request.status else None
        limit = min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_AGENT_PAGE)
        thread_id = uuid_text("thread_id", request.thread_id)
        runs = await self._catalog.page(_tenant_id(), thread_id, status, request.offset, limit)
        return pb.ListAgentRunsResponse(runs=[run_message(run) for run in runs])

    async def JoinAgentRun(
        self, request: pb.JoinAgentRunRequest, context: _Context
    ) -> AsyncIterator[pb.JoinAgentRunResponse]:
        run_id = uuid_text("run_id", request.run_id)
        thread_id = uuid_text("thread_id", request.thread_id) if request.thread_id else None
        after = None
        if request.HasField("after_event_id"):
            after = event_id("after_event_id", request.after_event_id)
        if request.latest_of_thread:
            end = await self._end_by_thread(thread_id, run_id)
            if end is not None and after is None:
                yield pb.JoinAgentRunResponse(end=end_message(end))
                return
        steps = self._runs.follow(_tenant_id(), thread_id, run_id, after, is_end_only=request.end_only)
        async for step in steps:
            if isinstance(step, RunEnd):
                yield pb.JoinAgentRunResponse(end=end_message(step))
            elif is_wanted(step, request.modes):
                yield pb.JoinAgentRunResponse(event=event_message(step))

    async def _end_by_thread(self, thread_id: str | None, run_id: str) -> RunEnd | None:
        """What joining a run that has ended answers: what its thread holds now, while there is one."""
        end = await self._catalog.end(_tenant_id(), run_id)
        if end is None:
            return None
        if thread_id not in (None, end.thread_id):
            raise run_not_found(run_id)
        try:
            thread = await self._threads.get(_tenant_id(), end.thread_id)
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND:
                raise
            return end
        if end.status is AgentRunStatus.ROLLED_BACK:
            return end
        return RunEnd(
            run_id=run_id, thread_id=end.thread_id, status=end.status, result=_thread_result(thread)
        )

    async def CancelAgentRun(
        self, request: pb.CancelAgentRunRequest, context: _Context
    ) -> pb.CancelAgentRunResponse:
        thread_id, run_id = _ids(request)
        action = chosen("action", ACTIONS, request.action)
        if not await self._runs.cancel(_tenant_id(), thread_id, [run_id], action, request.reason):
            raise run_not_found(run_id)
        return pb.CancelAgentRunResponse()

    async def CancelAgentRuns(
        self, request: pb.CancelAgentRunsRequest, context: _Context
    ) -> pb.CancelAgentRunsResponse:
        action = chosen("action", ACTIONS, request.action)
        by_status = request.all_in_flight or request.status != run_pb.AGENT_RUN_STATUS_UNSPECIFIED
        if by_status == bool(request.thread_id or request.run_ids):
            raise invalid("status", "either a status, or thread_id and run_ids, must be given")
        if by_status:
            status = None if request.all_in_flight else chosen("status", _IN_FLIGHT, request.status)
            count = await self._runs.cancel_all(_tenant_id(), status, action)
        else:
            if not 1 <= len(request.run_ids) <= _MAX_AT_ONCE:
                raise invalid("run_ids", f"must be 1 to {_MAX_AT_ONCE}")
            run_ids = [uuid_text(f"run_ids[{index}]", each) for index, each in enumerate(request.run_ids)]
            thread_id = uuid_text("thread_id", request.thread_id)
            count = await self._runs.cancel(_tenant_id(), thread_id, run_ids, action)
        if not count:
            raise RunstoreError(ErrorReason.NOT_FOUND, "none of these runs is in flight")
        return pb.CancelAgentRunsResponse(cancelled_count=count)

    async def DeleteAgentRun(
        self, request: pb.DeleteAgentRunRequest, context: _Context
    ) -> pb.DeleteAgentRunResponse:
        thread_id, run_id = _ids(request)
        if not await self._runs.stop(_tenant_id(), thread_id, run_id):
            await self._delete_ended(thread_id, run_id)
        return pb.DeleteAgentRunResponse()

    async def _delete_ended(self, thread_id: str, run_id: str) -> None:
        """Checkpoints first: while the row is there, an interrupted deletion can be repeated."""
        run = await self._catalog.get(_tenant_id(), thread_id, run_id)
        if run.attempt and run.has_checkpoints:
            thread = await self._threads.get(_tenant_id(), thread_id)
            question = await self._questions.about(thread)
            question.delete_checkpoints.thread_id = thread_id
            question.delete_checkpoints.run_id = run_id
            await self._questions.ask(_tenant_id(), question)
        await self._catalog.delete(_tenant_id(), thread_id, run_id)


def is_wanted(event: RunEvent, modes: Any) -> bool:
    """Whether a follower that named `modes`, or none, gets the event."""
    if not modes:
        return True
    mode, _, _ = event.mode.partition("/")
    return mode in modes or (mode == "messages" and "messages-tuple" in modes)


def _thread_result(thread: AgentThread) -> bytes:
    """What `join` answers for a run that is over (agents.md, section 2.6, case 5)."""
    if thread.status is AgentThreadStatus.ERROR and thread.error is not None:
        error = {"error": thread.error.error, "message": thread.error.message}
        return msgspec.json.encode({"__error__": error})
    interrupts = msgspec.json.decode(thread.interrupts or b"{}", type=dict[str, list[Any]])
    pending = [interrupt for of_task in interrupts.values() for interrupt in of_task]
    if thread.status is AgentThreadStatus.INTERRUPTED and pending:
        return msgspec.json.encode({"__interrupt__": pending})
    return thread.values or b"{}"


# -- requests --------------------------------------------------------------------------------------


def new_run(request: pb.CreateAgentRunRequest, user_id: str) -> NewAgentRun:
    """The request, its JSON checked, as one of the caller `user_id`. Raises INVALID_ARGUMENT."""
    is_stateless = not request.thread_id
    checkpoint = _object(request, "checkpoint") or {}
    checkpoint.pop("thread_id", None)
    check_checkpoint("checkpoint", checkpoint)
    if request.HasField("checkpoint_id"):
        checkpoint["checkpoint_id"] = uuid_text("checkpoint_id", request.checkpoint_id)
    if not 0 <= request.after_seconds <= _MAX_DELAY_S or math.isnan(request.after_seconds):
        raise invalid("after_seconds", f"must be between 0 and {_MAX_DELAY_S}")
    if request.HasField("project_name"):
        check_name("langsmith_tracer.project_name", request.project_name)
    command = _object(request, "command")
    command = {key: value for key, value in (command or {}).items() if value is not None}
    config = _object(request, "config")
    for part in ("configurable", "metadata"):
        if not isinstance((config or {}).get(part) or {}, dict):
            raise invalid(f"config.{part}", "not a JSON object")
    return NewAgentRun(
        thread_id=None if is_stateless else uuid_text("thread_id", request.thread_id),
        input=_document(request, "input"),
        command=msgspec.json.encode(command) if command else None,
        metadata=_object(request, "metadata"),
        config=config,
        context=_object(request, "context"),
        checkpoint=None if is_stateless else checkpoint or None,
        options=_options(request),
        headers=dict(request.headers),
        request_id=request.request_id,
        user_id=user_id,
        webhook=request.webhook if request.HasField("webhook") else None,
        multitask_strategy=chosen("multitask_strategy", STRATEGIES, request.multitask_strategy),
        creates_thread=request.create_thread,
        keeps_thread=request.keep_thread,
        after_seconds=request.after_seconds,
        project_name=request.project_name if request.HasField("project_name") else None,
        example_id=request.example_id if request.HasField("example_id") else None,
    )


def _options(request: pb.CreateAgentRunRequest) -> dict[str, object]:
    during = request.checkpoint_during if request.HasField("checkpoint_during") else None
    durability = _DURABILITIES.get(request.durability, "exit" if during is False else "async")
    return {
        "stream_mode": list(request.stream_modes) or ["values"],
        "interrupt_before": _nodes(request, "interrupt_before"),
        "interrupt_after": _nodes(request, "interrupt_after"),
        "feedback_keys": list(request.feedback_keys) or None,
        "subgraphs": request.stream_subgraphs,
        "resumable": request.stream_resumable,
        "checkpoint_during": during,
        "durability": durability,
        "strict_resume": request.strict_resume or None,
    }


def _nodes(request: pb.CreateAgentRunRequest, field: str) -> str | list[str] | None:
    document = _document(request, field)
    if document is None:
        return None
    try:
        nodes = msgspec.json.decode(document, type=str | list[str])
    except msgspec.DecodeError as error:
        raise invalid(field, "neither * nor a list of nodes") from error
    if isinstance(nodes, str) and nodes != "*":
        raise invalid(field, "neither * nor a list of nodes")
    return nodes


def _document(request: pb.CreateAgentRunRequest, field: str) -> bytes | None:
    """JSON of any type. Raises INVALID_ARGUMENT."""
    if not request.HasField(field):  # type: ignore[arg-type]  # one of the request's own
        return None
    document: bytes = getattr(request, field)
    try:
        msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(field, f"{field} is not JSON") from error
    return document


def _object(request: pb.CreateAgentRunRequest, field: str) -> dict[str, object] | None:
    if not request.HasField(field):  # type: ignore[arg-type]  # one of the request's own
        return None
    return json_object(field, getattr(request, field))


def _ids(request: Any) -> tuple[str, str]:
    return uuid_text("thread_id", request.thread_id), uuid_text("run_id", request.run_id)


def user_id() -> str:
    """Who calls; "" when nobody is asked who they are."""
    return current_principal.get().key_id or ""


def _tenant_id() -> str:
    return current_principal.get().tenant_id
