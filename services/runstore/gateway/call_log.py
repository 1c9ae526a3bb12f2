"""Writes one canonical log line per HTTP call, and answers for defects.

The line never holds a body, a query string, a header's value or a path (attachment paths carry a
token): the route's template stands for the path.
"""

import time
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.dialects import dialect_of, error_response

_FACTS: Final = "runstore.call_facts"
CLIENT_GONE: Final = 499
"""nginx's status for a client that hung up first; nobody reads it but the log."""

_log = structlog.get_logger(__name__)


def add_call_facts(scope: Scope, **facts: Any) -> None:
    """Adds figures, such as the number of operations, to the log line of the call."""
    scope[_FACTS].update(facts)


class CallLog:
    """ASGI middleware: the log line, and a generic 500 for what no handler knows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing of what the application raises, unless an answer is already under way."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Call(scope, receive, send).run(self._app)


class _Call:
    """One call under way: counts its bytes, remembers its status."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._facts: dict[str, Any] = {}
        self._scope = scope
        self._scope[_FACTS] = self._facts
        self._receive_raw = receive
        self._send_raw = send
        self._status = 0
        self._is_answered = False
        self._bytes_in = 0
        self._bytes_out = 0

    async def run(self, app: ASGIApp) -> None:
        started = time.perf_counter()
        try:
            await app(self._scope, self._receive, self._send)
        except ClientDisconnect:
            self._status = self._status or CLIENT_GONE
        except Exception:
            _log.exception("http_call_failed", method=self._scope["method"], route=self._route())
            if not self._status:
                await self._answer_defect()
            elif not self._is_answered:
                raise  # Half an answer is out: all that is left is to cut the connection.
        finally:
            _log.info(
                "http_call",
                method=self._scope["method"],
                route=self._route(),
                status=self._status,
                duration_ms=round((time.perf_counter() - started) * 1_000, 3),
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
                **self._facts,
            )

    async def _answer_defect(self) -> None:
        path = self._scope["path"]
        dialect = dialect_of(self._scope["method"], path)
        answer = error_response(dialect, path, RunstoreError(ErrorReason.INTERNAL, ""))
        await answer(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        message = await self._receive_raw()
        if message["type"] == "http.request":
            self._bytes_in += len(message.get("body", b""))
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._bytes_out += len(message.get("body", b""))
            self._is_answered = not message.get("more_body", False)
        await self._send_raw(message)

    def _route(self) -> str:
        route = self._scope.get("route")
        return str(getattr(route, "path", "")) or "unmatched"
