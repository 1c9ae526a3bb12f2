"""Connections are taken in, or not, before anything is spent on them."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
import uvicorn
from tests.manual_clock import ManualClock
from tests.waiting import until_async

from runstore.domain.networks import parse_networks
from runstore.domain.pacing import TOLERATED, Pacing, stranger_at
from runstore.runtime import accepting, guarded_http
from runstore.runtime.accepting import Accepting, Door
from runstore.runtime.guarded_http import GuardedHttp

WAIT_S = 20
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Gate:
    """A server that answers 204, and a door."""

    def __init__(self, tls: ssl.SSLContext | None, max_per_address: int, trusted: str) -> None:
        self.pacing = Pacing(ManualClock())
        self.turned_away = 0
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app, interface="asgi3", lifespan="off", log_config=None, timeout_keep_alive=2 * WAIT_S
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._config = config
        door = Door(self.pacing, max_per_address, parse_networks(trusted))
        self.accepting = Accepting(listener, self._protocol, tls, door, self._turn_away)

    def _protocol(self) -> GuardedHttp:
        return GuardedHttp(self._config, self._server.server_state, {})

    def _turn_away(self) -> None:
        self.turned_away += 1

    @property
    def connections(self) -> list[Any]:
        return list(self._server.server_state.connections)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def charged(self) -> float:
        """Points of a stranger here, once there are some."""
        caller = stranger_at("127.0.0.1")
        return await until_async(lambda: self.pacing._points_of(caller), "the stranger is charged")

    async def close(self) -> None:
        self.accepting.close()
        await self.accepting.wait_closed()


@asynccontextmanager
async def gate(
    tls: ssl.SSLContext | None = None, max_per_address: int = 0, trusted: str = ""
) -> AsyncIterator[Gate]:
    made = Gate(tls, max_per_address, trusted)
    try:
        yield made
    finally:
        await made.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The first line of what a request is answered with; b"" where the connection has ended."""
    try:
        writer.write(REQUEST)
        return await asyncio.wait_for(reader.readline(), WAIT_S)
    except ConnectionError:
        return b""


async def test_an_address_has_so_many_connections() -> None:
    """One too many is ended at once; when another one ends, there is room again."""
    async with gate(max_per_address=2) as door:
        both = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(2)]
        assert [await answer(*each) for each in both] == [b"HTTP/1.1 204 No Content\r\n"] * 2
        assert await answer(*await asyncio.open_connection("127.0.0.1", door.port)) == b""
        assert door.turned_away == 1
        both[0][1].close()
        async with asyncio.timeout(WAIT_S):
            while not await answer(*await asyncio.open_connection("127.0.0.1", door.port)):
                pass
        both[1][1].close()


async def test_a_trusted_proxy_has_as_many_as_it_needs() -> None:
    """And is not charged for what becomes of them."""
    async with gate(max_per_address=1, trusted="127.0.0.0/8") as door:
        door.pacing.charge(stranger_at("127.0.0.1"), 2 * TOLERATED)
        several = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(3)]
        assert all([await answer(*each) for each in several])
        for _, writer in several:
            writer.close()


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01 nonsense\r\n\r\n"])
async def test_a_connection_without_a_request_is_charged(sent: bytes) -> None:
    """Nothing at all, or what is no HTTP; one with a request is not."""
    async with gate() as door:
        good = await asyncio.open_connection("127.0.0.1", door.port)
        assert await answer(*good)
        good[1].close()
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(sent)
        writer.close()
        assert await door.charged() == 1.0


async def test_a_connection_that_waits_for_its_first_request_is_not_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pool may keep more connections than it needs; one that the client gives up is charged."""
    monkeypatch.setattr(guarded_http, "_FIRST_REQUEST_S", 0.0)
    async with gate() as door:
        reader, _ = await asyncio.open_connection("127.0.0.1", door.port)
        await until_async(lambda: door.connections, "the connection is in")
        assert [each.cut_when_overdue() for each in door.connections] == ["request"]
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.close()
        assert await door.charged() == 1.0


async def test_half_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, and is charged."""
    monkeypatch.setattr(accepting, "HANDSHAKE_S", 0.05)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with gate(context) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(bytes.fromhex("16030102"))
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        assert await door.charged() == 1.0
        writer.close()


async def test_a_troublesome_address_is_taken_in_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections wait before TLS begins; those of others do not."""
    pauses: list[float] = []
    loop, sleep = asyncio.get_running_loop(), asyncio.sleep

    async def noted(seconds: float) -> None:
        if asyncio.get_running_loop() is loop:
            pauses.append(seconds)
        else:  # Of others in this process.
            await sleep(seconds)

    async with gate() as door:
        door.pacing.charge(stranger_at("127.0.0.1"), TOLERATED + 20)
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", noted)
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            assert await answer(reader, writer)
        assert pauses == [pytest.approx(1.0)]
        writer.close()
