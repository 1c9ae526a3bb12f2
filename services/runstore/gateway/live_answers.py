"""Answers that are sent while what they tell of still happens: the result of a run, or its events.

Status and headers go out at once. Whenever nothing else was sent for five seconds a sign of life is, because
clients and proxies take a silent connection for a dead one (contract agents, section 1.0).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_HEARTBEAT_S: Final = 5.0
_LIVE: Final = "runstore.live_answer"
_CUT_OFF: Final = "cut off"


class LiveAnswer(Response):
    """An answer whose pieces are awaited."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        *,
        media_type: str,
        heartbeat: bytes,
        on_disconnect: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`heartbeat` must mean nothing between two pieces.

        `on_disconnect` is awaited when the client leaves before the end; not when it is the server that ends.
        """
        super().__init__(headers={**headers, "Cache-Control": "no-store"}, media_type=media_type)
        del self.headers["content-length"]  # That of the empty body, which the superclass knows.
        self._pieces = pieces
        self._heartbeat = heartbeat
        self._on_disconnect = on_disconnect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Returns when all is sent, or the connection has ended."""
        scope[_LIVE] = ""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        leaving = asyncio.create_task(_disconnect(receive))
        try:
            is_whole = await self._send_pieces(send, leaving)
        finally:
            leaving.cancel()
            await self._pieces.aclose()
        if is_whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif self._on_disconnect is not None and scope[_LIVE] != _CUT_OFF:
            await self._on_disconnect()

    async def _send_pieces(self, send: Send, leaving: "asyncio.Task[None]") -> bool:
        """Whether the client stayed to the end."""
        while True:
            following = asyncio.ensure_future(anext(self._pieces, None))
            try:
                while not following.done():
                    either: tuple[asyncio.Future[Any], ...] = (following, leaving)
                    done, _ = await asyncio.wait(
                        either, timeout=_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    if leaving in done:
                        return False
                    if not done:
                        await send({"type": "http.response.body", "body": self._heartbeat, "more_body": True})
            finally:
                if not following.done():
                    following.cancel()
                    with suppress(asyncio.CancelledError):
                        await following
            piece = following.result()
            if piece is None:
                return True
            await send({"type": "http.response.body", "body": piece, "more_body": True})


def cut_off(scope: MutableMapping[str, Any]) -> bool:
    """Whether the call of `scope` is answered by a `LiveAnswer`, which then does not take the end of the
    connection for the client's will.

    A server that stops ends such connections instead of waiting for them: their clients come back.
    """
    if _LIVE not in scope:
        return False
    scope[_LIVE] = _CUT_OFF
    return True


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
