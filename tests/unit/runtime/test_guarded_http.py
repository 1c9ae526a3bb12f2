"""Slow clients are cut off, and those that are only waiting for the server are not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from runstore.runtime import guarded_http
from runstore.runtime.guarded_http import GuardedHttp, cut_slow_clients

WAIT_S = 20
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n"


class Served:
    """A server whose application echoes how many bytes it has read."""

    def __init__(self) -> None:
        self.port = 0
        self.cut: list[str] = []
        self.disconnected = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        size = 0
        while True:
            await self.may_read.wait()
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    served = Served()
    config = uvicorn.Config(
        served.app,
        http=GuardedHttp,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        port=0,
        timeout_keep_alive=WAIT_S,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    served.port = server.servers[0].sockets[0].getsockname()[1]
    cutting = asyncio.create_task(cut_slow_clients(server.server_state.connections, served.cut.append))
    try:
        yield served
    finally:
        cutting.cancel()
        await server.shutdown()


async def connect(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", served.port)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection."""
    try:
        return await asyncio.wait_for(reader.read(), WAIT_S)
    except ConnectionResetError:
        return b""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    monkeypatch.setattr(guarded_http, "SWEEP_S", 0.01)
    for deadline in ("_HEAD_S", "_BODY_S", "_FIRST_REQUEST_S"):
        monkeypatch.setattr(guarded_http, deadline, 0.05)


@pytest.mark.parametrize(
    ("sent", "owed", "answer"),
    [(b"", "request", b""), (b"GET / HT", "head", b"HTTP/1.1 408 "), (HEAD + b"x" * 5, "body", b"")],
)
async def test_clients_that_do_not_go_on(sent: bytes, owed: str, answer: bytes) -> None:
    """Nothing, half a head or half a body: the connection ends, and the application hears of it."""
    async with serving() as served:
        reader, writer = await connect(served)
        writer.write(sent)
        assert (await rest(reader)).startswith(answer)
        assert served.cut == [owed]
        if owed == "body":
            await asyncio.wait_for(served.disconnected.wait(), WAIT_S)


async def test_a_server_that_does_not_read_is_no_slow_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that waits because its application does is waited for."""
    monkeypatch.setattr(guarded_http, "SWEEP_S", 0.05)
    async with serving() as served:
        served.may_read.clear()
        reader, writer = await connect(served)
        writer.write(HEAD + b"x" * 900_000)
        sweeps = served.cut
        _, pending = await asyncio.wait([asyncio.create_task(rest(reader))], timeout=0.5)
        assert pending
        assert sweeps == []
        writer.write(b"x" * 100_000)
        served.may_read.set()
        for task in pending:
            assert (await asyncio.wait_for(task, WAIT_S)).startswith(b"HTTP/1.1 200 ")


async def test_idle_connections_are_kept() -> None:
    """After an answer a connection may wait; that is the server's own time for idle ones."""
    async with serving() as served:
        reader, writer = await connect(served)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"ok"), WAIT_S)
            await asyncio.sleep(0.2)  # Many sweeps, none of which may find anything.
        assert served.cut == []
        writer.close()


async def test_a_head_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are read up to a limit, and no further."""
    monkeypatch.setattr(guarded_http, "_HEAD_S", WAIT_S)
    async with serving() as served:
        reader, writer = await connect(served)
        writer.write(b"GET / HTTP/1.1\r\n")
        for _ in range(65):
            writer.write(b"x-more: %b\r\n" % (b"y" * 1_000))
            await writer.drain()
        assert (await rest(reader)).startswith(b"HTTP/1.1 431 ")
