"""Runs one worker process: the composition root of what executes graphs."""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import grpc
import structlog

from runstore.agents.checkpoints import Checkpoints, CheckpointsUnavailable, open_checkpoints
from runstore.agents.execute import Surroundings
from runstore.agents.graph_loop import GraphLoop
from runstore.agents.graphs import RegisteredGraph, load_graphs
from runstore.agents.item_store import ItemStore
from runstore.agents.manifest import BadManifest, read_manifest
from runstore.agents.trace_writer import TraceWriter
from runstore.agents.tracing import Tracing
from runstore.agents.worker import Store, Worker
from runstore.runtime.failures import BadSettings, CannotStart
from runstore.runtime.settings import Settings, extend_environment
from runstore.runtime.tls import async_store_channel, store_channel
from runstore.runtime.worker_health import WorkerHealth, health_shown
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc

# Of the time for draining, what is kept for traces.
_TRACES_S: Final = 3.0
_CLOSE_S: Final = 2.0
# A node that is not async keeps its thread, even after its run was cancelled.
_THREADS_PER_SLOT: Final = 4
_ANSWER_S: Final = 3.0
_DEFAULT_RUN_TIMEOUT_S: Final = 86_400.0

_CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)

Graphs = Mapping[str, RegisteredGraph]

_log = structlog.get_logger(__name__)


def prepare_agents(settings: Settings) -> Graphs:
    """Imports the graphs, in the environment that their file asks for.

    Raises BadSettings without a file, CannotStart when it or one of its graphs cannot be used.
    """
    if settings.agents is None:
        raise BadSettings("agents (RUNSTORE_AGENTS): a langgraph.json is needed: --config langgraph.json")
    try:
        manifest = read_manifest(settings.agents)
        extend_environment(manifest.environment)
        return load_graphs(manifest)
    except BadManifest as error:
        raise CannotStart(str(error)) from error


async def run_agents(
    settings: Settings, graphs: Graphs, *, ready: Callable[[], None], stop: asyncio.Event
) -> None:
    """Runs graphs for the store until `stop`, then pauses or gives back what runs.

    `ready` is called once the store has welcomed the worker; the store may be away, then and later.
    Raises CannotStart when the checkpoints cannot be opened, or the store refuses the worker.
    """
    metadata = (("x-api-key", settings.agent_api_key),) if settings.agent_api_key else ()
    graph_loop = GraphLoop(node_threads=settings.agent_slots * _THREADS_PER_SLOT)
    with store_channel(settings, _CHANNEL_OPTIONS) as blocking_channel:
        writer = _trace_writer(settings, blocking_channel, metadata)
        items = ItemStore(blocking_channel, metadata)
        try:
            async with (
                _Checkpoints(settings, graph_loop) as checkpoints,
                async_store_channel(settings, _CHANNEL_OPTIONS) as channel,
            ):
                around = Surroundings(
                    checkpoints, items, Tracing(writer.put if writer else None), _DEFAULT_RUN_TIMEOUT_S
                )
                store = Store(channel, blocking_channel, metadata)
                worker = Worker(store, graphs, graph_loop, around, slots=settings.agent_slots)
                announcing = asyncio.create_task(_announce(worker, ready))
                try:
                    drain_s = max(settings.drain_timeout_s - _TRACES_S, 1.0)
                    async with health_shown(
                        settings.workers_dir, partial(_health, settings, worker, graph_loop)
                    ):
                        await worker.run(stop, drain_timeout_s=drain_s)
                except grpc.aio.AioRpcError as error:
                    raise CannotStart(
                        f"the store refuses this worker: {error.details()} (RUNSTORE_AGENT_API_KEY)"
                    ) from error
                finally:
                    announcing.cancel()
        finally:
            items.close()
            if writer is not None:
                await asyncio.to_thread(writer.close, _TRACES_S)
            graph_loop.close(_CLOSE_S)


def _trace_writer(
    settings: Settings, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]
) -> TraceWriter | None:
    if not settings.agent_tracing:
        return None
    stub = ingest_grpc.RunIngestServiceStub(channel)
    return TraceWriter(
        lambda request, timeout_s: stub.WriteRuns(request, timeout=timeout_s, metadata=metadata)
    )


async def _health(settings: Settings, worker: Worker, graph_loop: GraphLoop) -> WorkerHealth:
    answers = await graph_loop.answers(_ANSWER_S)
    return WorkerHealth(os.getpid(), worker.is_connected, answers, worker.runs, settings.agent_slots)


async def _announce(worker: Worker, ready: Callable[[], None]) -> None:
    await worker.connected.wait()
    ready()


class _Checkpoints:
    """`open_checkpoints` on the event loop of the graphs, whose thread alone may use them."""

    def __init__(self, settings: Settings, graph_loop: GraphLoop) -> None:
        self._opened = open_checkpoints(settings.checkpoint_location)
        self._graph_loop = graph_loop

    async def __aenter__(self) -> Checkpoints:
        try:
            return await asyncio.wrap_future(self._graph_loop.submit(self._opened.__aenter__()))
        except CheckpointsUnavailable as error:
            raise CannotStart(f"checkpoints (RUNSTORE_AGENT_CHECKPOINT_URL): {error}") from error

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.wrap_future(self._graph_loop.submit(self._opened.__aexit__(None, None, None)))
