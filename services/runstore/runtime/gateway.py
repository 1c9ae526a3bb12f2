"""Runs one gateway process: the composition root of the HTTP side."""

import asyncio
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from runstore.domain.failed_attempts import FailedAttempts
from runstore.domain.pacing import PacedCallers, Pacing
from runstore.gateway.app import create_app
from runstore.gateway.bodies import BodyLimits
from runstore.gateway.guard import Guard
from runstore.gateway.live_answers import cut_off
from runstore.gateway.metrics import GatewayMetrics
from runstore.gateway.paced_calls import PacedCalls
from runstore.gateway.store_client import CHANNEL_OPTIONS, StoreClient
from runstore.runtime.accepting import Accepting, Door
from runstore.runtime.cache_metrics import CacheCollector
from runstore.runtime.clock import SystemClock
from runstore.runtime.guarded_http import GuardedHttp, cut_slow_clients
from runstore.runtime.settings import AuthMode, Settings
from runstore.runtime.tls import ServerCertificate, async_store_channel, server_certificate

_BACKLOG = 2_048
_KEEP_ALIVE_S = 75  # Longer than the 5 s that SDKs pause between batches.

_log = structlog.get_logger(__name__)


async def run_gateway(
    settings: Settings,
    *,
    listen_fd: int | None,
    ready: Callable[[], None],
    stop: asyncio.Event,
    metrics: GatewayMetrics | None = None,
) -> None:
    """Serves HTTP until `stop`, then finishes the calls under way within `settings.drain_timeout_s`.

    Listens on the inherited socket `listen_fd`, or else on `settings.http`. `ready` is called once
    connections are accepted. The store may be away, then and later: calls answer 503 meanwhile.
    `metrics` are those of a gateway that is alone unless given.
    Raises OSError when the address cannot be bound, CannotStart for certificates that cannot be used.
    """
    metrics = metrics or GatewayMetrics("gateway", None)
    metrics.registry.register(CacheCollector())
    limits = BodyLimits(
        max_body_bytes=settings.max_body_bytes,
        max_decompressed_bytes=settings.max_decompressed_bytes,
        max_decompression_ratio=settings.max_decompression_ratio,
        max_memory_bytes=settings.body_memory_bytes,
        max_payload_bytes=settings.max_payload_bytes,
        max_attachment_bytes=settings.max_attachment_bytes,
    )
    certificate = server_certificate(settings)
    listener = _listener(settings, listen_fd)
    async with async_store_channel(settings, CHANNEL_OPTIONS) as channel, metrics.shown():
        store = StoreClient(channel, patience_s=settings.store_patience_s, on_retry=metrics.store_retried)
        clock = SystemClock()
        attempts = FailedAttempts(clock, per_minute=settings.failed_attempts_per_minute)
        guard = Guard(store, clock, attempts) if settings.auth is AuthMode.KEYS else None
        app = create_app(
            store, limits, clock.now_us, metrics, guard=guard, cors_origins=settings.cors_origins
        )
        door = None
        if guard is not None:  # Without keys only this machine is served.
            pacing = Pacing(clock)
            app = PacedCalls(app, PacedCallers(pacing, clock), metrics.call_paused)
            door = Door(pacing, settings.connections_per_address, settings.trusted_networks)
        server = _Server(_uvicorn_config(app, settings, certificate), ready, listener, door, metrics)
        stopping = asyncio.create_task(_stop_when_set(stop, server))
        cutting = asyncio.create_task(
            cut_slow_clients(server.server_state.connections, metrics.slow_client_cut)
        )
        try:
            await server.serve()
        finally:
            stopping.cancel()
            cutting.cancel()
            listener.close()


def _uvicorn_config(app: object, settings: Settings, certificate: ServerCertificate | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type] # starlette's and uvicorn's types of ASGI differ in name only
        http=GuardedHttp,
        lifespan="off",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_networks],
        access_log=False,  # `CallLog` writes the line.
        log_config=None,  # The process has configured logging.
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        ssl_context_factory=(lambda _config, _default: certificate.https_context()) if certificate else None,
    )


def _listener(settings: Settings, listen_fd: int | None) -> socket.socket:
    if listen_fd is not None:
        return socket.socket(fileno=listen_fd)
    address = settings.http
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)


class _Server(uvicorn.Server):
    """A uvicorn server that accepts by itself, says when, and leaves signals to the process."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        listener: socket.socket,
        door: Door | None,
        metrics: GatewayMetrics,
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._listener = listener
        self._door = door
        self._metrics = metrics

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets or [])
        accepting = Accepting(
            self._listener, self._protocol, self.config.ssl, self._door, self._metrics.connection_turned_away
        )
        self.servers.append(accepting)  # type: ignore[arg-type]  # has what uvicorn uses of a server
        self._ready()

    def _protocol(self) -> GuardedHttp:
        return GuardedHttp(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A wait for a run may take hours. Its client joins the run again, elsewhere or after the restart.
        for connection in list(self.server_state.connections):
            call = getattr(connection, "cycle", None)
            if call is not None and not call.response_complete and cut_off(call.scope):
                call.transport.abort()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _stop_when_set(stop: asyncio.Event, server: _Server) -> None:
    await stop.wait()
    _log.info("gateway_draining")
    server.should_exit = True
