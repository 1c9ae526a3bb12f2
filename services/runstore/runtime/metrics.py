"""The registry of a store process."""

import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runstore.catalog.metrics import CatalogMetrics
from runstore.ingest.metrics import IngestMetrics, RetentionMetrics
from runstore.rpc.call_metrics import CallMetrics
from runstore.runtime.backup.last import last_backup_s
from runstore.runtime.cache_metrics import CacheCollector
from runstore.runtime.settings import Settings
from runstore.runtime.tls import watch_certificate
from runstore.storage.metrics import StorageMetrics
from runstore.storage.run_store import EngineFigures


class StoreMetrics:
    """All that the store process counts."""

    def __init__(self, settings: Settings) -> None:
        data_dir, certificate = settings.data_dir, settings.tls_certificate
        # When a series began says nothing here, and doubles their number.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.ingest = IngestMetrics(self.registry)
        self.calls = CallMetrics(self.registry)
        self.retention = RetentionMetrics(self.registry)
        self.storage = StorageMetrics(self.registry)
        self.catalog = CatalogMetrics(self.registry)
        self.registry.register(CacheCollector())
        ProcessCollector(registry=self.registry)
        build = Gauge(
            "runstore_build_info", "What runs here; always 1.", ["version", "python"], registry=self.registry
        )
        build.labels(version("runstore"), platform.python_version()).set(1)
        for name, help_text, read in (
            ("free", "Bytes free on the disk of the data folder.", lambda: shutil.disk_usage(data_dir).free),
            ("size", "Bytes of the disk of the data folder.", lambda: shutil.disk_usage(data_dir).total),
        ):
            Gauge(f"runstore_disk_{name}_bytes", help_text, registry=self.registry).set_function(read)
        last_backup = Gauge(
            "runstore_backup_timestamp_seconds",
            "When the last backup through this store was begun; 0 when there was none.",
            registry=self.registry,
        )
        last_backup.set_function(lambda: last_backup_s(data_dir))
        if certificate is not None:
            watch_certificate(certificate, self.registry)

    def watch_flusher(self, pid: Callable[[], int | None]) -> None:
        """Show memory and processor time of the flusher process, as `runstore_flusher_process_…`."""
        # Without a process there is no such folder below /proc, and nothing to show.
        ProcessCollector("runstore_flusher", lambda: pid() or "none", registry=self.registry)

    def watch_engine(self, figures: Callable[[], EngineFigures | None]) -> None:
        """Show what the engine holds, as far as it was asked last."""
        self.registry.register(_EngineCollector(figures))

    def exposition(self) -> bytes:
        """Everything, as text in Prometheus' format."""
        return prometheus_client.generate_latest(self.registry)


class _EngineCollector(Collector):
    """Turns the figures of the engine into gauges, one series for each of our tables."""

    def __init__(self, figures: Callable[[], EngineFigures | None]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        if figures is None:
            return
        yield GaugeMetricFamily(
            "runstore_dead_letters", "Dead letters that wait for an operator.", figures.dead_letters
        )
        yield GaugeMetricFamily(
            "runstore_parked_operations",
            "Operations that wait for another run to come.",
            figures.parked_operations,
        )
        yield GaugeMetricFamily(
            "runstore_deleted_runs", "Deleted runs that are not purged yet.", figures.deleted_runs
        )
        for name, help_text in (
            ("rows", "Rows that a table holds, those included that are not merged yet."),
            ("parts", "Active parts of a table."),
            ("disk_bytes", "Bytes of a table on disk, indexes included."),
            ("raw_bytes", "Bytes of a table before compression."),
        ):
            family = GaugeMetricFamily(f"runstore_engine_table_{name}", help_text, labels=["table"])
            for table in figures.tables:
                family.add_metric([table.name], getattr(table, name))
            yield family
