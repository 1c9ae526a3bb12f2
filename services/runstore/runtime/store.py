"""The store process, put together: catalog, engine, log, flusher and the gRPC services on top."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import grpc
import structlog
from prometheus_client import CollectorRegistry

from runstore.agents.checkpoint_deletion import delete_checkpoints
from runstore.catalog.catalog import Catalog, open_catalog
from runstore.chat.openai import OpenAIChat
from runstore.domain.failed_attempts import FailedAttempts
from runstore.domain.pacing import PacedCallers, Pacing
from runstore.domain.rate_limits import RateLimiter
from runstore.gateway.metrics import GatewayCollector
from runstore.ingest.dead_letters import DeadLetters
from runstore.ingest.delete_project import DeleteProject
from runstore.ingest.delete_runs import DeleteRuns
from runstore.ingest.delete_tenant import DeleteTenants
from runstore.ingest.example_contents import ExampleContents
from runstore.ingest.ingest_feedback import IngestFeedback
from runstore.ingest.ingest_runs import IngestRuns
from runstore.ingest.log import Log
from runstore.ingest.peers import Peers
from runstore.ingest.purge import Purge
from runstore.ingest.retention import Retention
from runstore.ingest.sequence import Sequence as SequenceNumbers
from runstore.ingest.sequence import sequence_at
from runstore.ingest.unused_blobs import AllRows, UnusedBlobs
from runstore.ingest.uploads import UploadLimits, Uploads
from runstore.ingest.visibility import Visibility
from runstore.query.cursors import PageTokens
from runstore.query.list_runs import ListRuns
from runstore.query.list_threads import ListThreads
from runstore.query.list_traces import ListTraces
from runstore.query.natural_language import NaturalLanguage
from runstore.query.read_feedback import ReadFeedback
from runstore.query.read_tokens import ReadTokens
from runstore.query.references import References
from runstore.query.retention import ReadRetention
from runstore.query.run_stats import RunStatistics
from runstore.query.shared_runs import SharedRuns
from runstore.rpc.admin import AdminServicer
from runstore.rpc.agent_items import AgentItemServicer
from runstore.rpc.agent_registry import AgentRegistryServicer
from runstore.rpc.agent_services import AgentServicers
from runstore.rpc.annotation_queues import AnnotationQueueServicer
from runstore.rpc.authentication import Authenticator, KeyAuthentication, NoAuthentication
from runstore.rpc.blobs import BlobServicer
from runstore.rpc.catalog_services import CatalogServicers
from runstore.rpc.comparative_experiments import ComparativeExperimentServicer
from runstore.rpc.dataset_sharing import DatasetSharingServicer, SharedDatasetServicer
from runstore.rpc.datasets import DatasetServicer
from runstore.rpc.example_search import ExampleSearchServicer
from runstore.rpc.examples import ExampleServicer
from runstore.rpc.feedback import FeedbackServicer
from runstore.rpc.feedback_setup import FeedbackConfigServicer, FeedbackTokenServicer
from runstore.rpc.filters import FilterServicer
from runstore.rpc.interceptor import CallInterceptor
from runstore.rpc.online_evaluators import OnlineEvaluatorServicer
from runstore.rpc.open_streams import OpenStreams
from runstore.rpc.paced_calls import PacedCalls
from runstore.rpc.projects import ProjectServicer
from runstore.rpc.prompts import PromptServicer
from runstore.rpc.retention import RetentionServicer
from runstore.rpc.run_deletion import RunDeletionServicer
from runstore.rpc.run_ingest import RunIngestServicer
from runstore.rpc.run_messages import RunMessages
from runstore.rpc.run_query import RunQueryServicer
from runstore.rpc.run_stats import RunStatsServicer
from runstore.rpc.server import StoreServer
from runstore.rpc.service_tokens import BadKeySet, ServiceTokens, TokenRules
from runstore.rpc.shares import SharedRunServicer, ShareServicer
from runstore.rpc.source_runs import SourceRuns
from runstore.rpc.tenants import TenantServicer
from runstore.rpc.thread_query import ThreadQueryServicer
from runstore.rpc.trace_query import TraceQueryServicer
from runstore.rpc.visible import See
from runstore.runtime.agent_dispatch import Agents
from runstore.runtime.backup.taking import Backups, Sources
from runstore.runtime.clock import Clock, SystemClock
from runstore.runtime.data_dir import instance_id
from runstore.runtime.failures import CannotStart
from runstore.runtime.flusher_process import FlusherProcess
from runstore.runtime.metrics import StoreMetrics
from runstore.runtime.metrics_address import metrics_served
from runstore.runtime.process import spare_the_collector
from runstore.runtime.settings import AuthMode, Settings
from runstore.runtime.status import Observer, Status
from runstore.runtime.tls import server_certificate
from runstore.runtime.webhooks import read_webhook_policy
from runstore.storage.blobs import BlobStore, open_blob_store
from runstore.storage.clickhouse.engine import ReadLimits
from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store
from runstore.storage.run_store import StoreUnavailable

logger = structlog.get_logger()


async def run_store(settings: Settings, *, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then store what is acknowledged and return."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        metrics = StoreMetrics(settings)
        catalog = await stack.enter_async_context(
            open_catalog(settings.catalog_location, clock, metrics.catalog)
        )
        # Without its engine the store accepts writes all the same: the log keeps them.
        store = await stack.enter_async_context(
            open_run_store(
                settings.clickhouse_location,
                cluster=settings.clickhouse_cluster,
                limits=ReadLimits(settings.query_timeout_s, settings.query_memory_bytes),
                may_be_away=True,
                slow_query_s=settings.slow_query_s,
                metrics=metrics.storage,
            )
        )
        flusher = FlusherProcess(settings, metrics.ingest)
        log, visibility = _log(settings, clock, flusher, metrics)
        ingest, peers = await _ingest(settings, clock, catalog, log, visibility, metrics, flusher)
        blobs = open_blob_store(settings.blob_location, endpoint=settings.blob_endpoint)
        unused = UnusedBlobs(blobs, AllRows(store, catalog.datasets), peers, clock)
        purge = Purge(store.deletions, unused, peers)
        log.start()
        flusher.start(store, purge, log, visibility, peers)
        observer = Observer(store, metrics.ingest, clock)
        metrics.ingest.watch(log, visibility, clock)
        metrics.watch_flusher(lambda: flusher.pid)
        metrics.watch_engine(lambda: observer.figures)
        stack.enter_context(metrics_served(settings.metrics, _everything(settings, metrics)))
        named = partial(_gateways, settings)
        status = Status(settings, clock, log, visibility, flusher, metrics.ingest, observer, named, catalog)
        webhooks = read_webhook_policy(settings)
        agents = Agents(catalog, clock, webhooks, run_timeout_s=settings.agent_run_timeout_s)
        store_id = hashlib.sha256(await catalog.secret("store")).hexdigest()
        sources = Sources(store.copies, blobs, unused, visibility, peers, flusher.pause, store_id)
        backups = Backups(settings, sources, clock)
        streams = OpenStreams()
        tenants = _tenants(settings, clock, catalog, store, unused, peers, streams)
        admin = partial(
            AdminServicer,
            keys=catalog.keys,
            status=status,
            exposition=metrics.exposition,
            backups=backups,
            tenants=tenants,
            limits=catalog.tenant_limits,
        )
        serve = partial(_server, agents=agents.servicers, peers=peers, admin=admin, streams=streams)
        server = await serve(settings, clock, catalog, store, ingest, visibility, blobs, unused, metrics)
        await server.start(_addresses(settings))
        spare_the_collector()
        sweep = _retention(settings, clock, catalog, store, ingest, visibility, purge, unused, metrics)
        beside = (observer.run(), unused.run(), purge.run(), peers.run(), sweep, tenants.run(), streams.run())
        tasks = [asyncio.create_task(each) for each in beside]
        agents.start()
        ready()
        await stop.wait()
        for task in tasks:
            task.cancel()
        await agents.stop()
        await server.stop(settings.drain_timeout_s / 2)
        await log.stop()
        if not await flusher.drain(settings.drain_timeout_s / 2):
            logger.warning("drain_cut_short", hint="the log has what is not stored yet")
        await log.close()


async def migrate(settings: Settings) -> None:
    """Bring the engine's tables up to date and return. Raises CannotStart when the engine is away."""
    try:
        async with open_run_store(settings.clickhouse_location, cluster=settings.clickhouse_cluster):
            pass
    except StoreUnavailable as error:
        raise CannotStart(f"the engine does not answer: {error}") from error


def _log(
    settings: Settings, clock: Clock, flusher: FlusherProcess, metrics: StoreMetrics
) -> tuple[Log, Visibility]:
    """The log of this data directory, and what of it cannot be read yet."""
    log = Log(
        settings.log_dir,
        segment_bytes=settings.log_segment_bytes,
        max_bytes=settings.log_max_bytes,
        on_durable=flusher.durable,
        on_group=metrics.ingest.logged,
        on_failure=metrics.ingest.log_failed,
    )
    visibility = Visibility(
        stored_sequence=log.checkpoint,
        last_sequence=log.last_sequence,
        max_waiting_bytes=settings.queue_max_bytes,
        hurry=flusher.hurry,
        horizon=lambda: sequence_at(clock.now_us()) if settings.is_shared else 0,
    )
    return log, visibility


async def _ingest(
    settings: Settings,
    clock: Clock,
    catalog: Catalog,
    log: Log,
    visibility: Visibility,
    metrics: StoreMetrics,
    flusher: FlusherProcess,
) -> tuple[IngestRuns, Peers]:
    """The way in, and the stores beside this one, whose numbers are in the sequence."""
    stores = catalog.stores if settings.is_shared else None
    node = 0 if stores is None else await stores.register(instance_id(settings.data_dir), log.checkpoint)
    sequence = SequenceNumbers(clock, log.last_sequence, node)
    ingest = IngestRuns(catalog.projects, sequence, log, visibility, metrics.ingest, flusher.traced)
    return ingest, Peers(stores, node, visibility, ingest.stored_sequence, clock)


def _gateways(settings: Settings) -> list[tuple[str, int]]:
    """The gateways on this machine, by name, with their process ids."""
    return [] if settings.metrics_dir is None else GatewayCollector(settings.metrics_dir).pids()


async def _server(
    settings: Settings,
    clock: Clock,
    catalog: Catalog,
    store: ClickHouseRunStore,
    ingest: IngestRuns,
    visibility: Visibility,
    blobs: BlobStore,
    unused: UnusedBlobs,
    metrics: StoreMetrics,
    *,
    agents: AgentServicers,
    peers: Peers,
    admin: Callable[..., AdminServicer],
    streams: OpenStreams,
) -> StoreServer:
    page_tokens = PageTokens(await catalog.secret("page_tokens"))
    references = References(catalog.example_sources, catalog.shares)
    runs = ListRuns(store, visibility, page_tokens, references)
    traces = ListTraces(runs, store.traces, catalog.projects)
    threads = ListThreads(store.threads, runs, traces, catalog.projects, visibility, page_tokens, references)
    read_tokens = ReadTokens(await catalog.secret("read_tokens"), clock)
    uploads = await _uploads(settings, clock, catalog, blobs, unused)
    dead_letters = DeadLetters(store.dead_letters, store, ingest, visibility)
    retention = ReadRetention(catalog.retention, store.retention, settings.retention)
    messages = RunMessages(read_tokens, catalog.shares, catalog.example_sources, retention)
    feedback = IngestFeedback(catalog.projects, ingest, store.feedback, visibility, clock)
    contents = ExampleContents(blobs, unused, uploads)
    sources = SourceRuns(runs, store, blobs, uploads)
    examples = ExampleServicer(catalog.datasets, catalog.examples, contents, sources, read_tokens, ingest)
    deletion = DeleteProject(catalog.projects, store, visibility, unused, peers)
    limiter = RateLimiter(settings.rate_limits, catalog.tenant_limits, clock, metrics.calls.rate_limited)
    return StoreServer(
        ingest=RunIngestServicer(ingest, peers, uploads, metrics.ingest, limiter),
        query=RunQueryServicer(runs, messages),
        traces=TraceQueryServicer(traces, messages),
        threads=ThreadQueryServicer(threads, messages),
        feedback=FeedbackServicer(
            feedback,
            ReadFeedback(store.feedback, store, visibility),
            limiter,
        ),
        filters=FilterServicer(NaturalLanguage(_chat_model(settings), settings.ai_timeout_s, clock.now_us)),
        stats=RunStatsServicer(RunStatistics(store.stats, visibility, references)),
        deletion=RunDeletionServicer(DeleteRuns(ingest, visibility, store.deletions, peers)),
        projects=ProjectServicer(catalog.projects, deletion, catalog.retention, retention, clock),
        catalog=_catalog_servicers(
            catalog, runs, page_tokens, messages, feedback, deletion, clock, ingest, retention, limiter
        ),
        agents=agents,
        admin=admin(dead_letters, limiter=limiter),
        blobs=BlobServicer(uploads, blobs, store, read_tokens, catalog.keys),
        interceptors=await _interceptors(
            settings, clock, catalog, metrics, limiter, peers.see_sequence, streams
        ),
        datasets=DatasetServicer(
            catalog.datasets, catalog.dataset_versions, catalog.examples, contents, clock
        ),
        examples=examples,
        example_search=ExampleSearchServicer(catalog.example_search, examples),
        dataset_sharing=DatasetSharingServicer(catalog.dataset_shares),
        shared_datasets=SharedDatasetServicer(
            catalog.dataset_shares, catalog.datasets, catalog.examples, catalog.projects, examples
        ),
        comparative_experiments=ComparativeExperimentServicer(catalog.comparative_experiments, clock),
    )


async def _interceptors(
    settings: Settings,
    clock: Clock,
    catalog: Catalog,
    metrics: StoreMetrics,
    limiter: RateLimiter,
    see: See,
    streams: OpenStreams,
) -> list[PacedCalls | CallInterceptor]:
    calls = CallInterceptor(
        await _authenticator(settings, catalog),
        metrics.calls,
        limiter,
        see=see,
        attempts=FailedAttempts(clock, per_minute=settings.failed_attempts_per_minute),
        trusted=settings.trusted_networks,
        streams=streams,
    )
    if settings.auth is not AuthMode.KEYS:  # Only this machine is served.
        return [calls]
    callers = PacedCallers(Pacing(clock), clock)
    return [PacedCalls(callers, settings.trusted_networks, metrics.calls.paused), calls]


async def _uploads(
    settings: Settings, clock: Clock, catalog: Catalog, blobs: BlobStore, unused: UnusedBlobs
) -> Uploads:
    settings.spool_dir.mkdir(exist_ok=True)
    return Uploads(
        blobs,
        unused,
        settings.spool_dir,
        await catalog.secret("upload_tokens"),
        clock,
        UploadLimits(settings.max_payload_bytes, settings.max_attachment_bytes),
    )


async def _retention(
    settings: Settings,
    clock: Clock,
    catalog: Catalog,
    store: ClickHouseRunStore,
    ingest: IngestRuns,
    visibility: Visibility,
    purge: Purge,
    unused: UnusedBlobs,
    metrics: StoreMetrics,
) -> None:
    """Delete what has expired, until cancelled."""
    retention = Retention(
        store.retention,
        catalog.retention,
        catalog.leases(instance_id(settings.data_dir)),
        ingest,
        visibility,
        purge,
        unused,
        clock,
        settings.retention,
        observer=metrics.retention,
    )
    await retention.run(settings.retention_interval_s)


def _tenants(
    settings: Settings,
    clock: Clock,
    catalog: Catalog,
    store: ClickHouseRunStore,
    unused: UnusedBlobs,
    peers: Peers,
    streams: OpenStreams,
) -> DeleteTenants:
    async def checkpoints(thread_ids: Sequence[str]) -> None:
        try:
            await delete_checkpoints(settings.checkpoint_location, thread_ids)
        except OSError as error:
            raise StoreUnavailable(f"checkpoints: {error}") from error

    return DeleteTenants(
        catalog.tenant_deletions,
        store.tenants,
        unused,
        checkpoints,
        peers,
        catalog.leases(instance_id(settings.data_dir)),
        clock,
        on_shut=streams.end,
        is_shared=settings.is_shared,
    )


async def _authenticator(settings: Settings, catalog: Catalog) -> Authenticator:
    if settings.auth is not AuthMode.KEYS:
        return NoAuthentication()
    rules = TokenRules(settings.jwt_audience, settings.jwt_issuer, settings.jwt_leeway_s)
    try:
        tokens = ServiceTokens(rules, secret=settings.jwt_secret, jwks_file=settings.jwt_jwks_file)
    except BadKeySet as error:
        raise CannotStart(f"jwt_jwks_file: {settings.jwt_jwks_file}: {error}") from error
    return KeyAuthentication(catalog.keys, await catalog.operator_key(), tokens)


def _chat_model(settings: Settings) -> OpenAIChat | None:
    if not settings.ai_url:
        return None
    return OpenAIChat(settings.ai_url, settings.ai_model, settings.ai_api_key)


def _catalog_servicers(
    catalog: Catalog,
    runs: ListRuns,
    page_tokens: PageTokens,
    messages: RunMessages,
    feedback: IngestFeedback,
    deletion: DeleteProject,
    clock: Clock,
    ingest: IngestRuns,
    retention: ReadRetention,
    limiter: RateLimiter,
) -> CatalogServicers:
    shared = SharedRuns(runs, catalog.shares)
    return CatalogServicers(
        queues=AnnotationQueueServicer(catalog, runs, page_tokens, ingest, clock),
        agent_items=AgentItemServicer(catalog.agent_items),
        prompts=PromptServicer(catalog.prompts, catalog.prompt_commits),
        shares=ShareServicer(catalog.shares, catalog.projects, shared),
        shared_runs=SharedRunServicer(shared, messages),
        feedback_tokens=FeedbackTokenServicer(catalog.feedback_tokens, feedback, clock),
        feedback_configs=FeedbackConfigServicer(catalog.feedback_configs, clock),
        tenants=TenantServicer(catalog.tenant_handles, limiter),
        online_evaluators=OnlineEvaluatorServicer(catalog.online_evaluators, clock),
        agent_registry=AgentRegistryServicer(catalog.agent_registry, catalog.projects, deletion, clock),
        retention=RetentionServicer(catalog.retention, retention, catalog.projects, ingest),
    )


def _everything(settings: Settings, metrics: StoreMetrics) -> CollectorRegistry:
    """The store's metrics, and those of the gateways on this machine."""
    everything = CollectorRegistry()
    everything.register(metrics.registry)
    if settings.metrics_dir is not None:
        everything.register(GatewayCollector(settings.metrics_dir))
    return everything


def _addresses(settings: Settings) -> list[tuple[str, grpc.ServerCredentials | None]]:
    """The public address, and the socket that gateways on this machine use, which stays plain."""
    certificate = server_certificate(settings)
    credentials = certificate.grpc_credentials() if certificate else None
    addresses: list[tuple[str, grpc.ServerCredentials | None]] = [(str(settings.grpc), credentials)]
    if settings.store_socket is not None:
        settings.store_socket.unlink(missing_ok=True)
        addresses.append((f"unix:{settings.store_socket}", None))
    return addresses
