"""What is fuzzed: the real gateway in front of the real store, down to the blocks that the engine would get.

The gateway is called as the HTTP server calls it, and reaches the store over a socket. Only two things are
not the real ones: the log, which keeps nothing, and the engine, which takes every block.
"""

import asyncio
import logging
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import grpc
import msgspec
import structlog
from prometheus_client import CollectorRegistry
from tests.fuzz.case import Case

from runstore.catalog.catalog import open_catalog
from runstore.domain.deletions import PendingDeletions, RunDeletion
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.prices import PriceBook
from runstore.domain.rate_limits import RateLimiter, TenantLimits
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunMove, RunPatch, RunPlace, RunRow
from runstore.gateway.app import create_app
from runstore.gateway.bodies import BodyLimits
from runstore.gateway.metrics import GatewayMetrics
from runstore.gateway.store_client import CHANNEL_OPTIONS, StoreClient
from runstore.ingest import frames
from runstore.ingest.flusher import Flusher, FlushReport
from runstore.ingest.ingest_feedback import IngestFeedback
from runstore.ingest.ingest_runs import IngestRuns
from runstore.ingest.log import Log
from runstore.ingest.metrics import IngestMetrics
from runstore.ingest.offload import Offload
from runstore.ingest.placement import Placer
from runstore.ingest.sequence import Sequence as SequenceNumbers
from runstore.ingest.unused_blobs import UnusedBlobs
from runstore.ingest.uploads import UploadLimits, Uploads
from runstore.ingest.visibility import Visibility
from runstore.query.read_feedback import ReadFeedback
from runstore.query.read_tokens import ReadTokens
from runstore.rpc.admin import AdminServicer
from runstore.rpc.agent_services import AgentServicers
from runstore.rpc.authentication import NoAuthentication
from runstore.rpc.blobs import BlobServicer
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.catalog_services import CatalogServicers
from runstore.rpc.comparative_experiments import ComparativeExperimentServicer
from runstore.rpc.dataset_sharing import DatasetSharingServicer, SharedDatasetServicer
from runstore.rpc.datasets import DatasetServicer
from runstore.rpc.example_search import ExampleSearchServicer
from runstore.rpc.examples import ExampleServicer
from runstore.rpc.feedback import FeedbackServicer
from runstore.rpc.filters import FilterServicer
from runstore.rpc.interceptor import CallInterceptor
from runstore.rpc.projects import ProjectServicer
from runstore.rpc.run_deletion import RunDeletionServicer
from runstore.rpc.run_ingest import RunIngestServicer
from runstore.rpc.run_query import RunQueryServicer
from runstore.rpc.run_stats import RunStatsServicer
from runstore.rpc.server import StoreServer
from runstore.rpc.thread_query import ThreadQueryServicer
from runstore.rpc.trace_query import TraceQueryServicer
from runstore.runtime.clock import SystemClock
from runstore.storage.blobs import BlobStore, open_blob_store
from runstore.storage.clickhouse.blocks import BlockBuilder
from runstore.storage.clickhouse.feedback import feedback_row
from runstore.storage.run_store import Block, FeedbackStore

_MIB = 1024 * 1024
LIMITS = BodyLimits(
    max_body_bytes=4 * _MIB,
    max_decompressed_bytes=32 * _MIB,
    max_decompression_ratio=1_000,
    max_memory_bytes=64 * _MIB,
    max_payload_bytes=16 * _MIB,
    max_attachment_bytes=16 * _MIB,
)
_WRITE_RUNS = "/runstore.v1.RunIngestService/WriteRuns"
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_STREAM_RUNS = "/runstore.v1.RunIngestService/StreamRuns"
_FLUSHED_OPERATIONS = 400
_OFFLOADED_BYTES = 10_000
_CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int = 0
    """Of HTTP; 0 when there was no answer, which only a client that went away may see."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    replies: tuple[bytes, ...] = ()
    """Of gRPC."""
    code: grpc.StatusCode | None = None
    """Of gRPC."""
    text: str = ""
    """Of a gRPC error."""


class Target:
    """One gateway and one store. See `open_target`."""

    def __init__(
        self,
        app: Any,
        channel: Any,
        log: "_Log",
        engine: "_Engine",
        blobs: BlobStore,
        defects: list[str],
    ) -> None:
        """`channel`: its stubs do not know that bytes need no serializer."""
        self._app = app
        self._write = channel.unary_unary(_WRITE_RUNS)
        self._export = channel.unary_unary(_EXPORT)
        self._stream = channel.stream_stream(_STREAM_RUNS)
        self._log = log
        self._engine = engine
        self._defects = defects
        offload = Offload(blobs, payload_bytes=_OFFLOADED_BYTES, attachment_bytes=_OFFLOADED_BYTES)
        self._flusher = Flusher(engine, Placer(engine), PriceBook(), {}, offload, engine.purge_deleted)
        self._unflushed: list[RunPatch] = []

    async def send(self, case: Case) -> Answer:
        """The answer to one request."""
        if case.path:
            return await self._http(case)
        return await self._grpc(case)

    def take_accepted(self) -> list[RunPatch]:
        """Operations that were made durable since the last call."""
        accepted, self._log.accepted = self._log.accepted, []
        return accepted

    def take_defects(self) -> list[str]:
        """Errors that were logged, and operations that were accepted and could not be stored."""
        found = [*self._defects, *self._engine.buried]
        self._defects.clear()
        self._engine.buried.clear()
        return found

    async def store(self, patches: Sequence[RunPatch], *, at_once: bool = False) -> None:
        """Build what the engine would get, when there is enough of it."""
        self._unflushed += patches
        if self._unflushed and (at_once or len(self._unflushed) >= _FLUSHED_OPERATIONS):
            patches, self._unflushed = self._unflushed, []
            feedback, self._log.accepted_feedback = self._log.accepted_feedback, []
            report = FlushReport(last_sequence=patches[-1].sequence, operations=len(patches))
            await self._flusher.insert(await self._flusher.prepare(patches, report, feedback))

    async def _http(self, case: Case) -> Answer:
        chunks = [case.body[at : at + _CHUNK_BYTES] for at in range(0, len(case.body), _CHUNK_BYTES)] or [b""]
        incoming: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks) or case.disconnects}
            for number, chunk in enumerate(chunks, 1)
        ]
        incoming.append({"type": "http.disconnect"})
        incoming.reverse()
        answer = Answer()
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return incoming.pop() if len(incoming) > 1 else incoming[0]

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {key.decode().lower(): value.decode() for key, value in message["headers"]}
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": case.method, "path": case.path, "raw_path": case.path.encode(), "root_path": "",
            "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in case.headers],
        }  # fmt: skip
        await self._app(scope, receive, send)
        answer.body = b"".join(parts)
        return answer

    async def _grpc(self, case: Case) -> Answer:
        while True:
            answer = await self._grpc_once(case)
            # The client library's own: the call had ended while it was still sending.
            if answer.text != "Internal error from Core":
                return answer

    async def _grpc_once(self, case: Case) -> Answer:
        replies: list[bytes] = []
        try:
            if case.kind == "stream":
                async for reply in self._stream(iter(case.messages), timeout=60):
                    replies.append(reply)  # noqa: PERF401 - those before an error count
            else:
                call = self._export if case.kind == "otlp grpc" else self._write
                replies.append(await call(case.messages[0], timeout=60))
        except grpc.aio.AioRpcError as error:
            return Answer(replies=tuple(replies), code=error.code(), text=error.details() or "")
        return Answer(replies=tuple(replies), code=grpc.StatusCode.OK)


class _Log:
    """Calls durable what it only remembers."""

    has_room = True

    def __init__(self) -> None:
        self.accepted: list[RunPatch] = []
        self.accepted_feedback: list[FeedbackPatch] = []
        self.visibility: Visibility | None = None

    async def append(self, body: bytes, last_sequence: int, on_durable: Any) -> None:
        of_runs, of_feedback, _ = frames.decode(body)
        self.accepted += of_runs
        self.accepted_feedback += of_feedback
        on_durable()
        assert self.visibility is not None
        await self.visibility.stored(last_sequence)

    async def wait_for_room(self) -> None:
        """There always is."""


class _Engine:
    """A `RunWriter` that has room for everything and remembers what it is told to bury."""

    def __init__(self, folder: Path) -> None:
        self._blocks = BlockBuilder(folder)
        self.buried: list[str] = []

    def block(self, rows: Sequence[RunRow], /) -> Block:
        return self._blocks.build(rows)

    async def append(self, block: Block, moves: Sequence[RunMove], /) -> None:
        self._blocks.stored(block)

    async def delete(self, deletion: RunDeletion, /) -> list[str]:
        return []

    async def keep(self, keep: TraceKeep, /) -> None: ...

    async def pending_deletions(self, tenant_id: str, run_ids: Collection[str], /) -> PendingDeletions:
        return PendingDeletions(are_any=False, sequences={})

    async def purge_deleted(self) -> None:
        """There are none."""

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        return {}

    async def moved_runs(self) -> set[tuple[str, str]]:
        return set()

    async def park(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        msgspec.msgpack.encode(patches)

    async def awaited_runs(self) -> Mapping[tuple[str, str], int]:
        return {}

    async def parked(self, awaited: Collection[tuple[str, str]], /) -> Sequence[tuple[str, RunPatch]]:
        return []

    async def unpark(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        """Nothing was kept."""

    async def append_feedback(self, patches: Sequence[FeedbackPatch], /) -> None:
        for patch in patches:
            row = feedback_row(patch)
            assert all(isinstance(value, str | bytes | int | float | datetime | None) for value in row)
            # As the engine reads them.
            uuid.UUID(patch.feedback_id)
            uuid.UUID(patch.run_id or patch.project_id)

    async def bury_feedback(self, patches: Sequence[FeedbackPatch], reason: str, /) -> None:
        await self.bury(patches, reason)

    async def bury(self, patches: Sequence[RunPatch | FeedbackPatch], reason: str, /) -> None:
        self.buried += [f"accepted, but cannot be stored: {reason}: {patch!r:.2000}" for patch in patches]


class _Absent:
    """A servicer that is never called: reads are not fuzzed."""

    def __getattr__(self, method: str) -> Any:
        return None


class _AbsentServices:
    """Services that are not served."""

    def register(self, server: object) -> None:
        pass


@asynccontextmanager
async def open_target() -> AsyncIterator[Target]:
    """A target in this process, with its files in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="runstore-fuzz-"))
    clock = SystemClock()
    try:
        async with AsyncExitStack() as stack:
            defects = stack.enter_context(_watched_logs())
            catalog = await stack.enter_async_context(
                open_catalog(f"sqlite:///{folder / 'catalog.sqlite'}", clock)
            )
            log = _Log()
            visibility = log.visibility = Visibility(
                stored_sequence=0, last_sequence=0, max_waiting_bytes=1 << 30
            )
            registry = CollectorRegistry()
            metrics = IngestMetrics(registry)
            ingest = IngestRuns(
                catalog.projects, SequenceNumbers(clock), cast("Log", log), visibility, metrics
            )
            engine = _Engine(folder / "blocks")
            blobs = open_blob_store(str(folder / "blobs"))
            uploads = Uploads(
                blobs,
                UnusedBlobs(blobs, cast("Any", engine), cast("Any", visibility), clock),
                folder,
                await catalog.secret("upload_tokens"),
                clock,
                UploadLimits(LIMITS.max_payload_bytes, LIMITS.max_attachment_bytes),
            )
            read_tokens = ReadTokens(await catalog.secret("read_tokens"), clock)
            limiter = RateLimiter(TenantLimits(), catalog.tenant_limits, clock)
            server = StoreServer(
                ingest=RunIngestServicer(ingest, visibility, uploads, metrics, limiter),
                query=cast("RunQueryServicer", _Absent()),
                traces=cast("TraceQueryServicer", _Absent()),
                threads=cast("ThreadQueryServicer", _Absent()),
                feedback=FeedbackServicer(
                    IngestFeedback(
                        catalog.projects, ingest, cast("FeedbackStore", _Absent()), visibility, clock
                    ),
                    cast("ReadFeedback", _Absent()),
                    limiter,
                ),
                filters=cast("FilterServicer", _Absent()),
                stats=cast("RunStatsServicer", _Absent()),
                deletion=cast("RunDeletionServicer", _Absent()),
                projects=cast("ProjectServicer", _Absent()),
                catalog=cast("CatalogServicers", _AbsentServices()),
                agents=cast("AgentServicers", _AbsentServices()),
                admin=cast("AdminServicer", _Absent()),
                blobs=BlobServicer(uploads, blobs, cast("Any", engine), read_tokens, catalog.keys),
                interceptors=[CallInterceptor(NoAuthentication(), CallMetrics(registry))],
                datasets=cast("DatasetServicer", _Absent()),
                examples=cast("ExampleServicer", _Absent()),
                example_search=cast("ExampleSearchServicer", _Absent()),
                dataset_sharing=cast("DatasetSharingServicer", _Absent()),
                shared_datasets=cast("SharedDatasetServicer", _Absent()),
                comparative_experiments=cast("ComparativeExperimentServicer", _Absent()),
            )
            address = f"unix:{folder / 'store.sock'}"
            await server.start([(address, None)])
            async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
                gateway_metrics = GatewayMetrics("gateway", None)
                app = create_app(StoreClient(channel, patience_s=5), LIMITS, clock.now_us, gateway_metrics)
                yield Target(app, channel, log, engine, blobs, defects)
            await server.stop(1)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _watched_logs() -> Iterator[list[str]]:
    """Everything that is logged as an error meanwhile, by whichever library."""
    defects: list[str] = []

    def keep(_logger: Any, method: str, event: Any) -> Any:
        if method in ("error", "critical", "exception") or event.get("exception"):
            defects.append(f"logged: {repr(event)[-1_500:]}")
        raise structlog.DropEvent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            defects.append(f"logged by {record.name}: {self.format(record)[-1_500:]}")

    def report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Clients that other tests left open are closed by the collector, in whatever loop is running then.
        if str(context.get("exception")) != "Event loop is closed":
            defects.append(f"event loop: {context!r:.2000}")

    handler, configured = Handler(logging.ERROR), structlog.get_config()
    structlog.configure(processors=[structlog.processors.format_exc_info, keep])
    logging.getLogger().addHandler(handler)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    try:
        yield defects
    finally:
        loop.set_exception_handler(None)
        logging.getLogger().removeHandler(handler)
        structlog.configure(**configured)
