"""The one log line that every gRPC call writes when it ends.

Which level it has is about who reads it. An operator who reads at `info` sees every call that was refused,
failed or took long, every stream, and every call that changed what people have set up. Calls that went well,
thousands a second on a busy store, are at `debug`; metrics count them at any level.
"""

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import structlog

from runstore.rpc.call_metrics import CallMetrics
from runstore.runtime import spans

REQUEST_ID_KEY: Final = "x-request-id"
"""Call metadata by which a line here is found for a line of the gateway, and the other way round."""

_SLOW_S: Final = 1.0
_MAX_REQUEST_ID_CHARS: Final = 128
# The verbs of methods that change something other than runs (https://google.aip.dev/130).
_CHANGES: Final = (
    "Create", "Update", "Delete", "Replay", "Drop", "Revoke",
    "Set", "Share", "Unshare", "Add", "Remove", "Tag",
)  # fmt: skip
_TROUBLE: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
_FAILURES: Final = ("INTERNAL", *_TROUBLE)

logger = structlog.get_logger()

current_call: ContextVar["CallLine"] = ContextVar("current_call")
"""Set by the interceptor for the duration of a call."""


class CallLine:
    """Gathers what there is to say about a call."""

    def __init__(
        self, method: str, *, is_stream: bool, metrics: CallMetrics, reads_stream: bool = False
    ) -> None:
        """`is_stream`: of requests or answers; `reads_stream`: of requests."""
        self.method = method
        self.tenant_id = ""
        self.is_stream = is_stream
        self.messages = 0
        """Answers of a stream."""
        self.operations = 0
        """Operations that the call brought."""
        self.refused = 0
        """Those of them that were refused."""
        self.traceparent = ""
        """The caller's span."""
        self._request_id = ""
        self._reads_stream = reads_stream
        self._span = spans.NO_SPAN
        self._metrics = metrics
        self._received = 0
        self._taken = 0
        self._sent = 0
        self._started = time.perf_counter()
        metrics.began(method)

    def read(self, metadata: Mapping[str, str]) -> None:
        """Take over the caller's span, and its name for the request if that is fit to be logged."""
        self.traceparent = metadata.get(spans.TRACEPARENT, "")
        given = metadata.get(REQUEST_ID_KEY, "")
        if given.isascii() and given.isprintable():
            self._request_id = given[:_MAX_REQUEST_ID_CHARS]

    def span(self) -> spans.Span:
        """The span of the call. A stream of requests has none, as it lasts: its messages have their own."""
        if not self._reads_stream:
            self._span = spans.request(self.method.removeprefix("/"), self.traceparent)
        return self._span

    def take_received(self) -> int:
        """Bytes received since this was last asked: those of the message just read."""
        count, self._taken = self._received - self._taken, self._received
        return count

    def counting_received(self, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        """The deserializer, with its bytes counted."""

        def counting(data: bytes) -> Any:
            self._received += len(data)
            return data if deserialize is None else deserialize(data)

        return counting

    def counting_sent(self, serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
        """The serializer, with its bytes counted."""

        def counting(message: Any) -> bytes:
            data: bytes = message if serialize is None else serialize(message)
            self._sent += len(data)
            return data

        return counting

    def end(self, code: str, **more: Any) -> None:
        """Write the line and count the call; `code` is the name of its status."""
        seconds = time.perf_counter() - self._started
        self._metrics.ended(
            self.method,
            code,
            None if self.is_stream else seconds,
            received=self._received,
            sent=self._sent,
        )
        self._end_span(code)
        facts = {
            "messages": self.messages,
            "operations": self.operations,
            "refused": self.refused,
            "request_id": self._request_id,
        }
        self._level(code, seconds)(
            "call",
            method=self.method,
            code=code,
            tenant_id=self.tenant_id,
            duration_ms=round(seconds * 1_000, 2),
            bytes_in=self._received,
            bytes_out=self._sent,
            **{name: value for name, value in facts.items() if value},
            **more,
        )

    def _end_span(self, code: str) -> None:
        if not self._span.is_recorded:
            return
        service, _, method = self.method.removeprefix("/").partition("/")
        self._span.set(
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "runstore.code": code,
                "runstore.tenant_id": self.tenant_id,
                "runstore.request_id": self._request_id,
                "runstore.operations": self.operations,
            }
        )
        if code in _FAILURES:
            self._span.fail(code)

    def _level(self, code: str, seconds: float) -> Callable[..., Any]:
        if code == "INTERNAL":
            return logger.error  # type: ignore[no-any-return]  # structlog's loggers are made at run time
        if code in _TROUBLE:
            return logger.warning  # type: ignore[no-any-return]
        verb = self.method.rpartition("/")[2]
        is_routine = (
            code == "OK"
            and not self.is_stream
            and not self.refused
            and seconds < _SLOW_S
            and not verb.startswith(_CHANGES)
        )
        return logger.debug if is_routine else logger.info  # type: ignore[no-any-return]
