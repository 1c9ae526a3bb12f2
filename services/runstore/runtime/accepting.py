"""Takes connections in: not too many of one address, and those of a troublesome one late.

The event loop's own servers begin TLS, the dearest part of a connection, before anybody can ask whose it is.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog

from runstore.domain.networks import Networks, client_network, is_within
from runstore.domain.pacing import Pacing, stranger_at
from runstore.runtime.guarded_http import GuardedHttp

HANDSHAKE_S: Final = 10.0
"""How long a client may take for its part of TLS; the gRPC port has the same."""

GOODBYE_S: Final = 5.0
"""How long it may take for the rest of its last answer, and the end of TLS; idle ones do not answer that."""

# Points in `Pacing` for a connection that took a handshake and nothing more.
_IN_VAIN_POINTS: Final = 1.0
# After a failure to accept, such as no file descriptors left, which does not go away at once.
_RECOVERY_S: Final = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in, and how fast."""

    pacing: Pacing
    max_per_address: int
    """Connections at once; 0 is no limit."""
    trusted: Networks
    """Proxies, whose connections are those of many."""


class Accepting:
    """The connections of one listening socket, with what uvicorn uses of asyncio's servers."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], GuardedHttp],
        tls: ssl.SSLContext | None,
        door: Door | None,
        on_turned_away: Callable[[], None],
    ) -> None:
        """Accepts from now on, until `close`. `door`: None where everybody is trusted."""
        listener.setblocking(False)
        self._listener = listener
        self._make_protocol = make_protocol
        self._tls = tls
        self._door = door
        self._on_turned_away = on_turned_away
        self._open: Counter[str] = Counter()
        self._entering: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Takes no more connections in, and gives the address free; connections that are in stay."""
        self._accepting.cancel()
        for task in self._entering:
            task.cancel()

    async def wait_closed(self) -> None:
        """Until nothing is under way."""
        await asyncio.gather(self._accepting, *self._entering, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        with self._listener:
            while True:
                try:
                    connection, address = await loop.sock_accept(self._listener)
                except ConnectionError:  # Gone before it was accepted.
                    continue
                except OSError as error:
                    _log.warning("connection not accepted", reason=error.strerror)
                    await asyncio.sleep(_RECOVERY_S)
                    continue
                task = asyncio.create_task(self._let_in(connection, address[0]))
                self._entering.add(task)
                task.add_done_callback(self._entering.discard)

    async def _let_in(self, connection: socket.socket, address: str) -> None:
        door = self._door
        if door is None or is_within(address, door.trusted):
            await self._shake_hands(connection, self._make_protocol())
            return
        network, caller = client_network(address), stranger_at(address)
        if 0 < door.max_per_address <= self._open[network]:
            self._on_turned_away()
            connection.close()
            return

        protocol = self._make_protocol()

        def leave() -> None:
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]

        def ended() -> None:
            leave()
            if protocol.is_in_vain:
                door.pacing.charge(caller, _IN_VAIN_POINTS)

        self._open[network] += 1
        try:
            with self._closing_when_cancelled(connection):
                await asyncio.sleep(door.pacing.pause_s(caller))
            is_in = await self._shake_hands(connection, protocol)
        except asyncio.CancelledError:
            leave()
            raise
        if is_in:
            protocol.on_end(ended)
        else:
            ended()

    @staticmethod
    @contextmanager
    def _closing_when_cancelled(connection: socket.socket) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _shake_hands(self, connection: socket.socket, protocol: GuardedHttp) -> bool:
        """Whether the client has done its part."""
        # `ssl.SSLError` and `TimeoutError` are OSErrors.
        with self._closing_when_cancelled(connection), suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
                ssl_shutdown_timeout=GOODBYE_S if self._tls else None,
            )
            return True
        connection.close()
        return False
