"""HTTP connections that cannot be held by sending slowly, nor fill memory with a head that never ends.

uvicorn waits for a request as long as its client likes. A client that sends a byte a minute holds a
connection, what it has sent so far, and its share of the memory that the gateway keeps for bodies.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

SWEEP_S: Final = 1.0
"""How often connections are looked at: their deadlines hold to within this time."""

_MAX_HEAD_BYTES: Final = 64 * 1024
_HEAD_S: Final = 20.0
# As long as an idle connection is kept after an answer.
_FIRST_REQUEST_S: Final = 75.0
# As Apache's mod_reqtimeout: so long for a body, and a second more for each of these bytes that have come.
_BODY_S: Final = 20.0
_BODY_BYTES_PER_S: Final = 500.0
# Statuses of bodies that are too large, and of calls that come too early.
_TOO_MUCH: Final = (413, 429)
_TOLERATED_REFUSALS: Final = 10
_PAUSE_S: Final = 0.5
_CREDENTIALS: Final = (b"x-api-key", b"authorization", b"x-service-key")
_MAX_CALLERS: Final = 10_000


class GuardedHttp(HttpToolsProtocol):
    """Knows since when its client has owed the rest of a request, and who is refused again and again."""

    # Of all connections of the process: refusals in a row by caller. Bounded.
    _refusals: ClassVar[dict[tuple[str, bytes], int]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(self._paced, app))

    async def _paced(self, app: Any, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        """Takes its time with a caller that goes on and on with what is too much; others need it."""
        caller = self._caller(scope["headers"])
        if self._refusals.get(caller, 0) >= _TOLERATED_REFUSALS:
            await asyncio.sleep(_PAUSE_S)

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._note(caller, is_refused=message["status"] in _TOO_MUCH)
            await send(message)

        await app(scope, receive, watched)

    def _caller(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes]:
        """Address and credential: behind a proxy many have the one, and strangers invent the other."""
        found = (value for name, value in headers if name in _CREDENTIALS)
        return self.client[0] if self.client else "", next(found, b"")

    def _note(self, caller: tuple[str, bytes], *, is_refused: bool) -> None:
        if not is_refused:
            if self._refusals:  # As almost never.
                self._refusals.pop(caller, None)
            return
        count = self._refusals.pop(caller, 0) + 1  # So that the dict's order is that of the last refusals.
        if len(self._refusals) >= _MAX_CALLERS:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[caller] = count

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
