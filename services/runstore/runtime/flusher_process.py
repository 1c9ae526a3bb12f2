"""Keeps the flusher process of a store running, and the store's end of the link to it."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from runstore.ingest.flush_pause import FlushPause
from runstore.ingest.flusher import FlushReport
from runstore.ingest.link import Drain, Durable, Hurry, StoreEnd, Traced
from runstore.ingest.log import Log, LogPosition
from runstore.ingest.metrics import IngestMetrics
from runstore.ingest.peers import Peers
from runstore.ingest.purge import Purge
from runstore.ingest.visibility import Visibility
from runstore.runtime.child import Backoff
from runstore.runtime.progress import Amounts, ProgressBar
from runstore.runtime.settings import Settings
from runstore.storage.clickhouse.run_store import ClickHouseRunStore

_COMMAND = (sys.executable, "-m", "runstore.runtime.cli", "flusher")
_BACKOFF = Backoff()

logger = structlog.get_logger()


class FlusherProcess:
    """One process that stores what the log holds; started again whenever it ends, because the log forgets
    nothing before it is stored."""

    def __init__(self, settings: Settings, metrics: IngestMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.last_report: FlushReport | None = None
        """Of the flush that ended last in the life of this store process."""
        self.last_flush_us = 0
        """When it ended, in microseconds since the epoch."""
        self.pause = FlushPause()
        self._link: StoreEnd | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._is_draining = False
        self._has_given_up = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None between two."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def durable(self, end: LogPosition) -> None:
        """The log is durable up to here."""
        self._tell(Durable(end))

    def hurry(self, sequence: int) -> None:
        """Somebody waits for what is up to this sequence number."""
        self._tell(Hurry(sequence))

    def traced(self, sequence: int, traceparent: str) -> None:
        """Operations up to this sequence number belong to a span."""
        self._tell(Traced(sequence, traceparent))

    def start(
        self, store: ClickHouseRunStore, purge: Purge, log: Log, visibility: Visibility, peers: Peers
    ) -> None:
        """Move from `log` to `store` from now on, and keep the log, `visibility` and `peers` informed."""
        recovered_sequence = log.last_sequence if log.has_unflushed else 0
        recovered_bytes = log.size_bytes
        recovery = ProgressBar("Replaying the log", amounts=Amounts.BYTES)
        done_bytes = 0

        async def on_stored(report: FlushReport) -> None:
            nonlocal recovered_sequence, done_bytes
            self.last_report, self.last_flush_us = report, time.time_ns() // 1_000
            self._metrics.flushed(report)
            log.trim(report.last_sequence)
            await self.pause.ended()
            await visibility.stored(report.last_sequence, report.awaited)
            peers.stored()
            if recovered_sequence:
                done_bytes = min(done_bytes + report.size_bytes, recovered_bytes)
                if not recovery.update(done_bytes, recovered_bytes):
                    logger.info(
                        "log_replay",
                        operations=report.operations,
                        bytes_done=done_bytes,
                        bytes_total=recovered_bytes,
                    )
                if report.last_sequence >= recovered_sequence:
                    recovered_sequence = 0
                    recovery.finish()
                    logger.info("log_replayed", bytes_total=recovered_bytes)

        async def on_retry(error: str) -> None:
            self._metrics.engine_retried()
            await visibility.engine_away(error)

        reads: dict[str, Callable[..., Awaitable[Any]]] = {
            "places": store.places,
            "moved_runs": store.moved_runs,
            "awaited_runs": store.awaited_runs,
            "parked": store.parked,
            "pending_deletions": store.pending_deletions,
        }
        writes: dict[str, Callable[..., Awaitable[Any]]] = {
            "append": store.insert,
            "park": store.park,
            "unpark": store.unpark,
            "bury": store.bury,
            "append_feedback": store.append_feedback,
            "bury_feedback": store.bury_feedback,
            "delete": store.delete,
            "keep": store.keep,
            "purge_deleted": purge.purge_deleted,
        }
        methods = reads | {name: self.pause.writing(write) for name, write in writes.items()}
        self._link = StoreEnd(methods, on_stored=on_stored, on_retry=on_retry)
        self._task = asyncio.create_task(self._run(self._link, log, visibility))

    async def drain(self, timeout_s: float) -> bool:
        """Store all that is durable and end the process; False when there was not the time for it."""
        self._is_draining = True
        self._tell(Drain())
        if self._task is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._task)
                return True
        self._has_given_up = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._task
        return False

    def _tell(self, message: Durable | Hurry | Traced | Drain) -> None:
        if self._link is not None:
            self._link.send(message)

    def _greeting(self, log: Log) -> list[Durable | Hurry | Drain]:
        """What a new process must know. Readers may have asked the one before it to hurry."""
        greeting: list[Durable | Hurry | Drain] = [Durable(log.end), Hurry(log.end.sequence)]
        return [*greeting, Drain()] if self._is_draining else greeting

    async def _run(self, link: StoreEnd, log: Log, visibility: Visibility) -> None:
        pause_s = _BACKOFF.first_s
        while not self._has_given_up:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *_COMMAND,
                    "--fd",
                    str(theirs.fileno()),
                    env=self._settings.environment(),
                    pass_fds=(theirs.fileno(),),
                    # Out of reach of the terminal's Ctrl-C: it ends after its store.
                    start_new_session=True,
                )
            started_s = time.monotonic()
            await link.serve(ours, greeting=lambda: self._greeting(log))
            status = await self._process.wait()
            if status == 0 and self._is_draining:
                return
            self._metrics.flusher_ended()
            logger.warning(
                "flusher_ended", status=status, hint="restarting; the log has what it had not stored"
            )
            await visibility.engine_away("the flusher process ended")
            if time.monotonic() - started_s >= _BACKOFF.forgotten_after_s:
                pause_s = _BACKOFF.first_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _BACKOFF.longest_s)
