"""A thousand clients that send and read slowly: others are answered meanwhile, and memory stays bounded."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from tests.contract.servers import Server, serving
from tests.waiting import LONGEST_WAIT_S

from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2

pytestmark = pytest.mark.engine

CLIENTS = 1_000
CONNECTIONS = 10
INPUT_BYTES = 20_000
UNACKNOWLEDGED_BATCHES = 16
"""As many replies as the server keeps for a client that does not read them."""
LONGEST_SENDING_S = 240
"""For 320 MB in all, on a machine that has other things to do."""
MOST_GROWTH_BYTES = 600 * 1024 * 1024
"""What storing so much at once takes, however many clients send it."""


def batch() -> ingest.StreamRunsRequest:
    fields = ingest.RunFields(
        id=str(uuid.uuid4()), name="slow", run_type=run_pb2.RUN_TYPE_LLM, project_name="slow",
        inputs=b'{"text":"%s"}' % (b"x" * INPUT_BYTES),
    )  # fmt: skip
    return ingest.StreamRunsRequest(operations=[ingest.RunOperation(create=fields)])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


async def test_streams_whose_replies_nobody_reads(server: Server) -> None:
    """Each stream sends as much as the server takes and reads nothing."""
    request = batch()
    sent = 0
    everyone_sent = asyncio.Event()

    async def requests() -> AsyncIterator[ingest.StreamRunsRequest]:
        nonlocal sent
        for _ in range(UNACKNOWLEDGED_BATCHES):
            yield request
            sent += 1
            if sent == CLIENTS * UNACKNOWLEDGED_BATCHES:
                everyone_sent.set()
        await asyncio.Event().wait()  # Neither ends nor goes on.

    before = server.memory_bytes()
    channels = [
        grpc.aio.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CONNECTIONS)
    ]
    calls = []
    for number in range(CLIENTS):
        stub = ingest_grpc.RunIngestServiceStub(channels[number % CONNECTIONS])
        calls.append(stub.StreamRuns(requests()))
    await asyncio.wait_for(everyone_sent.wait(), LONGEST_SENDING_S)
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stub = ingest_grpc.RunIngestServiceStub(channel)
        answer = await stub.WriteRuns(
            ingest.WriteRunsRequest(operations=request.operations), timeout=LONGEST_WAIT_S
        )
        await stub.WaitVisible(ingest.WaitVisibleRequest(), timeout=LONGEST_SENDING_S)
    assert not answer.errors
    assert server.memory_bytes() - before < MOST_GROWTH_BYTES
    for call in calls:
        call.cancel()
    await asyncio.gather(*(channel.close(None) for channel in channels))


@contextmanager
def half_sent_bodies(server: Server) -> Iterator[None]:
    """Uploads that stop in the middle."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /runs/batch HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {2 * INPUT_BYTES}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            connection = stack.enter_context(
                socket.create_connection((host, int(port)), timeout=LONGEST_WAIT_S)
            )
            connection.sendall(head + b"x" * INPUT_BYTES)
        yield


def test_uploads_that_do_not_go_on(server: Server) -> None:
    """A request beside them is answered; what they have sent is all that they cost."""
    before = server.memory_bytes()
    with half_sent_bodies(server):
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=LONGEST_WAIT_S) as connection:
            connection.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
        assert server.memory_bytes() - before < MOST_GROWTH_BYTES
