"""A gRPC call that its client gives up, or whose deadline passes, stops what the engine does for it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from prometheus_client import CollectorRegistry

from runstore.domain.runs import RunPage, RunQuery
from runstore.query.cursors import PageTokens
from runstore.query.list_runs import ListRuns
from runstore.rpc.authentication import NoAuthentication
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.interceptor import CallInterceptor
from runstore.rpc.run_query import RunQueryServicer
from runstore.storage.clickhouse.engine import Engine
from runstore.v1 import run_query_service_pb2 as pb
from runstore.v1 import run_query_service_pb2_grpc as pb_grpc

from .query_services import NO_REFERENCES
from .test_paging import NobodyWrites
from .test_read_limits import HOURS, engine, query, running, until

pytestmark = pytest.mark.engine

PROJECT = "11111111-1111-4111-8111-111111111111"


class SlowStore:
    """Asks the engine something that takes hours."""

    def __init__(self, reader: Engine, statement: str) -> None:
        self._reader = reader
        self._statement = statement

    async def list_runs(self, asked: RunQuery, /) -> RunPage:
        await self._reader.read(query(self._statement))
        return RunPage((), has_more=False)


class Calls:
    """A server whose store is slow, and a client of it."""

    def __init__(self, stub: Any, observer: Engine, statement: str) -> None:
        self.stub = stub
        self._observer = observer
        self._statement = statement

    async def run_in_the_engine(self, count: int) -> None:
        """Return once so many statements of these calls are executed."""
        await until(self._observer, self._statement, count)

    async def reaches_the_engine(self, asked: "asyncio.Future[grpc.StatusCode]") -> bool:
        """Whether a call's statement is executed before the call ends."""
        while not asked.done():
            if await running(self._observer, self._statement):
                return True
        return False


@pytest.fixture
async def calls(engine_dsn: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Calls]:
    statement = f"{HOURS} -- for {request.node.name}\n"
    address = f"unix:{tmp_path / 'rpc.sock'}"
    async with engine(engine_dsn) as reader, engine(engine_dsn) as observer:
        store: Any = SlowStore(reader, statement)
        messages: Any = Mock()  # No run is ever found.
        lists = ListRuns(store, NobodyWrites(), PageTokens(b"s" * 32), NO_REFERENCES)
        interceptor = CallInterceptor(NoAuthentication(), CallMetrics(CollectorRegistry()))
        server = grpc.aio.server(interceptors=[interceptor])
        pb_grpc.add_RunQueryServiceServicer_to_server(RunQueryServicer(lists, messages), server)
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                yield Calls(pb_grpc.RunQueryServiceStub(channel), observer, statement)
        finally:
            await server.stop(None)


async def test_deadline_stops_the_engine(calls: Calls) -> None:
    """The statement ends with the call, without anybody asking for it."""
    question = pb.ListRunsRequest(project_ids=[PROJECT])
    for timeout_s in (3, 15, 60):  # A slow machine may take longer than the first to begin.
        asked = asyncio.ensure_future(_status(calls.stub.ListRuns(question, timeout=timeout_s)))
        has_begun = await calls.reaches_the_engine(asked)
        assert await asked is grpc.StatusCode.DEADLINE_EXCEEDED
        await calls.run_in_the_engine(0)
        if has_begun:
            return
    pytest.fail("no call has reached the engine before its deadline")


@pytest.mark.parametrize("method", ["ListRuns", "ExportRuns"])
async def test_client_that_gives_up_stops_the_engine(calls: Calls, method: str) -> None:
    """A cancelled list or export leaves nothing behind in the engine."""
    question = pb.ListRunsRequest(project_ids=[PROJECT])
    if method == "ListRuns":
        call = calls.stub.ListRuns(question)
    else:
        call = calls.stub.ExportRuns(pb.ExportRunsRequest(query=question))
    asked = asyncio.ensure_future(_status(call))
    await calls.run_in_the_engine(1)
    call.cancel()
    await calls.run_in_the_engine(0)
    assert await asked is grpc.StatusCode.CANCELLED


async def _status(call: Any) -> grpc.StatusCode:
    """How the call ends."""
    status: grpc.StatusCode = await call.code()
    return status
