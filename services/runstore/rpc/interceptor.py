"""What every call goes through: who calls, and may they; one log line; and errors turned into statuses."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from runstore.domain.access import WITHOUT_CREDENTIAL, Access, check_access
from runstore.domain.access_table import method_access
from runstore.domain.credentials import credential
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.failed_attempts import FailedAttempts
from runstore.domain.networks import Networks, is_within
from runstore.domain.principals import ANONYMOUS, Principal, current_tenant_id
from runstore.domain.rate_limits import Measure, RateLimiter
from runstore.rpc.authentication import Authenticator, current_principal
from runstore.rpc.call_line import CallLine, current_call
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.mapping import error_reason
from runstore.rpc.visible import See, see_writes
from runstore.storage.run_store import QueryTooLarge, QueryTooLong, StoreUnavailable
from runstore.v1 import error_pb2

ERROR_METADATA_KEY = "runstore-error-bin"
STATUS_METADATA_KEY = "grpc-status-details-bin"
"""Where every gRPC library looks for a `google.rpc.Status`."""

logger = structlog.get_logger()

# Of gRPC itself: nothing to authenticate, count or log.
_INFRASTRUCTURE = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")

# (requests are a stream, responses are) → how a handler of that shape is made, and where it keeps its method.
_SHAPES: dict[tuple[bool, bool], tuple[Callable[..., Any], str]] = {
    (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}

# A client takes 8 KiB of headers, twelve bytes to a character at most; refusals may repeat what was sent.
_MAX_MESSAGE_CHARS = 500

_ASK_FOR_LESS = "ask for less, by a shorter time, fewer projects, smaller pages or fewer fields"

_QUERIES = frozenset({Access.READ, Access.PUBLISHED})
"""What a limit of queries counts."""

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """The only place that ends a call with an error status."""

    def __init__(
        self,
        authenticator: Authenticator,
        metrics: CallMetrics,
        limiter: RateLimiter | None = None,
        *,
        see: See | None = None,
        attempts: FailedAttempts | None = None,
        trusted: Networks = (),
    ) -> None:
        """`limiter`: None where queries are not limited. `see` waits for the writes that a call names
        (`rpc.visible`). `attempts`: None where nobody can fail. `trusted`: where gateways and proxies are."""
        self._authenticator = authenticator
        self._metrics = metrics
        self._limiter = limiter
        self._see = see
        self._attempts = attempts
        self._trusted = trusted

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_INFRASTRUCTURE):
            return handler
        wrap, behavior = _SHAPES[handler.request_streaming, handler.response_streaming]
        line = CallLine(
            method,
            is_stream=handler.request_streaming or handler.response_streaming,
            metrics=self._metrics,
        )
        guard = self._stream if handler.response_streaming else self._unary
        read = _messages if handler.request_streaming else _message
        # Messages are parsed and serialized inside the call, so that its line knows their bytes.
        return wrap(
            guard(
                line,
                getattr(handler, behavior),
                partial(read, line.counting_received(handler.request_deserializer)),
                line.counting_sent(handler.response_serializer),
            )
        )

    def _unary(
        self,
        line: CallLine,
        behavior: Callable[..., Awaitable[Any]],
        read: Callable[[Any], Any],
        serialize: Callable[[Any], bytes],
    ) -> Callable[..., Awaitable[bytes]]:
        async def call(request: Any, context: _Context) -> bytes:
            try:
                await self._authenticate(context, line)
                response = serialize(await behavior(read(request), context))
            except BaseException as error:
                await self._fail(context, error, line)
                raise
            line.end("OK")
            return response

        return call

    def _stream(
        self,
        line: CallLine,
        behavior: Callable[..., AsyncIterator[Any]],
        read: Callable[[Any], Any],
        serialize: Callable[[Any], bytes],
    ) -> Callable[..., AsyncIterator[bytes]]:
        async def call(request: Any, context: _Context) -> AsyncIterator[bytes]:
            try:
                await self._authenticate(context, line)
                async for response in behavior(read(request), context):
                    line.messages += 1
                    yield serialize(response)
            except BaseException as error:
                await self._fail(context, error, line)
                raise
            line.end("OK")

        return call

    async def _authenticate(self, context: _Context, line: CallLine) -> None:
        metadata = {
            key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
        }
        line.read_request_id(metadata)
        current_call.set(line)
        # Raises for a method without an entry: what is not known to be allowed is refused.
        access = method_access(line.method)
        if access in WITHOUT_CREDENTIAL:
            return
        try:
            principal = await self._principal(metadata, context.peer())
        except RunstoreError as error:
            is_nobody = error.reason is ErrorReason.UNAUTHENTICATED and not credential(metadata)
            if access is not Access.PUBLISHED or not is_nobody:
                raise
            principal = ANONYMOUS
        else:
            check_access(principal, access)
        line.tenant_id = principal.tenant_id
        current_principal.set(principal)
        current_tenant_id.set(principal.tenant_id)
        if self._limiter is not None and access in _QUERIES:
            await self._limiter.take(principal, {Measure.QUERIES: 1})
        if self._see is not None:
            await see_writes(self._see, metadata, line.method)

    async def _principal(self, metadata: dict[str, str], peer: str) -> Principal:
        address = self._attempts and self._address_of(peer)
        if not self._attempts or not address:
            return await self._authenticator.principal(metadata)
        with self._attempts.counted(address, credential(metadata)):
            return await self._authenticator.principal(metadata)

    def _address_of(self, peer: str) -> str | None:
        """Of a caller that answers for itself; None for gateways, which count attempts of their callers."""
        kind, _, rest = unquote(peer).partition(":")
        if kind not in ("ipv4", "ipv6"):
            return None
        address = rest.rpartition(":")[0].strip("[]")
        return None if is_within(address, self._trusted) else address

    async def _fail(self, context: _Context, error: BaseException, line: CallLine) -> None:
        """End the call with the status of a known error; an unknown one is INTERNAL and says nothing more."""
        if not isinstance(error, Exception):
            line.end("CANCELLED")
            return
        if isinstance(error, QueryTooLong):
            refusal = RunstoreError(ErrorReason.QUERY_TOO_LONG, f"the query takes too long: {_ASK_FOR_LESS}")
        elif isinstance(error, QueryTooLarge):
            refusal = RunstoreError(
                ErrorReason.QUERY_TOO_LARGE, f"the query needs too much memory: {_ASK_FOR_LESS}"
            )
        elif isinstance(error, StoreUnavailable):
            logger.warning("engine_unavailable", error=str(error))
            refusal = RunstoreError(ErrorReason.UNAVAILABLE, "the engine cannot answer now")
        elif isinstance(error, RunstoreError):
            refusal = error
        else:
            logger.error("call_failed", method=line.method, exc_info=error)
            refusal = RunstoreError(ErrorReason.INTERNAL, "internal error")
        if len(refusal.message) > _MAX_MESSAGE_CHARS:
            text = f"{refusal.message[:_MAX_MESSAGE_CHARS]}…"
            refusal = RunstoreError(
                refusal.reason, text, field=refusal.field, retry_after_s=refusal.retry_after_s
            )
        line.end(refusal.reason.grpc_code, reason=refusal.reason.name, field=refusal.field)
        await context.abort(
            grpc.StatusCode[refusal.reason.grpc_code], refusal.message, _error_metadata(refusal)
        )


def _error_metadata(refusal: RunstoreError) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata of a refused call: our reason, and for clients that know only gRPC's own error model
    (https://google.aip.dev/193) when to try again."""
    detail = error_pb2.ErrorDetail(reason=error_reason(refusal.reason), field=refusal.field)
    metadata = [(ERROR_METADATA_KEY, detail.SerializeToString())]
    if refusal.retry_after_s:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(refusal.retry_after_s)
        code, _ = grpc.StatusCode[refusal.reason.grpc_code].value
        status = status_pb2.Status(code=code, message=refusal.message)
        status.details.add().Pack(retry)
        metadata.append((STATUS_METADATA_KEY, status.SerializeToString()))
    return tuple(metadata)


def _message(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """The message in `data`. gRPC itself would log a traceback for bytes that are none, and say INTERNAL."""
    try:
        return parse(data)
    except DecodeError as error:
        raise RunstoreError(ErrorReason.MALFORMED_BODY, "the message is not of the method's type") from error


async def _messages(parse: Callable[[bytes], Any], stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for data in stream:
        yield _message(parse, data)
