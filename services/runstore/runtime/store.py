"""The store process, put together: catalog, engine, log, flusher and the gRPC services on top."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from runstore.catalog.catalog import Catalog, open_catalog
from runstore.domain.prices import PriceBook
from runstore.ingest.flusher import Flusher, FlushLimits
from runstore.ingest.ingest_runs import IngestRuns, replay
from runstore.ingest.log import Log
from runstore.ingest.placement import Placer
from runstore.ingest.sequence import Sequence
from runstore.query.attachment_tokens import AttachmentTokens
from runstore.query.cursors import PageTokens
from runstore.query.list_runs import ListRuns
from runstore.rpc.authentication import Authenticator, KeyAuthentication, NoAuthentication
from runstore.rpc.interceptor import CallInterceptor
from runstore.rpc.projects import ProjectServicer
from runstore.rpc.run_ingest import RunIngestServicer
from runstore.rpc.run_query import RunQueryServicer
from runstore.rpc.server import StoreServer
from runstore.runtime.clock import Clock, SystemClock
from runstore.runtime.settings import AuthMode, Settings
from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store

logger = structlog.get_logger()


async def run_store(settings: Settings, *, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then store what is acknowledged and return."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        catalog = await stack.enter_async_context(open_catalog(settings.catalog_location, clock))
        store = await stack.enter_async_context(open_run_store(settings.clickhouse_location))
        log, flusher = await _open_ingest(settings, store)
        server = await _server(settings, clock, catalog, store, log, flusher)
        await server.start(_addresses(settings))
        _spare_the_collector()
        ready()
        await stop.wait()
        await server.stop(settings.drain_timeout_s / 2)
        await log.stop()
        try:
            async with asyncio.timeout(settings.drain_timeout_s / 2):
                await flusher.close()
        except TimeoutError:
            logger.warning("drain_cut_short", hint="the log has what is not stored yet")
        await log.close()


async def migrate(settings: Settings) -> None:
    """Bring the engine's tables up to date and return."""
    async with open_run_store(settings.clickhouse_location):
        pass


def _spare_the_collector() -> None:
    """Let reference counts free what a flush leaves behind.

    A flush holds a hundred thousand objects without a cycle among them; a collector that walks them
    time and again took two fifths of what deriving facts costs (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


async def _open_ingest(settings: Settings, store: ClickHouseRunStore) -> tuple[Log, Flusher]:
    """Log and flusher, with everything stored that an earlier process left in the log."""
    log = Log(settings.log_dir, segment_bytes=settings.log_segment_bytes, max_bytes=settings.log_max_bytes)
    flusher = Flusher(
        store,
        Placer(store, await store.moved_runs()),
        PriceBook(),
        FlushLimits(settings.flush_interval_ms, settings.flush_max_runs, settings.flush_max_bytes),
        dict(await store.awaited_runs()),
        log.trim,
    )
    flusher.start()
    replayed = await replay(log, flusher, queue_max_bytes=settings.queue_max_bytes)
    if replayed:
        await flusher.see_sequence(log.last_sequence)
        logger.info("log_replayed", operations=replayed)
    log.start()
    return log, flusher


async def _server(
    settings: Settings,
    clock: Clock,
    catalog: Catalog,
    store: ClickHouseRunStore,
    log: Log,
    flusher: Flusher,
) -> StoreServer:
    ingest = IngestRuns(
        catalog.projects,
        Sequence(clock, log.last_sequence),
        log,
        flusher,
        queue_max_bytes=settings.queue_max_bytes,
    )
    runs = ListRuns(store, flusher, PageTokens(await catalog.secret("page_tokens")))
    attachment_tokens = AttachmentTokens(await catalog.secret("attachment_tokens"), clock)
    authenticator: Authenticator = (
        KeyAuthentication(catalog.keys) if settings.auth is AuthMode.KEYS else NoAuthentication()
    )
    return StoreServer(
        RunIngestServicer(ingest, flusher),
        RunQueryServicer(runs, store, attachment_tokens),
        ProjectServicer(catalog.projects, store, flusher, clock),
        CallInterceptor(authenticator),
    )


def _addresses(settings: Settings) -> list[str]:
    """The public address, and the socket that gateways on this machine use."""
    addresses = [str(settings.grpc)]
    if settings.store_socket is not None:
        settings.store_socket.unlink(missing_ok=True)
        addresses.append(f"unix:{settings.store_socket}")
    return addresses
