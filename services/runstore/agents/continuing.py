"""How an attempt goes on where an earlier attempt of its run was lost."""

from collections.abc import Collection
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from runstore.agents.graphs import AnyGraph

Nodes = Collection[str] | Literal["*"] | None


class Earlier:
    """What an earlier attempt has left: the latest checkpoint of the thread, made by the same run.

    The run's input and command are in it. Without one, the attempt begins at the beginning.
    """

    def __init__(
        self, saver: BaseCheckpointSaver[Any], config: RunnableConfig, latest: CheckpointTuple
    ) -> None:
        self._saver = saver
        self._config = config
        self._latest = latest

    @classmethod
    async def find(cls, saver: BaseCheckpointSaver[Any], thread_id: str, run_id: str) -> "Earlier | None":
        """What is left, or None when there is no checkpoint of the run."""
        config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        latest = await saver.aget_tuple(config)
        if latest is None or latest.metadata.get("run_id") != run_id:
            return None
        return cls(saver, config, latest)

    async def is_at_breakpoint(self, graph: AnyGraph, before: Nodes, after: Nodes) -> bool:
        """Whether the earlier attempt had ended at a breakpoint, and was lost before it could say so.

        langgraph would take another call for the one that goes on from there.
        """
        if self._latest.metadata.get("source") != "loop":
            return False
        if before and _meets((await graph.aget_state(self._config)).next, before):
            return True
        return bool(after) and _meets(await self._executed(), after)

    async def _executed(self) -> set[str]:
        """The nodes of the last step: those that have seen something since the checkpoint before."""
        seen = self._latest.checkpoint["versions_seen"]
        where = self._latest.parent_config
        parent = await self._saver.aget_tuple(where) if where else None
        seen_before = parent.checkpoint["versions_seen"] if parent else {}
        return {node for node, versions in seen.items() if versions != seen_before.get(node)}


def _meets(nodes: Collection[str], breakpoints: Nodes) -> bool:
    # Start, interrupts and the like are no nodes of the author's.
    named = {node for node in nodes if not node.startswith("__")}
    return bool(named) if breakpoints == "*" else not named.isdisjoint(breakpoints or ())
