"""HTTP connections that cannot be held by sending slowly, nor fill memory with a head that never ends.

uvicorn waits for a request as long as its client likes. A client that sends a byte a minute holds a
connection, what it has sent so far, and its share of the memory that the gateway keeps for bodies.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SWEEP_S: Final = 1.0
"""How often connections are looked at: their deadlines hold to within this time."""

_MAX_HEAD_BYTES: Final = 64 * 1024
_HEAD_S: Final = 20.0
# As long as an idle connection is kept after an answer.
_FIRST_REQUEST_S: Final = 75.0
# As Apache's mod_reqtimeout: so long for a body, and a second more for each of these bytes that have come.
_BODY_S: Final = 20.0
_BODY_BYTES_PER_S: Final = 500.0


class GuardedHttp(HttpToolsProtocol):
    """Knows since when its client has owed the rest of a request, and tells when the connection ends."""

    is_in_vain = True
    """Whether it has brought no request, and has not just stayed open for one either."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._is_lost = False
        self._ended: Callable[[], None] | None = None
        self._connected_s = self.loop.time()
        self._owing_since_s: float | None = None
        self._is_in_head = False
        self._head_bytes = 0
        self._body_bytes = 0
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_end(self, ended: Callable[[], None]) -> None:
        """Have `ended` called as soon as the connection is lost."""
        if self._is_lost:
            ended()
        else:
            self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_lost = True
        if self._ended is not None:
            self._ended()

    def on_message_begin(self) -> None:
        self._owing_since_s = self.loop.time()
        self._is_in_head = True
        self._head_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.is_in_vain = False
        self._owing_since_s = None
        super().on_message_complete()

    def cut_when_overdue(self) -> str:
        """Ends the connection of a client that is too slow: what it owed, or "" for one that is in time.

        To be called every `SWEEP_S`.
        """
        if self.transport.is_closing():
            return ""
        owed, overdue_s = self._overdue()
        if overdue_s <= 0:
            return ""
        if owed == "request":
            self.is_in_vain = False  # Pools and browsers open connections that they come not to need.
        if owed == "head":
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.abort()  # The application reads the body, and learns that it will not come.
        return owed

    def _overdue(self) -> tuple[str, float]:
        now_s = self.loop.time()
        if self._owing_since_s is None:
            is_first = self.cycle is None
            return "request", now_s - self._connected_s - _FIRST_REQUEST_S if is_first else 0.0
        if self.flow.read_paused:  # It is the gateway that does not read on.
            self._owing_since_s += SWEEP_S
        waited_s = now_s - self._owing_since_s
        if self._is_in_head:
            return "head", waited_s - _HEAD_S
        return "body", waited_s - _BODY_S - self._body_bytes / _BODY_BYTES_PER_S

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
            self.transport.close()


async def cut_slow_clients(connections: Iterable[Any], on_cut: Callable[[str], None]) -> None:
    """Looks at all connections again and again, until cancelled. `on_cut` is told what a client owed."""
    while True:
        await asyncio.sleep(SWEEP_S)
        for connection in list(connections):
            if isinstance(connection, GuardedHttp) and (owed := connection.cut_when_overdue()):
                on_cut(owed)
