"""Answers what only the graphs or the checkpoints can tell: states, schemas, copies, deletions."""

import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.store.base import BaseStore
from langgraph.types import StateUpdate
from langgraph_sdk.runtime import AccessContext

from runstore.agents.attempts import Snapshot
from runstore.agents.checkpoints import Checkpoints, CheckpointsUnavailable
from runstore.agents.failures import RAISED_BY_USERS
from runstore.agents.graphs import AnyGraph, RegisteredGraph, Use
from runstore.agents.json_values import from_json, to_json
from runstore.agents.messages import snapshot_message
from runstore.agents.run_config import graph_input, read_config
from runstore.agents.schemas import drawing, graph_schemas, subgraph_schemas
from runstore.agents.snapshots import latest_snapshot, thread_state
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import error_pb2
from runstore.v1 import thread_service_pb2 as threads

_MOST_STATES: Final = 1_000

Answer = tuple[Any, Snapshot | None]
"""A value that JSON can hold, and what the thread holds now, where the question says so."""

_log = structlog.get_logger(__name__)


class Questions:
    """Answers questions of the store. Runs on the event loop of the graphs."""

    def __init__(
        self, graphs: Mapping[str, RegisteredGraph], checkpoints: Checkpoints, store: BaseStore | None
    ) -> None:
        self._graphs = graphs
        self._checkpoints = checkpoints
        self._store = store

    async def answer(self, question: pb.WorkerQuestion) -> pb.WorkerAnswer:
        """The answer, or why there is none. Raises nothing."""
        try:
            value, snapshot = await self._answer(question)
            answer = pb.WorkerAnswer(question_id=question.question_id, value=to_json(value))
        except RAISED_BY_USERS as error:  # Each has to become an answer.
            return _refusal(question, self._refused(error))
        if snapshot is not None:
            answer.snapshot.CopyFrom(snapshot_message(snapshot))
        return answer

    def _refused(self, error: BaseException) -> RunstoreError:
        if isinstance(error, RunstoreError):
            return error
        if isinstance(error, (CheckpointsUnavailable, *self._checkpoints.unavailable_errors)):
            _log.warning("checkpoints are away", why=str(error))
            return RunstoreError(ErrorReason.UNAVAILABLE, "The database of checkpoints cannot be reached.")
        if isinstance(error, (InvalidUpdateError, ValueError, TypeError, KeyError)):
            return RunstoreError(ErrorReason.INCONSISTENT, str(error))
        _log.warning("graph cannot answer", traceback="".join(traceback.format_exception(error)))
        return RunstoreError(ErrorReason.INTERNAL, "The graph raised an error.")

    async def _answer(self, question: pb.WorkerQuestion) -> Answer:
        kind = question.WhichOneof("question")
        match kind:
            case "state":
                return await self._state(question, question.state), None
            case "history":
                return await self._history(question, question.history), None
            case "update_state":
                return await self._update_state(question, question.update_state)
            case "apply_supersteps":
                return await self._apply_supersteps(question, question.apply_supersteps)
            case "copy_checkpoints":
                copy = question.copy_checkpoints
                await self._checkpoints.copy_thread(copy.source_thread_id, copy.target_thread_id)
                return None, None
            case "delete_checkpoints":
                return None, await self._delete(question, question.delete_checkpoints)
            case "schemas" | "drawing" | "subgraphs":
                return await self._about_graph(question), None
        raise RunstoreError(ErrorReason.UNIMPLEMENTED, "This worker does not know the question.")

    @asynccontextmanager
    async def _opened(self, question: pb.WorkerQuestion, access: AccessContext) -> AsyncIterator[AnyGraph]:
        graph = self._graphs.get(question.graph_id)
        if graph is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"This worker has no graph '{question.graph_id}'.")
        config = from_json(question.config) or {}
        use = Use(cast("RunnableConfig", config), access, self._checkpoints.saver, self._store)
        async with graph.opened(use) as opened:
            yield opened

    async def _state(self, question: pb.WorkerQuestion, asked: threads.GetThreadStateRequest) -> Any:
        config = _config(question, asked.thread_id, asked.checkpoint)
        async with self._opened(question, "threads.read") as graph:
            return thread_state(await graph.aget_state(config, subgraphs=asked.subgraphs))

    async def _history(self, question: pb.WorkerQuestion, asked: threads.ListThreadHistoryRequest) -> Any:
        config = _config(question, asked.thread_id, asked.checkpoint)
        before = from_json(asked.before)
        if isinstance(before, str):
            before = {"checkpoint_id": before}
        if isinstance(before, dict):
            before = before if "configurable" in before else {"configurable": before}
        limit = min(asked.limit or 1, _MOST_STATES)
        async with self._opened(question, "threads.read") as graph:
            states = graph.aget_state_history(
                config, filter=from_json(asked.metadata) or None, before=before, limit=limit
            )
            return [thread_state(state) async for state in states]

    async def _update_state(
        self, question: pb.WorkerQuestion, asked: threads.UpdateThreadStateRequest
    ) -> Answer:
        config = _config(question, asked.thread_id, asked.checkpoint)
        values = from_json(asked.values)
        as_node = asked.as_node if asked.HasField("as_node") else None
        async with self._opened(question, "threads.update") as graph:
            if isinstance(values, list):
                updates = [StateUpdate(value, as_node) for value in values]
                updated = await graph.abulk_update_state(config, [updates])
            else:
                updated = await graph.aupdate_state(config, values, as_node)
            await self._checkpoints.make_durable()
            snapshot = await latest_snapshot(graph, asked.thread_id)
        where = updated.get("configurable", {})
        place = {
            name: where.get(name)
            for name in ("thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map")
        }
        return {
            "checkpoint": place,
            "configurable": where,
            "checkpoint_id": where.get("checkpoint_id"),
        }, snapshot

    async def _apply_supersteps(self, question: pb.WorkerQuestion, asked: pb.ApplySupersteps) -> Answer:
        steps = [
            [_state_update(update) for update in step.get("updates", [])]
            for step in from_json(asked.supersteps)
        ]
        async with self._opened(question, "threads.update") as graph:
            await graph.abulk_update_state(_config(question, asked.thread_id, b""), steps)
            await self._checkpoints.make_durable()
            return None, await latest_snapshot(graph, asked.thread_id)

    async def _delete(self, question: pb.WorkerQuestion, asked: pb.DeleteCheckpoints) -> Snapshot | None:
        if asked.run_id:
            await self._checkpoints.delete_run(asked.thread_id, asked.run_id)
        elif asked.keep_latest:
            await self._checkpoints.keep_latest(asked.thread_id)
        else:
            await self._checkpoints.delete_thread(asked.thread_id)
        if not asked.run_id or not question.graph_id:
            return None
        async with self._opened(question, "threads.read") as graph:
            return await latest_snapshot(graph, asked.thread_id)

    async def _about_graph(self, question: pb.WorkerQuestion) -> Any:
        async with self._opened(question, "assistants.read") as graph:
            if question.HasField("schemas"):
                return graph_schemas(graph, question.graph_id)
            if question.HasField("drawing"):
                return await drawing(graph, question.drawing.xray)
            asked = question.subgraphs
            namespace = asked.namespace if asked.HasField("namespace") else None
            return await subgraph_schemas(graph, namespace, recurse=asked.recurse)


def _config(question: pb.WorkerQuestion, thread_id: str, checkpoint: bytes) -> Any:
    return read_config(from_json(question.config) or {}, thread_id, from_json(checkpoint))


def _state_update(update: Mapping[str, Any]) -> StateUpdate:
    values = graph_input({"command": update.get("command"), "input": update.get("values")})
    return StateUpdate(values, update.get("as_node"))


def _refusal(question: pb.WorkerQuestion, error: RunstoreError) -> pb.WorkerAnswer:
    reason = error_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason.name}")
    return pb.WorkerAnswer(
        question_id=question.question_id, refusal=pb.WorkerRefusal(reason=reason, message=error.message)
    )
