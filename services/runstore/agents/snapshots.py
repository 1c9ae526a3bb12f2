"""States of threads as JSON, read through the graph that knows their channels."""

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from runstore.agents.attempts import Snapshot
from runstore.agents.graphs import AnyGraph
from runstore.agents.json_values import to_json

# langgraph's own keys of a config are no business of clients.
_PLACE = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")


async def latest_snapshot(graph: AnyGraph, thread_id: str, checkpoint_id: str | None = None) -> Snapshot:
    """What the thread holds after its latest checkpoint, which is `checkpoint_id` if the caller knows."""
    where: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    if checkpoint_id is None:
        state = await graph.aget_state(where)
        checkpoint_id = state.config["configurable"].get("checkpoint_id")
    if checkpoint_id is None:
        return Snapshot()
    # Of a checkpoint that is named, langgraph leaves out what was written beside an unfinished task.
    state = await graph.aget_state(
        {"configurable": {**where["configurable"], "checkpoint_id": checkpoint_id}}
    )
    interrupts = {
        task.id: [_short(entry) for entry in task.interrupts] for task in state.tasks if task.interrupts
    }
    return Snapshot(to_json(state.values), to_json(interrupts), bool(state.next))


def _short(interrupt: Interrupt) -> dict[str, Any]:
    return {"id": interrupt.id, "value": interrupt.value}


def thread_state(state: StateSnapshot) -> dict[str, Any]:
    """The contract's ThreadState; `to_json` renders it."""
    checkpoint, parent = _checkpoint(state.config), _checkpoint(state.parent_config)
    if checkpoint is not None and checkpoint.get("checkpoint_id") is None:
        checkpoint = None
    return {
        "values": state.values,
        "next": list(state.next),
        "tasks": [_task(task) for task in state.tasks],
        "metadata": state.metadata,
        "created_at": state.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": list(state.interrupts),
        "checkpoint_id": checkpoint["checkpoint_id"] if checkpoint else None,
        "parent_checkpoint_id": parent.get("checkpoint_id") if parent else None,
    }


def _task(task: PregelTask) -> dict[str, Any]:
    is_state = isinstance(task.state, StateSnapshot)
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        # Checkpoints keep errors as text already.
        "error": repr(task.error) if isinstance(task.error, Exception) else task.error,
        "interrupts": list(task.interrupts),
        "checkpoint": None if is_state else _checkpoint(task.state),
        "state": thread_state(task.state) if is_state else None,  # type: ignore[arg-type] # as just asked
        "result": task.result,
    }


def _checkpoint(config: Any) -> dict[str, Any] | None:
    """Where a config points."""
    if not isinstance(config, Mapping):
        return None
    where = {name: value for name, value in config.get("configurable", {}).items() if name in _PLACE}
    return where or None
