"""Stops answering questions whose client has hung up, so that the store and its engine stop, too."""

import asyncio
from contextlib import suppress
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstore.gateway.dialects import is_agent_path

# What changes nothing may be dropped in the middle; of everything else the client may want the effect.
_QUESTIONS: Final = ("/query", "/stats", "/group", "/validate", "/generate-query")
# `LiveAnswer` watches the connection by itself, and knows what an agent's client wants when it leaves.
_LIVE_ANSWERS: Final = ("/join", "/stream")


class AbandonedQuestions:
    """ASGI middleware: cancels the application when the client of a question disconnects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ClientDisconnect for a client that has gone before the answer's end."""
        if scope["type"] == "http" and _is_question(scope["method"], scope["path"]):
            await _Question(receive, send).answer(self._app, scope)
        else:
            await self._app(scope, receive, send)


def _is_question(method: str, path: str) -> bool:
    if is_agent_path(path) and path.endswith(_LIVE_ANSWERS):
        return False
    return method == "GET" or (method == "POST" and path.endswith(_QUESTIONS))


class _Question:
    """One call: hands the body on to the application, and watches the connection behind it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive_raw = receive
        self._send_raw = send
        self._is_answered = False
        self._body_is_read = asyncio.Event()
        self._client_is_gone = asyncio.Event()

    async def answer(self, app: ASGIApp, scope: Scope) -> None:
        """As the application does, until the client hangs up."""
        if scope["method"] == "GET":
            self._body_is_read.set()
        answering = asyncio.ensure_future(app(scope, self._receive, self._send))
        watching = asyncio.create_task(self._watch(answering))
        try:
            await answering
        except asyncio.CancelledError:
            answering.cancel()  # When it is this call that is cancelled, at the end of a drain.
            with suppress(asyncio.CancelledError):
                await answering
            if self._client_is_gone.is_set():
                raise ClientDisconnect from None
            raise
        finally:
            watching.cancel()

    async def _watch(self, answering: "asyncio.Future[None]") -> None:
        await self._body_is_read.wait()
        while (await self._receive_raw())["type"] != "http.disconnect":
            pass
        # Servers say so of a connection whose answer is complete, too.
        if not self._is_answered:
            self._client_is_gone.set()
            answering.cancel()

    async def _receive(self) -> Message:
        if self._body_is_read.is_set():
            await self._client_is_gone.wait()
            return {"type": "http.disconnect"}
        message = await self._receive_raw()
        if not message.get("more_body", False):
            self._body_is_read.set()
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_answered = True
        await self._send_raw(message)
