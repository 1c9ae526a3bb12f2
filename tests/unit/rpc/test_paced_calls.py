"""Who waits at the gRPC port: calls of an application that knows one good key, and no real pauses."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from tests.manual_clock import ManualClock
from tests.waiting import LONGEST_WAIT_S, until_async

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.networks import parse_networks
from runstore.domain.pacing import TOLERATED, PacedCallers, Pacing, stranger_at
from runstore.domain.principals import Grant, Role
from runstore.rpc import paced_calls
from runstore.rpc.authentication import KeyAuthentication
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.interceptor import CallInterceptor
from runstore.rpc.paced_calls import PacedCalls
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_ingest_service_pb2_grpc as pb_grpc

HERE = "127.0.0.1"
GOOD = (("x-api-key", "good"),)


class Servicer(pb_grpc.RunIngestServiceServicer):
    """Refuses what it is told to refuse."""

    refusal: ErrorReason | None = None

    async def WriteRuns(self, request: Any, context: Any) -> pb.WriteRunsResponse:  # noqa: N802  # gRPC's name
        if self.refusal is not None:
            raise RunstoreError(self.refusal, "no")
        return pb.WriteRunsResponse()

    def StreamRuns(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        raise AssertionError

    async def WaitVisible(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        raise AssertionError


class Keys:
    """One key."""

    async def authenticate(self, secret: str) -> Grant | None:
        grant = Grant(key_id="id", role=Role.EDITOR, tenant_id="tenant", organization_id=None)
        return grant if secret == "good" else None

    async def find_tenant(self, tenant_id: str) -> None:
        raise AssertionError


class Paced:
    """One server at an address, and a client for it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pacing = Pacing(self.clock)
        self.servicer = Servicer()
        self.slept: list[float] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.stub: Any = None

    @property
    def points(self) -> float:
        """Of all callers together."""
        return sum(points for points, _ in self.pacing._points.values())

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.go_on.wait()

    async def code(self, metadata: tuple[tuple[str, str], ...] = ()) -> str:
        """The status of a call."""
        try:
            await self.stub.WriteRuns(pb.WriteRunsRequest(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


@pytest.fixture
async def paced(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Paced]:
    paced = Paced()
    # Not of the whole process: gRPC has its own use for it.
    monkeypatch.setattr(paced_calls, "asyncio", SimpleNamespace(sleep=paced.sleep))
    trusted = parse_networks(getattr(request, "param", ""))
    metrics = CallMetrics(CollectorRegistry())
    callers = PacedCallers(paced.pacing, paced.clock)
    calls = CallInterceptor(KeyAuthentication(Keys(), "operator"), metrics)
    server = grpc.aio.server(interceptors=[PacedCalls(callers, trusted, metrics.paused), calls])
    pb_grpc.add_RunIngestServiceServicer_to_server(paced.servicer, server)
    port = server.add_insecure_port(f"{HERE}:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"{HERE}:{port}") as channel:
        paced.stub = pb_grpc.RunIngestServiceStub(channel)
        yield paced
    await server.stop(None)


async def test_strangers_wait_and_keys_that_were_good_do_not(paced: Paced) -> None:
    """All who are unknown at an address are one caller; whoever was let in before goes on."""
    assert await paced.code(GOOD) == "OK"
    paced.pacing.charge(stranger_at(HERE), TOLERATED + 20)
    assert await paced.code() == "UNAUTHENTICATED"
    assert await paced.code((("x-api-key", "bad"),)) == "UNAUTHENTICATED"
    assert paced.slept == pytest.approx([1.0, 1.0], abs=0.01)
    assert await paced.code(GOOD) == "OK"
    assert len(paced.slept) == 2


@pytest.mark.parametrize(
    ("reason", "calls"),
    [(ErrorReason.RATE_LIMITED, 110), (ErrorReason.TOO_LARGE, 5), (ErrorReason.NOT_FOUND, None)],
)
async def test_refusals_add_up(paced: Paced, reason: ErrorReason, calls: int | None) -> None:
    """What comes too early costs a point, what is too large many, plain mistakes nothing."""
    paced.servicer.refusal = reason
    for _ in range(calls or 200):
        assert await paced.code(GOOD) == reason.grpc_code
    if calls is not None:  # A call is charged when its answer is already on its way.
        await until_async(lambda: paced.points > TOLERATED, "all are charged")
    assert await paced.code(GOOD) == reason.grpc_code
    assert bool(paced.slept) is (calls is not None)


@pytest.mark.parametrize("paced", ["127.0.0.0/8"], indirect=True)
async def test_gateways_do_not_wait(paced: Paced) -> None:
    """They speak for many, and let their callers wait themselves."""
    paced.pacing.charge(stranger_at(HERE), TOLERATED + 20)
    assert await paced.code() == "UNAUTHENTICATED"
    assert paced.slept == []


async def test_those_who_wait_are_bounded(paced: Paced, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection may have any number of calls under way: what is too much is refused at once."""
    monkeypatch.setattr(paced_calls, "_MAX_WAITING", 2)
    paced.pacing.charge(stranger_at(HERE), TOLERATED + 20)
    paced.go_on.clear()
    calls = [asyncio.create_task(paced.code()) for _ in range(5)]
    done, waiting = set[Any](), set(calls)
    async with asyncio.timeout(LONGEST_WAIT_S):
        while len(done) < 3:
            newly, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= newly
    assert {call.result() for call in done} == {"RESOURCE_EXHAUSTED"}
    paced.go_on.set()
    assert set(await asyncio.gather(*waiting)) == {"UNAUTHENTICATED"}
