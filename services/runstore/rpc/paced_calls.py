"""Lets callers wait that go on and on with what is refused, as the gateway does."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, TypeAlias

import grpc

from runstore.domain.credentials import CREDENTIAL_HEADERS
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.networks import Networks
from runstore.domain.pacing import MAX_PAUSE_S, Caller, PacedCallers
from runstore.domain.principals import ANONYMOUS
from runstore.rpc.authentication import current_principal
from runstore.rpc.interceptor import INFRASTRUCTURE, error_metadata
from runstore.rpc.peer import own_address

_MAX_WAITING: Final = 100
"""Calls of one caller that wait at once: one connection may have any number under way."""

_STATUSES: Final = {grpc.StatusCode.RESOURCE_EXHAUSTED: 429, grpc.StatusCode.OUT_OF_RANGE: 413}
"""Those of HTTP that cost, by those of gRPC."""

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class PacedCalls(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Charges callers for their calls, and delays those that must wait.

    Goes before `CallInterceptor`, whose handlers it wraps. Gateways and proxies do not wait.
    """

    def __init__(self, callers: PacedCallers, trusted: Networks, on_pause: Callable[[], None]) -> None:
        self._callers = callers
        self._trusted = trusted
        self._on_pause = on_pause
        self._waiting: Counter[Caller] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(INFRASTRUCTURE):
            return handler
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream))
        return grpc.stream_unary_rpc_method_handler(self._unary(handler.stream_unary))

    def _unary(self, behavior: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
        async def call(requests: object, context: _Context) -> bytes:
            address = own_address(context.peer(), self._trusted)
            if address is None:
                return await behavior(requests, context)
            async with self._paced(address, context):
                return await behavior(requests, context)

        return call

    def _stream(self, behavior: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        async def call(requests: object, context: _Context) -> AsyncIterator[bytes]:
            address = own_address(context.peer(), self._trusted)
            async with nullcontext() if address is None else self._paced(address, context):
                async for response in behavior(requests, context):
                    yield response

        return call

    @asynccontextmanager
    async def _paced(self, address: str, context: _Context) -> AsyncIterator[None]:
        metadata = context.invocation_metadata() or ()
        caller = self._callers.named(
            address,
            ((name.encode(), str(value).encode()) for name, value in metadata if name in CREDENTIAL_HEADERS),
        )
        await self._wait(caller, context)
        try:
            yield
        finally:
            is_admitted = current_principal.get(ANONYMOUS) is not ANONYMOUS
            self._callers.ended(caller, _STATUSES.get(context.code(), 200), is_admitted=is_admitted)

    async def _wait(self, caller: Caller, context: _Context) -> None:
        pause_s = self._callers.pause_s(caller)
        if pause_s <= 0:
            return
        self._on_pause()
        if self._waiting[caller] >= _MAX_WAITING:
            refusal = RunstoreError(
                ErrorReason.RATE_LIMITED, "too many calls wait already", retry_after_s=int(MAX_PAUSE_S)
            )
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, refusal.message, error_metadata(refusal))
        self._waiting[caller] += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]
