"""A checkpoint saver for one attempt of a run: it writes only while the attempt's lease holds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from runstore.agents.checkpoints import Checkpoints, CheckpointsUnavailable, WriteKey
from runstore.agents.failures import LeaseLost
from runstore.agents.leases import Lease

_T = TypeVar("_T")


class FencedSaver(BaseCheckpointSaver[Any]):
    """Reads and writes through the saver of `checkpoints`.

    Writes wait while `lease` is not confirmed, raise LeaseLost once it is lost or `close` was called, and are
    never torn by the cancellation of the graph that made them. Everything raises CheckpointsUnavailable for
    what the driver raises when its database does not answer.
    """

    def __init__(
        self, checkpoints: Checkpoints, lease: Lease, *, thread_id: str, run_id: str, is_sync: bool = False
    ) -> None:
        super().__init__(serde=checkpoints.saver.serde)
        self._checkpoints = checkpoints
        self._lease = lease
        self._thread_id = thread_id
        self._run_id = run_id
        self._loop = asyncio.get_running_loop()
        self._own_checkpoint_ids: set[str] = set()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_sync = is_sync
        self._has_written = False
        self._closed = False
        self.latest_id: str | None = None
        """Of the last checkpoint that this attempt has stored for the graph itself."""

    async def close(self) -> None:
        """Ends writing: returns when what was written is durable, and refuses whatever comes later."""
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)
        if self._has_written:
            await self._checkpoints.make_durable()

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._checkpoints.saver.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._answered(self._checkpoints.saver.aget_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - named by langgraph
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        listed = self._checkpoints.saver.alist(config, filter=filter, before=before, limit=limit)
        try:
            async for found in listed:
                yield found
        except self._checkpoints.unavailable_errors as error:
            raise CheckpointsUnavailable(str(error)) from error

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        saver = self._checkpoints.saver
        return await self._answered(saver.aget_delta_channel_history(config=config, channels=channels))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        async def write() -> RunnableConfig:
            stored = await self._checkpoints.saver.aput(config, checkpoint, metadata, new_versions)
            self._own_checkpoint_ids.add(checkpoint["id"])
            if self._is_sync:
                await self._checkpoints.make_durable()
            if not config["configurable"].get("checkpoint_ns"):
                self.latest_id = checkpoint["id"]
            return stored

        return await self._written(write)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        async def write() -> None:
            await self._note(config, writes, task_id)
            await self._checkpoints.saver.aput_writes(config, writes, task_id, task_path)

        await self._written(write)

    async def _note(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str) -> None:
        """A run that resumes writes beside a checkpoint of another run, where a rollback must find it."""
        where = config["configurable"]
        if where["checkpoint_id"] in self._own_checkpoint_ids:
            return
        keys = [
            WriteKey(
                where.get("checkpoint_ns", ""),
                where["checkpoint_id"],
                task_id,
                WRITES_IDX_MAP.get(channel, idx),
            )
            for idx, (channel, _) in enumerate(writes)
        ]
        await self._checkpoints.note_writes(self._thread_id, self._run_id, keys)

    async def _written(self, write: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        await self._lease.held()
        if self._closed:
            raise LeaseLost("the attempt has ended")
        self._has_written = True
        # Its own task: a graph that is cancelled between a statement and its commit would leave the
        # transaction open, and the database locked.
        task = asyncio.create_task(write())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await self._answered(asyncio.shield(task))

    async def _answered(self, answer: Awaitable[_T]) -> _T:
        try:
            return await answer
        except self._checkpoints.unavailable_errors as error:
            raise CheckpointsUnavailable(str(error)) from error

    # Of graphs that nodes call synchronously, from threads of their own.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._from_thread(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - named by langgraph
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        async def everything() -> Sequence[CheckpointTuple]:
            return [found async for found in self.alist(config, filter=filter, before=before, limit=limit)]

        yield from self._from_thread(everything())

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._from_thread(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self._from_thread(self.aput_writes(config, writes, task_id, task_path))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._from_thread(self.aget_delta_channel_history(config=config, channels=channels))

    def _from_thread(self, answer: Coroutine[Any, Any, _T]) -> _T:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            answer.close()
            raise asyncio.InvalidStateError(
                "A graph must be called with ainvoke or astream inside an async node: checkpoints are async"
            )
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()
