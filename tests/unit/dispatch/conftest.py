"""The store's side of agents behind a real gRPC server, and workers that are scripts."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import msgspec
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from tests.waiting import LONGEST_WAIT_S

from runstore.catalog.catalog import Catalog, open_catalog
from runstore.domain.webhooks import WebhookPolicy
from runstore.rpc.authentication import KeyAuthentication
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.interceptor import CallInterceptor
from runstore.runtime.agent_dispatch import Agents
from runstore.v1 import agent_run_pb2, agent_run_service_pb2_grpc, thread_service_pb2_grpc
from runstore.v1 import agent_run_service_pb2 as runs_pb
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import agent_worker_service_pb2_grpc as pb_grpc
from runstore.v1 import thread_service_pb2 as threads_pb

STOP_GRACE_S = 10


class ShiftedClock:
    """Stands still but for a microsecond with each look: no lease ends only because a test is slow."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._looks = 0

    def now_us(self) -> int:
        self._looks += 1
        return 1_700_000_000_000_000 + self._looks + round(self.ahead_s * 1_000_000)

    def monotonic(self) -> float:
        return self.ahead_s


class FakeWorker:
    """Speaks the protocol, runs nothing."""

    def __init__(
        self,
        store: "Store",
        *,
        slots: int = 2,
        graphs: Sequence[str] = ("steps",),
        worker_id: str = "",
        claims: Sequence[pb.AgentRunClaim] = (),
    ) -> None:
        self._stub: Any = store.workers
        self._metadata = store.metadata
        self.hello = pb.WorkerHello(
            worker_id=worker_id or str(uuid.uuid4()),
            slots=slots,
            graphs=[pb.WorkerGraph(graph_id=graph) for graph in graphs],
            is_tracing=True,
            claims=claims,
        )

    async def __aenter__(self) -> Self:
        self.call = self._stub.Work(metadata=self._metadata)
        await self.say(hello=self.hello)
        self.welcome = await self.next("welcome")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.call.cancel()

    async def say(self, **message: Any) -> None:
        await self.call.write(pb.WorkRequest(**message))

    async def next(self, kind: str) -> Any:
        """The store's next message, which is to be of this kind."""
        response = await asyncio.wait_for(self.call.read(), LONGEST_WAIT_S)
        assert isinstance(response, pb.WorkResponse), "the stream has ended"
        assert response.WhichOneof("message") == kind
        return getattr(response, kind)

    async def next_run(self) -> pb.WorkerRun:
        run = await self.next("run")
        assert isinstance(run, pb.WorkerRun)
        return run

    async def finish(
        self, run: pb.WorkerRun, outcome: str = "SUCCESS", result: object = "done", **fields: Any
    ) -> None:
        """Ends an attempt, and waits until that is stored."""
        await self.say(finished=finished(run.claim, outcome, result, **fields))
        assert await self.next("recorded") == run.claim

    async def emit(self, run: pb.WorkerRun, *events: tuple[str, object]) -> None:
        messages = [
            agent_run_pb2.AgentRunEvent(mode=mode, data=msgspec.json.encode(data)) for mode, data in events
        ]
        await self.say(events=pb.WorkerEvents(claim=run.claim, events=messages))


def finished(
    claim: pb.AgentRunClaim, outcome: str, result: object = "done", **fields: Any
) -> pb.WorkerFinished:
    """What a worker says at the end of an attempt."""
    number = pb.WorkerOutcome.Value(f"WORKER_OUTCOME_{outcome}")
    return pb.WorkerFinished(claim=claim, outcome=number, result=msgspec.json.encode(result), **fields)


class Store:
    """Stubs for the services, called with one tenant's key."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        key: str,
        agents: Agents,
        catalog: Catalog,
        clock: ShiftedClock,
    ) -> None:
        self.metadata = (("x-api-key", key),)
        self.agents = agents
        self.catalog = catalog
        self.clock = clock
        self.runs = agent_run_service_pb2_grpc.AgentRunServiceStub(channel)
        self.threads = thread_service_pb2_grpc.ThreadServiceStub(channel)
        self.workers: Any = pb_grpc.AgentWorkerServiceStub(channel)

    async def given_thread(self, **fields: Any) -> str:
        request = threads_pb.CreateAgentThreadRequest(**fields)
        response = await self.threads.CreateAgentThread(request, metadata=self.metadata)
        thread_id: str = response.thread.thread_id
        return thread_id

    async def given_run(self, thread_id: str = "", **fields: Any) -> agent_run_pb2.AgentRun:
        request = runs_pb.CreateAgentRunRequest(
            **{"thread_id": thread_id, "assistant_id": "steps", "create_thread": True, **fields}
        )
        response = await self.runs.CreateAgentRun(request, metadata=self.metadata)
        run = response.run
        assert isinstance(run, agent_run_pb2.AgentRun)
        return run

    async def run(self, run: agent_run_pb2.AgentRun) -> agent_run_pb2.AgentRun:
        request = runs_pb.GetAgentRunRequest(thread_id=run.thread_id, run_id=run.run_id)
        found = (await self.runs.GetAgentRun(request, metadata=self.metadata)).run
        assert isinstance(found, agent_run_pb2.AgentRun)
        return found

    async def thread(self, thread_id: str) -> threads_pb.AgentThread:
        request = threads_pb.GetAgentThreadRequest(thread_id=thread_id)
        found = (await self.threads.GetAgentThread(request, metadata=self.metadata)).thread
        assert isinstance(found, threads_pb.AgentThread)
        return found

    def join(self, run: agent_run_pb2.AgentRun, **fields: Any) -> "Joining":
        request = runs_pb.JoinAgentRunRequest(thread_id=run.thread_id, run_id=run.run_id, **fields)
        return Joining(self.runs.JoinAgentRun(request, metadata=self.metadata))

    async def cancel(self, run: agent_run_pb2.AgentRun, action: str = "INTERRUPT") -> None:
        request = runs_pb.CancelAgentRunRequest(
            thread_id=run.thread_id,
            run_id=run.run_id,
            action=agent_run_pb2.CancelAction.Value(f"CANCEL_ACTION_{action}"),
        )
        await self.runs.CancelAgentRun(request, metadata=self.metadata)


class Joining:
    """Reads what a follower gets."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def step(self) -> Any:
        step = await asyncio.wait_for(self._call.read(), LONGEST_WAIT_S)
        return getattr(step, step.WhichOneof("step"))

    async def all(self) -> list[Any]:
        """Every step, to the end."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            return [getattr(step, step.WhichOneof("step")) async for step in self._call]


@asynccontextmanager
async def served(catalog: Catalog, clock: ShiftedClock, address: str) -> AsyncIterator[Agents]:
    """The services of agents at `address`."""
    agents = Agents(catalog, clock, WebhookPolicy(), run_timeout_s=60, look_every_s=0.05, expire_after_s=0)
    authenticator = KeyAuthentication(catalog.keys, await catalog.operator_key())
    interceptor = CallInterceptor(authenticator, CallMetrics(CollectorRegistry()))
    server = grpc.aio.server(interceptors=[interceptor])
    agents.servicers.register(server)
    server.add_insecure_port(address)
    await server.start()
    agents.start()
    try:
        yield agents
    finally:
        await agents.stop()
        await server.stop(STOP_GRACE_S)


@pytest_asyncio.fixture
async def store(tmp_path: Path, migrated_file: Path) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        clock = ShiftedClock()
        file = shutil.copy(migrated_file, tmp_path / "catalog.sqlite")
        catalog = await stack.enter_async_context(open_catalog(f"sqlite:///{file}", clock))
        address = f"unix:{tmp_path / 'store.sock'}"
        agents = await stack.enter_async_context(served(catalog, clock, address))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        tenant = await catalog.keys.create_tenant("ours")
        _, key = await catalog.keys.create_key(tenant.id, "test")
        yield Store(channel, key, agents, catalog, clock)


@pytest.fixture
def thread_id() -> str:
    return str(uuid.uuid4())
