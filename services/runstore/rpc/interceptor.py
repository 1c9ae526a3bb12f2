"""What every call goes through: who calls, and may they; one log line; and errors turned into statuses."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2

from runstore.domain.access import WITHOUT_CREDENTIAL, Access, check_access
from runstore.domain.access_table import method_access
from runstore.domain.credentials import CREDENTIAL_HEADERS, credential
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.failed_attempts import FailedAttempts
from runstore.domain.networks import Networks
from runstore.domain.principals import ANONYMOUS, Principal, current_tenant_id
from runstore.domain.rate_limits import Measure, RateLimiter
from runstore.rpc.authentication import Authenticator, current_principal
from runstore.rpc.call_line import CallLine, current_call
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.mapping import error_reason
from runstore.rpc.messages import MAX_BYTES_OF_STRANGERS, MAX_MESSAGE_BYTES, message, messages, parsing_small
from runstore.rpc.open_streams import Admission, OpenStreams
from runstore.rpc.peer import own_address
from runstore.rpc.visible import See, see_writes
from runstore.storage.run_store import QueryTooLarge, QueryTooLong, StoreUnavailable
from runstore.v1 import error_pb2

ERROR_METADATA_KEY = "runstore-error-bin"
STATUS_METADATA_KEY = "grpc-status-details-bin"
"""Where every gRPC library looks for a `google.rpc.Status`."""

logger = structlog.get_logger()

INFRASTRUCTURE: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
"""Of gRPC itself: nothing to authenticate, count or log."""

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
        streams: OpenStreams | None = None,
    ) -> None:
        """`limiter`: None where queries are not limited. `see` waits for the writes that a call names
        (`rpc.visible`). `attempts`: None where nobody can fail. `trusted`: where gateways and proxies are.
        `streams`: where those are found that somebody else may end."""
        self._authenticator = authenticator
        self._metrics = metrics
        self._limiter = limiter
        self._see = see
        self._attempts = attempts
        self._trusted = trusted
        self._streams = streams or OpenStreams()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        if method.startswith(INFRASTRUCTURE):
            return handler._replace(request_deserializer=parsing_small(handler.request_deserializer))
        line = partial(
            CallLine,
            method,
            is_stream=handler.request_streaming or handler.response_streaming,
            reads_stream=handler.request_streaming,
            metrics=self._metrics,
        )
        # Registered as if its requests were a stream, whatever they are: gRPC would receive a message, and
        # decompress it, before the call is ours, for strangers, too. On the wire both are the same.
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(line, handler))
        return grpc.stream_unary_rpc_method_handler(self._unary(line, handler))

    # Messages are parsed and serialized inside the call, so that its line knows their bytes.

    def _unary(self, new_line: Callable[[], CallLine], handler: Any) -> Callable[..., Awaitable[bytes]]:
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        read = messages if handler.request_streaming else message

        async def call(_requests: object, context: _Context) -> bytes:
            line = new_line()
            metadata = _metadata(context)
            line.read(metadata)
            with line.span():
                try:
                    admission = await self._authenticate(metadata, context, line)
                    with self._streams.opened(line.tenant_id, admission) if line.is_stream else nullcontext():
                        parse = line.counting_received(handler.request_deserializer)
                        answer = await behavior(await read(parse, context, _limit(admission)), context)
                        response = line.counting_sent(handler.response_serializer)(answer)
                except BaseException as error:
                    await self._fail(context, error, line)
                    raise
                line.end("OK")
                return response

        return call

    def _stream(self, new_line: Callable[[], CallLine], handler: Any) -> Callable[..., AsyncIterator[bytes]]:
        behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
        read = messages if handler.request_streaming else message

        async def call(_requests: object, context: _Context) -> AsyncIterator[bytes]:
            line = new_line()
            metadata = _metadata(context)
            line.read(metadata)
            with line.span():
                try:
                    admission = await self._authenticate(metadata, context, line)
                    with self._streams.opened(line.tenant_id, admission):
                        parse = line.counting_received(handler.request_deserializer)
                        serialize = line.counting_sent(handler.response_serializer)
                        async for response in behavior(
                            await read(parse, context, _limit(admission)), context
                        ):
                            line.messages += 1
                            yield serialize(response)
                except BaseException as error:
                    await self._fail(context, error, line)
                    raise
                line.end("OK")

        return call

    async def _authenticate(
        self, metadata: dict[str, str], context: _Context, line: CallLine
    ) -> Admission | None:
        """How the caller was let in; None for whom nobody had to."""
        current_call.set(line)
        # Raises for a method without an entry: what is not known to be allowed is refused.
        access = method_access(line.method)
        if access in WITHOUT_CREDENTIAL:
            return None
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
        if principal is ANONYMOUS:
            return None
        shown = (metadata.get(name, "") for name in CREDENTIAL_HEADERS)
        return Admission((access.value, *shown), partial(self._admit, metadata, access))

    async def _admit(self, metadata: dict[str, str], access: Access) -> None:
        check_access(await self._authenticator.principal(metadata), access)

    async def _principal(self, metadata: dict[str, str], peer: str) -> Principal:
        address = self._attempts and own_address(peer, self._trusted)
        if not self._attempts or not address:
            return await self._authenticator.principal(metadata)
        with self._attempts.counted(address, credential(metadata)):
            return await self._authenticator.principal(metadata)

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
        # gRPC keeps what is raised now, and so the error and the frames with what the call had brought, in a
        # circle that only the collector ends.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        await context.abort(
            grpc.StatusCode[refusal.reason.grpc_code], refusal.message, error_metadata(refusal)
        )


def _limit(admission: Admission | None) -> int:
    return MAX_BYTES_OF_STRANGERS if admission is None else MAX_MESSAGE_BYTES


def _metadata(context: _Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def error_metadata(refusal: RunstoreError) -> tuple[tuple[str, bytes], ...]:
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
