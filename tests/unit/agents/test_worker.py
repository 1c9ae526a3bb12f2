"""A worker and a store that is a script: the stream, what it survives, and how it ends."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.agents.checkpoints import open_checkpoints
from runstore.agents.execute import Surroundings
from runstore.agents.graph_loop import GraphLoop
from runstore.agents.graphs import RegisteredGraph
from runstore.agents.tracing import Tracing
from runstore.agents.worker import Store, Worker
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import agent_worker_service_pb2_grpc as worker_grpc

LEASE_S = 1.5


class ScriptedStore(worker_grpc.AgentWorkerServiceServicer):
    """Remembers what the worker says; says what a test wants."""

    def __init__(self) -> None:
        self.hellos: list[pb.WorkerHello] = []
        self.said: list[pb.WorkRequest] = []
        self.renewals: list[pb.RenewClaimsRequest] = []
        self.lost: set[str] = set()
        self.cancels: list[pb.WorkerCancel] = []
        self.records = True
        self._out: asyncio.Queue[pb.WorkResponse | None] = asyncio.Queue()
        self._changed = asyncio.Event()

    async def Work(  # noqa: N802 - named by the contract
        self, requests: AsyncIterator[pb.WorkRequest], context: Any
    ) -> AsyncIterator[pb.WorkResponse]:
        hello = await anext(aiter(requests))
        self.hellos.append(hello.hello)
        self._out = asyncio.Queue()
        welcome = pb.WorkerWelcome(default_project_name="default")
        welcome.lease.FromNanoseconds(int(LEASE_S * 1e9))
        welcome.run_timeout.FromSeconds(60)
        yield pb.WorkResponse(welcome=welcome)
        listening = asyncio.create_task(self._listen(requests))
        self._tell()
        try:
            while (response := await self._out.get()) is not None:
                yield response
        finally:
            listening.cancel()

    async def _listen(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        async for request in requests:
            self.said.append(request)
            if request.HasField("finished") and self.records:
                self.send(pb.WorkResponse(recorded=request.finished.claim))
            self._tell()

    async def RenewClaims(  # noqa: N802 - named by the contract
        self, request: pb.RenewClaimsRequest, context: Any
    ) -> pb.RenewClaimsResponse:
        self.renewals.append(request)
        self._tell()
        lost = [claim for claim in request.claims if claim.claim_token in self.lost]
        return pb.RenewClaimsResponse(lost=lost, cancels=self.cancels)

    def send(self, response: pb.WorkResponse) -> None:
        self._out.put_nowait(response)

    def hang_up(self) -> None:
        self._out.put_nowait(None)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Returns once `condition` holds of what the worker has said."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            while not condition():
                await self._changed.wait()

    def run(self, graph_id: str, graph_input: Any, **fields: Any) -> pb.AgentRunClaim:
        """Gives the worker a run, which is stateless unless it is said to have checkpoints."""
        claim = pb.AgentRunClaim(run_id=fields.pop("run_id", str(uuid.uuid4())), claim_token=uuid.uuid4().hex)
        run = runs.AgentRun(
            run_id=claim.run_id,
            thread_id=str(uuid.uuid4()),
            attempt=1,
            kwargs=json.dumps({"input": graph_input}).encode(),
        )
        self.send(pb.WorkResponse(run=pb.WorkerRun(claim=claim, run=run, graph_id=graph_id, **fields)))
        return claim

    def finished(self, claim: pb.AgentRunClaim) -> list[pb.WorkerFinished]:
        """How the worker says that an attempt ended, as often as it says so."""
        return [said.finished for said in self.said if said.finished.claim == claim]

    def values(self, claim: pb.AgentRunClaim) -> list[Any]:
        """The values that an attempt has said."""
        of_claim = [said.events for said in self.said if said.events.claim == claim]
        return [json.loads(event.data) for events in of_claim for event in events.events]

    async def end(self, claim: pb.AgentRunClaim) -> pb.WorkerFinished:
        """How an attempt ends, once it has."""
        await self.until(lambda: self.finished(claim))
        return self.finished(claim)[0]


@pytest.fixture
async def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def stop(
    store: ScriptedStore, graphs: dict[str, RegisteredGraph], tmp_path: Path
) -> AsyncIterator[asyncio.Event]:
    """A connected worker; the event stops it."""
    server = grpc.aio.server()
    worker_grpc.add_AgentWorkerServiceServicer_to_server(store, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    graph_loop = GraphLoop(node_threads=8)
    opened = open_checkpoints(f"sqlite:///{tmp_path / 'checkpoints.sqlite'}")
    checkpoints = await asyncio.wrap_future(graph_loop.submit(opened.__aenter__()))
    stopping = asyncio.Event()
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            with grpc.insecure_channel(target) as blocking_channel:
                around = Surroundings(checkpoints, None, Tracing(None), 60.0)
                worker = Worker(Store(channel, blocking_channel, ()), graphs, graph_loop, around, slots=4)
                running = asyncio.create_task(worker.run(stopping, drain_timeout_s=LONGEST_WAIT_S))
                await worker.connected.wait()
                await store.until(lambda: store.hellos)
                yield stopping
                stopping.set()
                await running
    finally:
        await asyncio.wrap_future(graph_loop.submit(opened.__aexit__(None, None, None)))
        await asyncio.to_thread(graph_loop.close, 5)
        await server.stop(None)


async def test_hello(store: ScriptedStore, stop: asyncio.Event) -> None:
    """Who it is, how much it takes, and which graphs it has."""
    [hello] = store.hellos
    assert hello.slots == 4
    graphs = {graph.graph_id: graph for graph in hello.graphs}
    assert graphs["steps"].name == "steps"
    assert graphs["runtime"].description
    assert not hello.claims


async def test_run(store: ScriptedStore, stop: asyncio.Event) -> None:
    """Events in order, then the end."""
    claim = store.run("steps", {"n": 1}, has_checkpoints=True)
    finished = await store.end(claim)
    assert [len(values["log"]) for values in store.values(claim)] == [0, 1, 2, 3]
    assert finished.outcome == pb.WORKER_OUTCOME_SUCCESS
    assert json.loads(finished.result)["log"] == ["a", "b", "c"]
    assert finished.snapshot.values == finished.result
    assert not finished.snapshot.has_next
    assert finished.start_time.ToNanoseconds() <= finished.end_time.ToNanoseconds()


async def test_failed_run(store: ScriptedStore, stop: asyncio.Event) -> None:
    """With the error twice: for those who wait, and for the thread."""
    finished = await store.end(store.run("steps", {"fail": True}))
    assert finished.outcome == pb.WORKER_OUTCOME_ERROR
    assert (finished.error.error, finished.error.message) == ("ValueError", "boom")
    assert json.loads(finished.result) == {"__error__": {"error": "ValueError", "message": "boom"}}
    assert not finished.HasField("snapshot")


async def test_cancel_right_behind_the_run(store: ScriptedStore, stop: asyncio.Event) -> None:
    """Is not overlooked."""
    claim = store.run("steps", {"secs": 30}, has_checkpoints=True)
    cancel = pb.WorkerCancel(claim=claim, action=runs.CANCEL_ACTION_ROLLBACK, reason="why not")
    store.send(pb.WorkResponse(cancel=cancel))
    finished = await store.end(claim)
    assert finished.outcome == pb.WORKER_OUTCOME_ROLLED_BACK
    assert not finished.snapshot.HasField("values")


async def test_cancel_by_heartbeat(store: ScriptedStore, stop: asyncio.Event) -> None:
    """What another store knows comes with the renewal."""
    claim = store.run("steps", {"secs": 30}, has_checkpoints=True)
    store.cancels.append(pb.WorkerCancel(claim=claim, reason="elsewhere"))
    finished = await store.end(claim)
    assert (finished.outcome, finished.error.message) == (pb.WORKER_OUTCOME_INTERRUPTED, "elsewhere")


async def test_remains_of_a_cancelled_run(store: ScriptedStore, stop: asyncio.Event) -> None:
    """The graph is not called; what the cancel asks for is done."""
    cancel = pb.WorkerCancel(action=runs.CANCEL_ACTION_INTERRUPT, reason="was lost")
    claim = pb.AgentRunClaim(run_id=str(uuid.uuid4()), claim_token="t")
    cancel.claim.CopyFrom(claim)
    run = runs.AgentRun(run_id=claim.run_id, thread_id=str(uuid.uuid4()), attempt=2, kwargs=b"{}")
    message = pb.WorkerRun(claim=claim, run=run, graph_id="steps", has_checkpoints=True, cancel=cancel)
    store.send(pb.WorkResponse(run=message))
    finished = await store.end(claim)
    assert finished.outcome == pb.WORKER_OUTCOME_INTERRUPTED
    assert store.values(claim) == []


async def test_busy_event_loop_keeps_its_leases(store: ScriptedStore, stop: asyncio.Event) -> None:
    """A node that blocks longer than the lease: heartbeats go on, and the run ends as if nothing were."""
    claim = store.run("steps", {"block": LEASE_S * 0.7}, has_checkpoints=True)
    finished = await store.end(claim)
    assert finished.outcome == pb.WORKER_OUTCOME_SUCCESS
    renewed = [claim in renewal.claims for renewal in store.renewals]
    assert sum(renewed) >= 3


async def test_lost_claim(store: ScriptedStore, stop: asyncio.Event, tmp_path: Path) -> None:
    """The graph stops, and not another word about it."""
    gate = tmp_path / "gate"
    claim = store.run("steps", {"gate": str(gate), "slow": "b", "n": 1}, has_checkpoints=True)
    await store.until(lambda: len(store.values(claim)) == 2)
    store.send(pb.WorkResponse(lost=claim))
    # Given after the loss: once it has ended, the loss was heard of.
    await store.end(store.run("steps", {"n": 1}))
    gate.touch()
    await store.end(store.run("steps", {"secs": 0.5, "slow": "b"}))
    assert len(store.values(claim)) == 2
    assert store.finished(claim) == []


async def test_broken_stream(store: ScriptedStore, stop: asyncio.Event, tmp_path: Path) -> None:
    """The worker comes again with its claims, and the run goes on meanwhile."""
    gate = tmp_path / "gate"
    claim = store.run("steps", {"gate": str(gate), "slow": "b", "n": 1}, has_checkpoints=True)
    await store.until(lambda: store.values(claim))
    store.hang_up()
    await store.until(lambda: len(store.hellos) == 2)
    assert store.hellos[0].worker_id == store.hellos[1].worker_id
    assert list(store.hellos[1].claims) == [claim]
    gate.touch()
    assert (await store.end(claim)).outcome == pb.WORKER_OUTCOME_SUCCESS


async def test_end_is_told_until_it_is_recorded(store: ScriptedStore, stop: asyncio.Event) -> None:
    """Again after each broken stream, and never after that."""
    store.records = False
    claim = store.run("steps", {"n": 1})
    await store.end(claim)
    store.hang_up()
    await store.until(lambda: len(store.finished(claim)) == 2)
    store.send(pb.WorkResponse(recorded=claim))
    store.records = True
    store.hang_up()
    await store.until(lambda: len(store.hellos) == 3)
    await store.end(store.run("steps", {"n": 1}))
    assert len(store.finished(claim)) == 2


async def test_question(store: ScriptedStore, stop: asyncio.Event) -> None:
    """Answered beside the runs."""
    question = pb.WorkerQuestion(question_id="q", graph_id="steps", schemas=pb.SchemasQuestion())
    store.send(pb.WorkResponse(question=question))
    await store.until(lambda: any(said.HasField("answer") for said in store.said))
    [answer] = [said.answer for said in store.said if said.HasField("answer")]
    assert (answer.question_id, json.loads(answer.value)["graph_id"]) == ("q", "steps")


async def test_graph_that_ends_the_process(store: ScriptedStore, stop: asyncio.Event) -> None:
    """Ends its run only."""
    finished = await store.end(store.run("exits", {}))
    assert (finished.outcome, finished.error.error) == (pb.WORKER_OUTCOME_ERROR, "SystemExit")
    assert (await store.end(store.run("steps", {"n": 1}))).outcome == pb.WORKER_OUTCOME_SUCCESS


async def test_drain(store: ScriptedStore, stop: asyncio.Event, tmp_path: Path) -> None:
    """No more runs; what runs pauses after its step, and is given back."""
    gate = tmp_path / "gate"
    claim = store.run("steps", {"gate": str(gate), "slow": "b", "n": 1}, has_checkpoints=True)
    await store.until(lambda: store.values(claim))
    stop.set()
    await store.until(lambda: any(said.HasField("draining") for said in store.said))
    gate.touch()
    finished = await store.end(claim)
    assert (finished.outcome, finished.is_failure) == (pb.WORKER_OUTCOME_REQUEUE, False)
