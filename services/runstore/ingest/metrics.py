"""Counts what happens to operations on their way in, for Prometheus; docs/operations.md explains each name.

No label names a tenant, a project or a run: their number has no bound.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.retention import Freed
from runstore.ingest.flusher import STAGES, FlushReport
from runstore.ingest.log import Log
from runstore.ingest.sequence import accepted_time_us
from runstore.ingest.visibility import Visibility
from runstore.runtime.clock import Clock

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BYTES: Final = tuple(float(4**power) for power in range(5, 15))
_RUNS: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)

QUEUE_FULL: Final = "queue_full"
"""Why a write was refused: too much waits for the engine."""
LOG_FULL: Final = "log_full"
"""Why a write was refused: the log is at its limit."""
LOG_UNWRITABLE: Final = "log_unwritable"
"""Why a write was refused: the disk refuses, or the store is stopping."""


class IngestMetrics:
    """The counters of ingest, filled by those who know."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.durable_operations = 0
        """Acknowledged by this process."""
        self.visible_operations = 0
        """Stored during the life of this process."""
        self._count_operations(registry)
        self._count_back_pressure(registry)
        self._count_log(registry)
        self._count_flushes(registry)

    def _count_operations(self, registry: CollectorRegistry) -> None:
        self._refused = Counter(
            "runstore_operations_refused",
            "Operations that validation refused.",
            ["reason"],
            registry=registry,
        )
        self._accepted = Counter(
            "runstore_operations_accepted", "Operations handed to the log.", registry=registry
        )
        self._durable = Counter(
            "runstore_operations_durable", "Operations that were acknowledged.", registry=registry
        )
        self._visible = Counter(
            "runstore_operations_visible", "Operations that the engine has taken.", registry=registry
        )
        self._acknowledge_seconds = Histogram(
            "runstore_acknowledge_seconds",
            "Seconds from a batch's validation to its acknowledgement.",
            buckets=_SECONDS,
            registry=registry,
        )

    def _count_back_pressure(self, registry: CollectorRegistry) -> None:
        self._pushed_back = Counter(
            "runstore_back_pressure_refusals",
            "Batches refused whole, to be sent again later.",
            ["cause"],
            registry=registry,
        )
        for cause in (QUEUE_FULL, LOG_FULL, LOG_UNWRITABLE):
            self._pushed_back.labels(cause)
        self._pauses = Counter(
            "runstore_stream_pauses",
            "Times that a stream was not read on for want of room.",
            registry=registry,
        )
        self._pause_seconds = Counter(
            "runstore_stream_pause_seconds", "Seconds that streams were not read on.", registry=registry
        )

    def _count_log(self, registry: CollectorRegistry) -> None:
        self._group_bytes = Histogram(
            "runstore_log_group_bytes", "Bytes written and synced at once.", buckets=_BYTES, registry=registry
        )
        self._group_seconds = Histogram(
            "runstore_log_group_seconds",
            "Seconds to write and sync a group.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._write_failures = Counter(
            "runstore_log_write_failures", "Groups that the disk refused.", registry=registry
        )

    def _count_flushes(self, registry: CollectorRegistry) -> None:
        self._flush_runs = Histogram(
            "runstore_flush_runs", "Runs in a flush.", buckets=_RUNS, registry=registry
        )
        self._flush_bytes = Histogram(
            "runstore_flush_bytes", "Bytes of operations in a flush.", buckets=_BYTES, registry=registry
        )
        self._flush_seconds = Histogram(
            "runstore_flush_stage_seconds",
            "Seconds that a flush spent in a stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        for stage in STAGES:
            self._flush_seconds.labels(stage)
        self._buried = Counter(
            "runstore_dead_letters_buried", "Operations that became dead letters.", registry=registry
        )
        self._parked = Counter(
            "runstore_operations_parked", "Operations set aside until another run comes.", registry=registry
        )
        self._retries = Counter(
            "runstore_engine_retries", "Times that the engine was asked again.", registry=registry
        )
        self._restarts = Counter(
            "runstore_flusher_restarts", "Times that the flusher process ended unasked.", registry=registry
        )

    # -- what happens ----------------------------------------------------------------------------

    def refused(self, error: RunstoreError) -> None:
        """Validation has refused an operation."""
        self._refused.labels(error.reason.name).inc()

    def accepted(self, operations: int) -> None:
        """A batch goes to the log."""
        self._accepted.inc(operations)

    def acknowledged(self, operations: int, seconds: float) -> None:
        """A batch is durable."""
        self.durable_operations += operations
        self._durable.inc(operations)
        self._acknowledge_seconds.observe(seconds)

    def pushed_back(self, cause: str) -> None:
        """A batch was refused whole: `QUEUE_FULL`, `LOG_FULL` or `LOG_UNWRITABLE`."""
        self._pushed_back.labels(cause).inc()

    def log_refused(self, error: RunstoreError) -> None:
        """The log did not take a batch."""
        self.pushed_back(LOG_FULL if error.reason is ErrorReason.OVERLOADED else LOG_UNWRITABLE)

    def paused(self, seconds: float) -> None:
        """A stream was not read on for a while."""
        self._pauses.inc()
        self._pause_seconds.inc(seconds)

    def logged(self, size_bytes: int, seconds: float) -> None:
        """A group is durable."""
        self._group_bytes.observe(size_bytes)
        self._group_seconds.observe(seconds)

    def log_failed(self) -> None:
        """The disk has refused a group."""
        self._write_failures.inc()

    def flushed(self, report: FlushReport) -> None:
        """A flush has ended."""
        self.visible_operations += report.operations
        self._visible.inc(report.operations)
        self._flush_runs.observe(report.runs)
        self._flush_bytes.observe(report.size_bytes)
        for stage in STAGES:
            self._flush_seconds.labels(stage).observe(getattr(report, f"{stage}_s"))
        self._buried.inc(report.dead_letters)
        self._parked.inc(report.parked)

    def engine_retried(self) -> None:
        """The engine could not take something and is asked again."""
        self._retries.inc()

    def flusher_ended(self) -> None:
        """The flusher process has ended and is started again."""
        self._restarts.inc()

    # -- what is ---------------------------------------------------------------------------------

    def watch(self, log: Log, visibility: Visibility, clock: Clock) -> None:
        """Show the state of these, read anew for every scrape."""
        gauges = {
            "runstore_log_bytes": (
                "Bytes in the log that the engine does not have yet.",
                lambda: log.size_bytes,
            ),
            "runstore_log_max_bytes": ("Limit of the log.", lambda: log.max_bytes),
            "runstore_log_segments": ("Files of the log.", lambda: log.segments),
            "runstore_waiting_operations": (
                "Acknowledged operations that cannot be read yet.",
                lambda: visibility.waiting_operations,
            ),
            "runstore_waiting_bytes": (
                "Bytes of acknowledged operations that cannot be read yet.",
                lambda: visibility.waiting_bytes,
            ),
            "runstore_waiting_max_bytes": (
                "Limit of the bytes that wait while the engine works.",
                lambda: visibility.max_waiting_bytes,
            ),
            "runstore_lag_seconds": (
                "Age of the oldest acknowledged operation that cannot be read yet; 0 when there is none.",
                lambda: lag_s(visibility, clock),
            ),
            "runstore_engine_up": (
                "1 while the engine takes what it is given, 0 while it is away.",
                lambda: not visibility.is_engine_away,
            ),
        }
        for name, (help_text, read) in gauges.items():
            Gauge(name, help_text, registry=self._registry).set_function(read)


class RetentionMetrics:
    """What retention has deleted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = Counter(
            "runstore_retention_freed_rows", "Rows of runs that have expired, deleted.", registry=registry
        )
        self._bytes = Counter(
            "runstore_retention_freed_bytes",
            "Bytes on disk of what has expired, estimated by the number of rows.",
            registry=registry,
        )
        self._sweeps = Counter(
            "runstore_retention_sweeps", "Sweeps for what has expired.", ["outcome"], registry=registry
        )
        self._last_sweep = Gauge(
            "runstore_retention_last_sweep_timestamp_seconds",
            "When this process ended a sweep without a failure the last time; 0 when it never did.",
            registry=registry,
        )

    def freed(self, freed: Freed) -> None:
        """A step of a sweep has ended."""
        self._rows.inc(freed.rows)
        self._bytes.inc(freed.bytes)

    def swept(self, outcome: str) -> None:
        """A sweep has ended: `done`, `postponed` because something is away, or `failed`."""
        self._sweeps.labels(outcome).inc()
        if outcome == "done":
            self._last_sweep.set_to_current_time()


def lag_s(visibility: Visibility, clock: Clock) -> float:
    """Seconds since the oldest operation was acknowledged that cannot be read yet; 0 when there is none."""
    oldest = visibility.oldest_waiting_sequence
    if oldest is None:
        return 0.0
    return max(0.0, (clock.now_us() - accepted_time_us(oldest)) / 1e6)
