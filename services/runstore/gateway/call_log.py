"""Writes one canonical log line per HTTP call, and answers for defects.

The line never holds a body, a query string, a header's value or a path (attachment paths carry a
token): the route's template stands for the path. The one exception is the caller's request id.

Which level it has is about who reads it. An operator who reads at `info` sees every call that was refused,
failed or took long. Calls that went well, thousands a second from busy tracers, are at `debug`; metrics count
them at any level.
"""

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway import visible
from runstore.gateway.dialects import dialect_of, error_response
from runstore.gateway.metrics import GatewayMetrics
from runstore.gateway.prefixes import canonical_path
from runstore.gateway.request_ids import HEADER, current_request_id, request_id_from
from runstore.runtime import spans

_FACTS: Final = "runstore.call_facts"
CLIENT_GONE: Final = 499
"""nginx's status for a client that hung up first; nobody reads it but the log."""
_SLOW_S: Final = 1.0
_DEFECT: Final = 500
_TROUBLE: Final = (502, 503, 504)
_TRACEPARENT: Final = spans.TRACEPARENT.encode()
# Asked every few seconds by what watches the server.
_PROBES: Final = ("/ok", "/health", "/info", "/metrics")

_log = structlog.get_logger(__name__)


def add_call_facts(scope: Scope, **facts: Any) -> None:
    """Adds figures, such as the number of operations, to the log line of the call."""
    scope[_FACTS].update(facts)


class CallLog:
    """ASGI middleware: the log line, its metrics, and a generic 500 for what no handler knows."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing of what the application raises, unless an answer is already under way."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Call(scope, receive, send, self._metrics).run(self._app)


class _Call:
    """One call under way: counts its bytes, remembers its status."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._request_id = request_id_from(scope["headers"])
        self._visible = visible.visible_from(scope["headers"])
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
        if not spans.are_recorded():
            await self._run(app)
            return
        traceparent = next((v for k, v in self._scope["headers"] if k == _TRACEPARENT), b"")
        is_wanted = canonical_path(self._scope["path"]) not in _PROBES
        method = self._scope["method"]
        with spans.request(method, traceparent.decode("latin-1"), is_wanted=is_wanted) as span:
            try:
                await self._run(app)
            finally:
                span.rename(f"{method} {self._route()}")
                span.set(
                    {
                        "http.request.method": method,
                        "http.route": self._route(),
                        "http.response.status_code": self._status,
                        "runstore.request_id": self._request_id,
                    }
                )
                if self._status >= _DEFECT:
                    span.fail(str(self._status))

    async def _run(self, app: ASGIApp) -> None:
        started = time.perf_counter()
        current_request_id.set(self._request_id)
        visible.current_visible.set(self._visible)
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
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
            self._end(time.perf_counter() - started)

    def _end(self, seconds: float) -> None:
        method, route = self._scope["method"], self._route()
        self._metrics.answered(
            method, route, self._status, seconds, received=self._bytes_in, sent=self._bytes_out
        )
        if self._status == _DEFECT:
            write = _log.error
        elif self._status in _TROUBLE:
            write = _log.warning
        elif self._status >= HTTPStatus.BAD_REQUEST or seconds >= _SLOW_S:
            write = _log.info
        else:
            write = _log.debug
        write(
            "http_call",
            method=method,
            route=route,
            status=self._status,
            duration_ms=round(seconds * 1_000, 3),
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            request_id=self._request_id,
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
            message["headers"] = [*message.get("headers", ()), *self._own_headers()]
        elif message["type"] == "http.response.body":
            self._bytes_out += len(message.get("body", b""))
            self._is_answered = not message.get("more_body", False)
        await self._send_raw(message)

    def _own_headers(self) -> Iterator[tuple[bytes, bytes]]:
        yield HEADER.encode(), self._request_id.encode()
        if self._visible.written:
            yield visible.HEADER.encode(), ",".join(self._visible.written).encode()

    def _route(self) -> str:
        route = self._scope.get("route")
        return str(getattr(route, "path", "")) or "unmatched"
