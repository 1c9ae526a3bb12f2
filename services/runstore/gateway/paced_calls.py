"""Lets callers wait that go on and on with what is refused, before anything is done for them."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstore.domain.credentials import CREDENTIAL_HEADERS
from runstore.domain.pacing import PacedCallers

_CREDENTIALS: Final = frozenset(name.encode() for name in CREDENTIAL_HEADERS)


class PacedCalls:
    """ASGI middleware: charges callers for their calls, and delays those that must wait."""

    def __init__(self, app: ASGIApp, callers: PacedCallers, on_pause: Callable[[], None]) -> None:
        self._app = app
        self._callers = callers
        self._on_pause = on_pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what the application raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        credentials = (header for header in scope["headers"] if header[0] in _CREDENTIALS)
        caller = self._callers.named(client[0] if client else "", credentials)
        pause_s = self._callers.pause_s(caller)
        if pause_s > 0:
            self._on_pause()
            await asyncio.sleep(pause_s)
        state: dict[str, Any] = scope.setdefault("state", {})

        async def charged(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_admitted = state.get("caller") is not None
                self._callers.ended(caller, message["status"], is_admitted=is_admitted)
            await send(message)

        await self._app(scope, receive, charged)
