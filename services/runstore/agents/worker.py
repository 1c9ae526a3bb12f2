"""A worker: takes runs and questions from the store over one stream, and says what becomes of them."""

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import grpc
import structlog

from runstore.agents.attempts import Ended, Outcome, Stop
from runstore.agents.claims import Claims
from runstore.agents.execute import Execution, Surroundings
from runstore.agents.failures import Failure
from runstore.agents.graph_loop import GraphLoop
from runstore.agents.graphs import RegisteredGraph
from runstore.agents.leases import Lease
from runstore.agents.messages import attempt_of, finished_message
from runstore.agents.outbox import Outbox
from runstore.agents.questions import Questions
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import agent_worker_service_pb2_grpc as worker_grpc

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_POLL_S: Final = 0.02
# Of the time for draining, what is kept for telling the store.
_LAST_WORDS_S: Final = 3.0

# What a stream raises that the other end has ended: the latter two when that happens while it is written to.
_BROKEN = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
# Of no use to try again: a person has to change something.
_HOPELESS: Final = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
)

_STOPS = {runs.CANCEL_ACTION_ROLLBACK: Stop.ROLLBACK}

Metadata = tuple[tuple[str, str], ...]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Store:
    """How a worker reaches the store: a channel for the stream, and one for heartbeats from a thread."""

    channel: grpc.aio.Channel
    blocking_channel: grpc.Channel
    metadata: Metadata


class Worker:
    """Runs graphs for the store until it is told to stop."""

    def __init__(
        self,
        store: Store,
        graphs: Mapping[str, RegisteredGraph],
        graph_loop: GraphLoop,
        surroundings: Surroundings,
        *,
        slots: int,
    ) -> None:
        self._store = store
        self._graphs = graphs
        self._graph_loop = graph_loop
        self._around = surroundings
        self._questions = Questions(graphs, surroundings.checkpoints, surroundings.store)
        self._slots = slots
        self._id = str(uuid.uuid4())
        self._outbox = Outbox(asyncio.get_running_loop())
        self._executions: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._is_welcome = False
        heartbeat = worker_grpc.AgentWorkerServiceStub(store.blocking_channel)
        self._claims = Claims(
            self._id,
            lambda request, timeout_s: heartbeat.RenewClaims(
                request, timeout=timeout_s, metadata=store.metadata
            ),
            on_lost=self._lost,
            on_cancel=lambda cancel: graph_loop.call(self._cancel, cancel),
        )
        self.connected = asyncio.Event()
        """Set once the store has welcomed the worker for the first time."""

    @property
    def is_connected(self) -> bool:
        """Whether the store has welcomed the worker, and is there."""
        return self._is_welcome

    @property
    def runs(self) -> int:
        """Runs under way."""
        return len(self._executions)

    async def run(self, stop: asyncio.Event, *, drain_timeout_s: float) -> None:
        """Serves the store, whenever it can be reached, until `stop`; then drains in `drain_timeout_s`."""
        serving = asyncio.create_task(self._serve())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            await self._drain(drain_timeout_s)
        finally:
            stopping.cancel()
            serving.cancel()
            self._claims.close()

    async def _drain(self, timeout_s: float) -> None:
        self._draining = True
        self._outbox.drain()
        self._graph_loop.call(self._each_execution, Execution.drain)
        until_s = asyncio.get_running_loop().time() + timeout_s
        await self._settled(until_s - min(_LAST_WORDS_S, timeout_s / 2))
        self._graph_loop.call(self._each_execution, _stop_draining)
        if not await self._settled(until_s):
            _log.warning("runs are left to their leases", runs=len(self._executions))

    async def _settled(self, until_s: float) -> bool:
        loop = asyncio.get_running_loop()
        while self._executions or not self._outbox.is_settled:
            if loop.time() > until_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def _each_execution(self, action: Any) -> None:
        for execution in list(self._executions.values()):
            action(execution)

    async def _serve(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._is_welcome = False
            try:
                await self._converse()
            except _BROKEN as error:
                code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
                if code in _HOPELESS:
                    raise
                if self._is_welcome or pause_s == _FIRST_PAUSE_S:
                    _log.info("store is away", code=code.name if code else type(error).__name__)
            self._claims.suspend()
            if self._is_welcome:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _converse(self) -> None:
        """One stream, from hello to its end. Raises AioRpcError when it breaks."""
        stub = worker_grpc.AgentWorkerServiceStub(self._store.channel)
        stream: Any = stub.Work(metadata=self._store.metadata)  # type: ignore[call-arg] # it may be written to later
        await stream.write(pb.WorkRequest(hello=self._hello()))
        writing: asyncio.Task[None] | None = None
        try:
            async for response in stream:
                if writing is None:
                    self._outbox.reconnected()
                    if self._draining:
                        self._outbox.drain()
                    writing = asyncio.create_task(self._write(stream))
                self._handle(response)
        finally:
            if writing is not None:
                writing.cancel()
            stream.cancel()

    async def _write(self, stream: Any) -> None:
        # A stream that breaks is told to its reader; what was not written and matters is said again.
        with contextlib.suppress(*_BROKEN):
            while True:
                for message in await self._outbox.next_messages():
                    await stream.write(message)

    def _hello(self) -> pb.WorkerHello:
        graphs = [
            pb.WorkerGraph(graph_id=graph.graph_id, name=graph.name, description=graph.description)
            for graph in self._graphs.values()
        ]
        return pb.WorkerHello(
            worker_id=self._id,
            slots=self._slots,
            graphs=graphs,
            is_tracing=self._around.tracing.is_on,
            claims=self._claims.messages(),
        )

    def _handle(self, response: pb.WorkResponse) -> None:
        match response.WhichOneof("message"):
            case "welcome":
                self._welcomed(response.welcome)
            case "run":
                self._graph_loop.call(self._start, response.run, self._claims.add(response.run.claim))
            case "cancel":
                self._graph_loop.call(self._cancel, response.cancel)
            case "lost":
                self._claims.lose(response.lost.claim_token)
            case "recorded":
                self._outbox.recorded(response.recorded.claim_token)
                self._claims.remove(response.recorded.claim_token)
            case "question":
                self._graph_loop.submit(self._answer(response.question))
            case _:
                _log.warning("the store says what this version does not know")

    def _welcomed(self, welcome: pb.WorkerWelcome) -> None:
        self._is_welcome = True
        self._claims.set_lease(welcome.lease.ToNanoseconds() / 1e9)
        self._around = replace(self._around, run_timeout_s=welcome.run_timeout.ToNanoseconds() / 1e9)
        if welcome.default_project_name:
            self._around.tracing.default_project_name = welcome.default_project_name
        if not self.connected.is_set():
            _log.info("worker is connected", worker_id=self._id, graphs=sorted(self._graphs))
            self.connected.set()

    def _lost(self, claim_token: str) -> None:
        self._outbox.recorded(claim_token)
        self._graph_loop.call(self._stop, claim_token, Stop.LOST, "")

    # On the graphs' event loop.

    def _start(self, message: pb.WorkerRun, lease: Lease) -> None:
        claim = pb.AgentRunClaim(run_id=message.claim.run_id, claim_token=message.claim.claim_token)
        graph = self._graphs.get(message.graph_id)
        if graph is None:
            now = datetime.now(UTC)
            self._outbox.finish(finished_message(claim, _unknown(message.graph_id), now, now))
            return
        execution = Execution(
            attempt_of(message), graph, lease, self._around, lambda event: self._outbox.say(claim, event)
        )
        self._executions[claim.claim_token] = execution
        if message.HasField("cancel"):
            self._cancel(message.cancel)
        task = asyncio.create_task(self._execute(claim, execution))
        # asyncio itself keeps only weak references to tasks.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _execute(self, claim: pb.AgentRunClaim, execution: Execution) -> None:
        started = datetime.now(UTC)
        ended = await execution.run()
        if ended is not None:
            self._outbox.finish(finished_message(claim, ended, started, datetime.now(UTC)))
        del self._executions[claim.claim_token]

    async def _answer(self, question: pb.WorkerQuestion) -> None:
        self._outbox.answer(await self._questions.answer(question))

    def _cancel(self, cancel: pb.WorkerCancel) -> None:
        self._stop(cancel.claim.claim_token, _STOPS.get(cancel.action, Stop.INTERRUPT), cancel.reason)

    def _stop(self, claim_token: str, why: Stop, reason: str) -> None:
        if execution := self._executions.get(claim_token):
            execution.stop(why, reason)


def _stop_draining(execution: Execution) -> None:
    execution.stop(Stop.DRAIN)


def _unknown(graph_id: str) -> Ended:
    failure = Failure("ValueError", f"No worker has a graph '{graph_id}'")
    return Ended(Outcome.REQUEUE, failure=failure, is_failure=True)
