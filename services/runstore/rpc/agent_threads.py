"""Serves `ThreadService`: rows of threads from the catalog, what is in their checkpoints from workers."""

import uuid
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import grpc
import msgspec

from runstore.catalog.agent_runs import AgentRunCatalog
from runstore.catalog.agent_threads import AgentThreadCatalog
from runstore.catalog.texts import json_object
from runstore.dispatch.feeds import RunFeeds
from runstore.dispatch.runs import AgentRuns
from runstore.domain.agent_runs import (
    MAX_AGENT_PAGE,
    AgentThread,
    AgentThreadStatus,
    RunEnd,
    ThreadOrder,
    ThreadQuery,
)
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.ingest.validation import uuid_text
from runstore.rpc.agent_messages import (
    THREAD_STATUSES,
    check_checkpoint,
    chosen,
    end_message,
    event_message,
    snapshot_of,
    thread_message,
    ttl_of,
)
from runstore.rpc.agent_questions import WorkerQuestions
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import ids
from runstore.v1 import agent_worker_service_pb2 as worker_pb
from runstore.v1 import thread_service_pb2 as pb
from runstore.v1 import thread_service_pb2_grpc

_DEFAULT_PAGE_SIZE: Final = 10
_ORDERS: Final = {
    pb.AGENT_THREAD_ORDER_UNSPECIFIED: ThreadOrder.UPDATED_AT,
    pb.AGENT_THREAD_ORDER_UPDATE_TIME: ThreadOrder.UPDATED_AT,
    pb.AGENT_THREAD_ORDER_CREATE_TIME: ThreadOrder.CREATED_AT,
    pb.AGENT_THREAD_ORDER_THREAD_ID: ThreadOrder.THREAD_ID,
    pb.AGENT_THREAD_ORDER_STATUS: ThreadOrder.STATUS,
    pb.AGENT_THREAD_ORDER_STATE_UPDATE_TIME: ThreadOrder.STATE_UPDATED_AT,
}
_LIFECYCLE: Final = "lifecycle"
_RUN_MODES: Final = "run_modes"
_JOIN_MODES: Final = (_LIFECYCLE, _RUN_MODES, "state_update")
_NO_STATE: Final = msgspec.json.encode(
    {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": {},
        "created_at": None,
        "checkpoint": None,
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": None,
        "parent_checkpoint_id": None,
    }
)
"""What a thread says that no graph has ever run on."""

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ThreadServicer(thread_service_pb2_grpc.ThreadServiceServicer):
    """Maps calls to the catalog and to questions."""

    def __init__(
        self,
        threads: AgentThreadCatalog,
        run_catalog: AgentRunCatalog,
        runs: AgentRuns,
        feeds: RunFeeds,
        questions: WorkerQuestions,
    ) -> None:
        self._threads = threads
        self._run_catalog = run_catalog
        self._runs = runs
        self._feeds = feeds
        self._questions = questions

    # -- rows --------------------------------------------------------------------------------------

    async def CreateAgentThread(
        self, request: pb.CreateAgentThreadRequest, context: _Context
    ) -> pb.CreateAgentThreadResponse:
        tenant_id = _tenant_id()
        metadata = _object(request, "metadata")
        thread_id = uuid_text("thread_id", request.thread_id) if request.thread_id else str(uuid.uuid4())
        thread = await self._threads.create(
            tenant_id,
            thread_id,
            metadata,
            ttl=ttl_of(request),
            returns_existing=request.return_existing,
        )
        if request.HasField("supersteps"):
            thread = await self._apply_supersteps(thread, request.supersteps)
        return pb.CreateAgentThreadResponse(thread=thread_message(thread))

    async def _apply_supersteps(self, thread: AgentThread, supersteps: bytes) -> AgentThread:
        """Gives a new thread its first checkpoints, or deletes it when the graph refuses them."""
        if thread.graph_id is None:
            await self._threads.delete(thread.tenant_id, thread.thread_id)
            raise _no_graph()
        question = await self._questions.about(thread)
        question.apply_supersteps.thread_id = thread.thread_id
        question.apply_supersteps.supersteps = supersteps
        try:
            answer = await self._questions.ask(thread.tenant_id, question)
        except RunstoreError:
            await self._threads.delete(thread.tenant_id, thread.thread_id)
            raise
        await self._set_state(thread, answer)
        return await self._threads.get(thread.tenant_id, thread.thread_id)

    async def GetAgentThread(
        self, request: pb.GetAgentThreadRequest, context: _Context
    ) -> pb.GetAgentThreadResponse:
        return pb.GetAgentThreadResponse(thread=thread_message(await self._thread(request)))

    async def UpdateAgentThread(
        self, request: pb.UpdateAgentThreadRequest, context: _Context
    ) -> pb.UpdateAgentThreadResponse:
        thread = await self._threads.update(
            _tenant_id(),
            uuid_text("thread_id", request.thread_id),
            _object(request, "metadata"),
            ttl_of(request),
        )
        return pb.UpdateAgentThreadResponse(thread=thread_message(thread))

    async def SearchAgentThreads(
        self, request: pb.SearchAgentThreadsRequest, context: _Context
    ) -> pb.SearchAgentThreadsResponse:
        if request.offset < 0 or request.page_size < 0:
            raise invalid("offset" if request.offset < 0 else "limit", "negative")
        query = _query(
            request.condition,
            order=chosen("sort_by", _ORDERS, request.order),
            is_ascending=request.ascending,
            offset=request.offset,
            limit=min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_AGENT_PAGE),
        )
        threads, count = await self._threads.search(_tenant_id(), query)
        return pb.SearchAgentThreadsResponse(
            threads=[thread_message(thread) for thread in threads], total_count=count
        )

    async def CountAgentThreads(
        self, request: pb.CountAgentThreadsRequest, context: _Context
    ) -> pb.CountAgentThreadsResponse:
        count = await self._threads.count(_tenant_id(), _query(request.condition))
        return pb.CountAgentThreadsResponse(count=count)

    # -- deleting and copying ----------------------------------------------------------------------

    async def DeleteAgentThread(
        self, request: pb.DeleteAgentThreadRequest, context: _Context
    ) -> pb.DeleteAgentThreadResponse:
        await self.delete(await self._thread(request))
        return pb.DeleteAgentThreadResponse()

    async def delete(self, thread: AgentThread) -> None:
        """Stops what runs on the thread and deletes it."""
        await self._runs.stop_thread(thread.tenant_id, thread.thread_id)
        await self._delete(thread)

    async def _delete(self, thread: AgentThread) -> None:
        """Checkpoints first: while the row is there, an interrupted deletion can be repeated."""
        if await self._may_have_checkpoints(thread):
            await self._delete_checkpoints(thread, keep_latest=False)
        await self._threads.delete(thread.tenant_id, thread.thread_id)

    async def _may_have_checkpoints(self, thread: AgentThread) -> bool:
        if thread.is_temporary:
            return False
        return thread.state_updated_at_us is not None or await self._run_catalog.was_begun(
            thread.tenant_id, thread.thread_id
        )

    async def _delete_checkpoints(self, thread: AgentThread, *, keep_latest: bool) -> None:
        deletion = worker_pb.DeleteCheckpoints(thread_id=thread.thread_id, keep_latest=keep_latest)
        question = worker_pb.WorkerQuestion(delete_checkpoints=deletion)
        await self._questions.ask(thread.tenant_id, question)

    async def CopyAgentThread(
        self, request: pb.CopyAgentThreadRequest, context: _Context
    ) -> pb.CopyAgentThreadResponse:
        try:
            source = await self._thread(request)
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND:
                raise
            raise RunstoreError(ErrorReason.CONFLICT, error.message, field="thread_id") from error
        target_id = str(uuid.uuid4())
        if await self._may_have_checkpoints(source):
            copying = worker_pb.CopyCheckpoints(source_thread_id=source.thread_id, target_thread_id=target_id)
            await self._questions.ask(_tenant_id(), worker_pb.WorkerQuestion(copy_checkpoints=copying))
        thread = await self._threads.copy(source, target_id)
        return pb.CopyAgentThreadResponse(thread=thread_message(thread))

    async def PruneAgentThreads(
        self, request: pb.PruneAgentThreadsRequest, context: _Context
    ) -> pb.PruneAgentThreadsResponse:
        thread_ids = _thread_ids(request.thread_ids)
        if not thread_ids:
            raise invalid("thread_ids", "none given")
        query = ThreadQuery(thread_ids=thread_ids, limit=MAX_AGENT_PAGE)
        threads, _ = await self._threads.search(_tenant_id(), query)
        idle = [thread for thread in threads if thread.status is not AgentThreadStatus.BUSY]
        for thread in idle:
            await self.prune(thread, keep_latest=request.keep_latest)
        return pb.PruneAgentThreadsResponse(pruned_count=len(idle))

    async def prune(self, thread: AgentThread, *, keep_latest: bool) -> None:
        """Deletes the thread, or all its checkpoints but the latest."""
        if not keep_latest:
            await self._delete(thread)
        elif await self._may_have_checkpoints(thread):
            await self._delete_checkpoints(thread, keep_latest=True)

    # -- state -------------------------------------------------------------------------------------

    async def GetThreadState(
        self, request: pb.GetThreadStateRequest, context: _Context
    ) -> pb.GetThreadStateResponse:
        thread = await self._thread(request)
        _check_checkpoint(request)
        if thread.graph_id is None:
            return pb.GetThreadStateResponse(state=_NO_STATE)
        question = await self._questions.about(thread)
        question.state.CopyFrom(request)
        answer = await self._questions.ask(thread.tenant_id, question)
        return pb.GetThreadStateResponse(state=answer.value)

    async def ListThreadHistory(
        self, request: pb.ListThreadHistoryRequest, context: _Context
    ) -> pb.ListThreadHistoryResponse:
        thread = await self._thread(request)
        _check_checkpoint(request)
        _check_before(request)
        if not 0 <= request.limit <= MAX_AGENT_PAGE:
            raise invalid("limit", f"must be between 1 and {MAX_AGENT_PAGE}")
        if thread.graph_id is None:
            return pb.ListThreadHistoryResponse()
        question = await self._questions.about(thread)
        question.history.CopyFrom(request)
        answer = await self._questions.ask(thread.tenant_id, question)
        states = msgspec.json.decode(answer.value, type=list[msgspec.Raw])
        return pb.ListThreadHistoryResponse(states=[bytes(state) for state in states])

    async def UpdateThreadState(
        self, request: pb.UpdateThreadStateRequest, context: _Context
    ) -> pb.UpdateThreadStateResponse:
        thread = await self._thread(request)
        _check_checkpoint(request)
        if thread.status is AgentThreadStatus.BUSY:
            raise RunstoreError(ErrorReason.CONFLICT, "a run of the thread is in flight", field="thread_id")
        if thread.graph_id is None:
            raise _no_graph()
        question = await self._questions.about(thread)
        question.update_state.CopyFrom(request)
        answer = await self._questions.ask(thread.tenant_id, question)
        await self._set_state(thread, answer)
        return pb.UpdateThreadStateResponse(result=answer.value)

    async def _set_state(self, thread: AgentThread, answer: worker_pb.WorkerAnswer) -> None:
        snapshot = snapshot_of(answer)
        if snapshot is not None:
            await self._threads.set_state(thread.tenant_id, thread.thread_id, snapshot)

    # -- following ---------------------------------------------------------------------------------

    async def JoinAgentThread(
        self, request: pb.JoinAgentThreadRequest, context: _Context
    ) -> AsyncIterator[pb.JoinAgentThreadResponse]:
        for mode in request.modes:
            if mode not in _JOIN_MODES:
                raise invalid("stream_modes", f"must be one of {', '.join(_JOIN_MODES)}")
        thread = await self._thread(request)
        wants_all = not request.modes or _RUN_MODES in request.modes
        wants_ends = wants_all or _LIFECYCLE in request.modes
        with self._feeds.following_thread(thread.thread_id) as steps:
            # So that the caller knows from when on nothing is missed.
            await context.send_initial_metadata(())
            while (found := await steps.get()) is not None:
                run_id, step = found
                if isinstance(step, RunEnd):
                    if wants_ends:
                        yield pb.JoinAgentThreadResponse(run_id=run_id, end=end_message(step))
                elif wants_all or (wants_ends and step.mode == "metadata"):
                    yield pb.JoinAgentThreadResponse(run_id=run_id, event=event_message(step))
        raise RunstoreError(ErrorReason.UNAVAILABLE, "too slow for what the thread's runs say; join again")

    async def _thread(self, request: Any) -> AgentThread:
        return await self._threads.get(_tenant_id(), uuid_text("thread_id", request.thread_id))


def _query(condition: pb.AgentThreadCondition, **page: Any) -> ThreadQuery:
    status = chosen("status", THREAD_STATUSES, condition.status) if condition.status else None
    return ThreadQuery(
        metadata=_object(condition, "metadata") or None,
        values=_object(condition, "values") or None,
        status=status,
        thread_ids=_thread_ids(condition.thread_ids),
        **page,
    )


def _thread_ids(given: Any) -> tuple[str, ...]:
    if len(given) > MAX_AGENT_PAGE:
        raise invalid("ids", f"more than {MAX_AGENT_PAGE}")
    return ids("ids", given)


def _object(message: Any, field: str) -> dict[str, object]:
    return json_object(field, getattr(message, field)) if message.HasField(field) else {}


def _check_checkpoint(request: Any) -> None:
    """Raises INVALID_ARGUMENT for a checkpoint that cannot be one."""
    check_checkpoint("checkpoint", _object(request, "checkpoint"))


def _check_before(request: pb.ListThreadHistoryRequest) -> None:
    """Raises INVALID_ARGUMENT unless `before` is a checkpoint, or the id of one."""
    if not request.HasField("before"):
        return
    try:
        before = msgspec.json.decode(request.before)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("before", "not JSON") from error
    check_checkpoint("before", before if isinstance(before, dict) else {"checkpoint_id": before})


def _no_graph() -> RunstoreError:
    return RunstoreError(
        ErrorReason.INCONSISTENT, "the thread has no graph yet: run one, or name it in metadata.graph_id"
    )


def _tenant_id() -> str:
    return current_principal.get().tenant_id
