"""How the store is, for `AdminService.GetStatus`: gathered from those who know, judged by simple rules."""

import asyncio
import contextlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

import structlog
from prometheus_client import ProcessCollector

from runstore.catalog.catalog import Catalog
from runstore.domain.errors import RunstoreError
from runstore.domain.retention import RetentionProgress, RetentionRules
from runstore.ingest.flusher import STAGES
from runstore.ingest.log import Log
from runstore.ingest.metrics import IngestMetrics, lag_s
from runstore.ingest.visibility import Visibility
from runstore.rpc.admin import deletion_message
from runstore.rpc.mapping import set_time
from runstore.runtime.clock import Clock
from runstore.runtime.flusher_process import FlusherProcess
from runstore.runtime.settings import Settings
from runstore.storage.clickhouse.run_store import ClickHouseRunStore
from runstore.storage.run_store import EngineFigures, StoreUnavailable
from runstore.v1 import admin_service_pb2 as pb

_SAMPLE_INTERVAL_S = 5.0
_ENGINE_INTERVAL_SAMPLES = 3
_ENGINE_PATIENCE_S = 2.0

_MAX_TENANTS = 1_000

# What an operator should not wait for any longer.
_LONGEST_LAG_S = 60.0
_FULLEST_LOG = 0.8
_LONGEST_DELETION_S = 86_400.0
_LEAST_FREE_BYTES = 512 * 1024 * 1024

logger = structlog.get_logger()


class Observer:
    """Looks at the store every few seconds, so that scrapes cost nothing and rates are known."""

    def __init__(self, store: ClickHouseRunStore, metrics: IngestMetrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        # Two intervals: rates are those of the last five to ten seconds.
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=3)
        self._sample()
        self.figures: EngineFigures | None = None
        """What the engine said last."""
        self.figures_us = 0
        """When it did, in microseconds since the epoch."""

    async def run(self) -> None:
        """Look, until cancelled."""
        count = 0
        while True:
            if count % _ENGINE_INTERVAL_SAMPLES == 0:
                await self.ask_engine()
            count += 1
            await asyncio.sleep(_SAMPLE_INTERVAL_S)
            self._sample()

    async def ask_engine(self) -> None:
        """Bring `figures` up to date, if the engine answers soon."""
        try:
            self.figures = await asyncio.wait_for(self._store.figures(), _ENGINE_PATIENCE_S)
            self.figures_us = self._clock.now_us()
        except (StoreUnavailable, TimeoutError) as error:
            logger.debug("engine_figures_unavailable", error=str(error))

    def rates(self) -> tuple[float, float]:
        """Operations acknowledged and operations made readable, per second."""
        began, durable, visible = self._samples[0]
        seconds = max(self._clock.monotonic() - began, 1e-3)
        return (
            (self._metrics.durable_operations - durable) / seconds,
            (self._metrics.visible_operations - visible) / seconds,
        )

    def _sample(self) -> None:
        self._samples.append(
            (self._clock.monotonic(), self._metrics.durable_operations, self._metrics.visible_operations)
        )


class Status:
    """Gathers the status."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        log: Log,
        visibility: Visibility,
        flusher: FlusherProcess,
        metrics: IngestMetrics,
        observer: Observer,
        gateways: Callable[[], Sequence[tuple[str, int]]],
        catalog: Catalog,
    ) -> None:
        """`gateways`: names and pids of those on this machine."""
        self._retention = catalog.retention
        self._tenant_deletions = catalog.tenant_deletions
        self._settings = settings
        self._clock = clock
        self._log = log
        self._visibility = visibility
        self._flusher = flusher
        self._metrics = metrics
        self._observer = observer
        self._gateways = gateways

    async def read(self) -> pb.GetStatusResponse:
        """The status, with figures of the engine as new as it gives them within two seconds."""
        _, gateways = await asyncio.gather(
            self._observer.ask_engine(), asyncio.to_thread(lambda: list(self._gateways()))
        )
        status = pb.GetStatusResponse(
            version=version("runstore"),
            processes=[_process(name, pid) for name, pid in self._processes(gateways)],
            addresses=[str(self._settings.grpc)],
            data_dir=str(self._settings.data_dir),
            disk_free_bytes=shutil.disk_usage(self._settings.data_dir).free,
            auth=self._settings.auth.value,
            blob_store=self._settings.blob_location,
            ingest=self._ingest(),
            engine=self._engine(),
            last_flush=self._last_flush(),
        )
        if self._settings.store_socket is not None:
            status.addresses.append(f"unix:{self._settings.store_socket}")
        if (figures := self._observer.figures) is not None:
            status.dead_letters = figures.dead_letters
            status.parked_operations = figures.parked_operations
            status.deleted_runs = figures.deleted_runs
        status.retention.extend(await self._retentions())
        status.tenant_deletions.extend(await self._deletions())
        status.problems.extend(problems(status))
        return status

    def _processes(self, gateways: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int]]:
        yield "store", os.getpid()
        if self._flusher.pid is not None:
            yield "flusher", self._flusher.pid
        yield from gateways

    def _ingest(self) -> pb.IngestStatus:
        durable_per_second, visible_per_second = self._observer.rates()
        status = pb.IngestStatus(
            durable_per_second=durable_per_second,
            visible_per_second=visible_per_second,
            durable_operations=self._metrics.durable_operations,
            waiting_operations=self._visibility.waiting_operations,
            waiting_bytes=self._visibility.waiting_bytes,
            waiting_max_bytes=self._visibility.max_waiting_bytes,
            log_bytes=self._log.size_bytes,
            log_max_bytes=self._log.max_bytes,
            log_segments=self._log.segments,
            recovering=self._visibility.is_recovering,
            log_error=self._log.last_error,
        )
        status.lag.FromMicroseconds(round(lag_s(self._visibility, self._clock) * 1e6))
        return status

    def _engine(self) -> pb.EngineStatus:
        status = pb.EngineStatus(
            available=not self._visibility.is_engine_away,
            embedded=not self._settings.clickhouse_dsn,
            last_error=self._visibility.last_error,
        )
        if self._visibility.last_error_us:
            set_time(status.last_error_time, self._visibility.last_error_us)
        if (figures := self._observer.figures) is not None:
            status.version = figures.version
            set_time(status.read_time, self._observer.figures_us)
            status.tables.extend(
                pb.TableStatus(
                    name=table.name,
                    parts=table.parts,
                    rows=table.rows,
                    disk_bytes=table.disk_bytes,
                    raw_bytes=table.raw_bytes,
                )
                for table in figures.tables
            )
        return status

    async def _retentions(self) -> list[pb.TenantRetention]:
        """Of every tenant that has a rule or was ever swept, as far as the catalog answers."""
        try:
            rules = await self._retention.rules(self._settings.retention)
            progress = {each.tenant_id: each for each in await self._retention.progress()}
        except RunstoreError as error:
            logger.warning("retention_unknown", error=error.message)
            return []
        tenants = {*rules.tenants, *(tenant_id for tenant_id, _ in rules.projects), *progress}
        return [
            _tenant_retention(tenant_id, rules, progress.get(tenant_id))
            for tenant_id in sorted(tenants)[:_MAX_TENANTS]
        ]

    async def _deletions(self) -> list[pb.TenantDeletion]:
        """Those that are not over, as far as the catalog answers."""
        try:
            pending = await self._tenant_deletions.pending()
        except RunstoreError as error:
            logger.warning("deletions_unknown", error=error.message)
            return []
        return [deletion_message(each) for each in pending[:_MAX_TENANTS]]

    def _last_flush(self) -> pb.FlushStatus | None:
        report = self._flusher.last_report
        if report is None:
            return None
        status = pb.FlushStatus(
            operations=report.operations,
            runs=report.runs,
            size_bytes=report.size_bytes,
            stage_seconds={stage: getattr(report, f"{stage}_s") for stage in STAGES},
        )
        set_time(status.end_time, self._flusher.last_flush_us)
        return status


def problems(status: pb.GetStatusResponse) -> Iterator[str]:
    """What an operator should know at once, one sentence each."""
    ingest, engine = status.ingest, status.engine
    if not engine.available:
        yield f"the engine takes nothing at the moment: {engine.last_error}"
    if ingest.log_error:
        yield f"the log cannot be written: {ingest.log_error}"
    if ingest.log_bytes > _FULLEST_LOG * ingest.log_max_bytes:
        share = ingest.log_bytes / ingest.log_max_bytes
        yield f"the log is {share:.0%} full; at 100 % every write is refused"
    lag = ingest.lag.ToTimedelta().total_seconds()
    if lag > _LONGEST_LAG_S and not ingest.recovering:
        yield f"operations wait for {lag:.0f} s to become readable"
    if status.disk_free_bytes < _LEAST_FREE_BYTES:
        yield f"only {status.disk_free_bytes // 2**20} MiB are free on the disk of {status.data_dir}"
    if not any(process.name == "flusher" for process in status.processes):
        yield "the flusher process is not running"
    for deletion in status.tenant_deletions:
        if time.time() - deletion.delete_time.ToSeconds() > _LONGEST_DELETION_S:
            yield f"the deleted tenant {deletion.name} is not removed yet: {deletion.waits_for}"


def _tenant_retention(
    tenant_id: str, rules: RetentionRules, progress: RetentionProgress | None
) -> pb.TenantRetention:
    retention = rules.of(tenant_id, None)
    message = pb.TenantRetention(
        tenant_id=tenant_id,
        days=retention.days,
        kept_days=retention.kept_days,
        project_rules=len(rules.projects_of(tenant_id)),
    )
    if progress is not None:
        message.freed_rows, message.freed_bytes = progress.rows, progress.bytes
        if progress.oldest_us is not None:
            set_time(message.oldest_time, progress.oldest_us)
        if progress.swept_at_us:
            set_time(message.sweep_time, progress.swept_at_us)
    return message


def _process(name: str, pid: int) -> pb.Process:
    """What the operating system says of a process, as far as it does."""
    message = pb.Process(name=name, pid=pid)
    with contextlib.suppress(OSError):
        for family in ProcessCollector(pid=lambda: pid, registry=None).collect():
            value = family.samples[0].value
            match family.name:
                case "process_resident_memory_bytes":
                    message.resident_bytes = int(value)
                case "process_start_time_seconds":
                    set_time(message.start_time, round(value * 1e6))
                case "process_cpu_seconds":
                    message.cpu_time.FromMicroseconds(round(value * 1e6))
    return message
