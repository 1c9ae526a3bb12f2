"""Follows the log and has the flusher store what it finds: the life of the flusher process."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter

from runstore.domain.feedback import FeedbackPatch
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunPatch
from runstore.ingest import frames
from runstore.ingest.flusher import Flusher, FlushReport, Prepared
from runstore.ingest.log import LogPosition, LogReader
from runstore.ingest.sequence import accepted_time_us
from runstore.runtime import spans

_MOST_TRACES = 128


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When a flush begins, and how much it takes."""

    interval_ms: int
    max_operations: int
    max_bytes: int


class Demand:
    """What the store process wants of the flusher."""

    def __init__(self) -> None:
        self.end = LogPosition(0, 0, 0)
        """The log is durable up to here."""
        self.wanted_sequence = 0
        """Somebody waits for what is up to this sequence number."""
        self.is_draining = False
        """Everything is to be stored, and then the process ends."""
        self._traces: deque[tuple[int, str]] = deque(maxlen=_MOST_TRACES)
        self._changed = asyncio.Event()

    def traced(self, sequence: int, traceparent: str) -> None:
        """Operations up to this sequence number belong to a span."""
        self._traces.append((sequence, traceparent))

    def take_traces(self, sequence: int) -> list[str]:
        """The spans of operations up to this sequence number, the oldest first; each is told of once."""
        taken = []
        while self._traces and self._traces[0][0] <= sequence:
            taken.append(self._traces.popleft()[1])
        return taken

    def durable(self, end: LogPosition) -> None:
        """The log has grown."""
        self.end = end
        self._changed.set()

    def hurry(self, sequence: int) -> None:
        """Somebody waits."""
        self.wanted_sequence = max(self.wanted_sequence, sequence)
        self._changed.set()

    def drain(self) -> None:
        """Store everything and end."""
        self.is_draining = True
        self._changed.set()

    async def change(self, timeout_s: float | None = None) -> None:
        """Return when anything of it changes, or when the time is over."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()


class Tail:
    """Takes operations from the log in batches: as soon as somebody waits for them, there are enough of them,
    or the oldest has waited long enough. Prepares one batch while the one before it is inserted.

    Lives on one event loop, which it shares with nothing that is in a hurry.
    """

    def __init__(
        self,
        reader: LogReader,
        demand: Demand,
        flusher: Flusher,
        limits: FlushLimits,
        on_stored: Callable[[FlushReport], None],
    ) -> None:
        self._reader = reader
        self._demand = demand
        self._flusher = flusher
        self._limits = limits
        self._on_stored = on_stored
        self._alone: tuple[frames.Alone, int] | None = None
        """Was read, with its bytes in the log, and is to be carried out next."""

    async def run(self) -> None:
        """Return once everything is stored after `Demand.drain`."""
        inserting: asyncio.Task[None] | None = None
        while True:
            if self._alone is not None:
                if inserting is not None:
                    await inserting
                    inserting = None
                await self._carry_out(*self._alone)
                continue
            look_s = self._flusher.next_look_s
            if look_s is not None and look_s <= 0:
                if inserting is not None:
                    await inserting
                    inserting = None
                await self._flusher.look()
                continue
            if self._reader.position.sequence < self._demand.end.sequence:
                await self._gather()
                prepared = await self._prepare()
                if prepared is None:
                    continue
                if inserting is not None:
                    await inserting
                inserting = asyncio.create_task(self._insert(prepared))
                await asyncio.sleep(0)  # It is on its way before the next batch takes the processor.
                if not prepared.awaited:
                    continue
                # What it brings back places runs, which the next batch may be about.
            if inserting is not None:
                await inserting
                inserting = None
            elif self._demand.is_draining:
                return
            else:
                await self._demand.change(look_s)

    async def _gather(self) -> None:
        """Let operations gather while nobody waits for them."""
        give_up_at = time.monotonic() + self._limits.interval_ms / 1_000
        while not self._is_wanted and self._reader.bytes_until(self._demand.end) < self._limits.max_bytes:
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                return
            await self._demand.change(left_s)

    @property
    def _is_wanted(self) -> bool:
        return self._demand.is_draining or self._demand.wanted_sequence > self._reader.position.sequence

    async def _prepare(self) -> Prepared | None:
        """The next batch, up to an operation that stands alone; None when that comes first."""
        started_s = time.perf_counter()
        patches: list[RunPatch] = []
        feedback: list[FeedbackPatch] = []
        size_bytes = 0
        wait_s = 0.0
        last_sequence = self._reader.position.sequence
        for body in self._reader.frames(self._demand.end):
            if not size_bytes:
                wait_s = max(0.0, time.time() - accepted_time_us(self._reader.position.sequence) / 1e6)
            of_runs, of_feedback, alone = frames.decode(body)
            if alone is not None:
                self._alone = (alone, len(body))
                break
            last_sequence = self._reader.position.sequence
            patches += of_runs
            feedback += of_feedback
            size_bytes += len(body)
            operations = len(patches) + len(feedback)
            if size_bytes >= self._limits.max_bytes or operations >= self._limits.max_operations:
                break
        if not size_bytes:
            return None
        # Those that are replayed come with the numbers that they were given long ago.
        patches.sort(key=attrgetter("sequence"))
        report = FlushReport(
            last_sequence,
            len(patches) + len(feedback),
            size_bytes=size_bytes,
            wait_s=wait_s,
            merge_s=time.perf_counter() - started_s,
        )
        traceparents = self._demand.take_traces(last_sequence)
        with spans.below("flush prepare", traceparents, {"runstore.operations": report.operations}):
            prepared = await self._flusher.prepare(patches, report, feedback)
        prepared.traceparents = traceparents
        return prepared

    async def _carry_out(self, operation: frames.Alone, size_bytes: int) -> None:
        """Between what was accepted before and after it: all of the former is stored, none of the latter."""
        started_s = time.perf_counter()
        with spans.below("flush alone", self._demand.take_traces(operation.sequence)):
            if isinstance(operation, TraceKeep):
                await self._flusher.keep(operation)
            else:
                await self._flusher.delete(operation)
        self._alone = None
        report = FlushReport(
            operation.sequence, operations=1, size_bytes=size_bytes, awaited=self._flusher.awaited
        )
        report.insert_s = time.perf_counter() - started_s
        self._on_stored(report)

    async def _insert(self, prepared: Prepared) -> None:
        attributes = {"runstore.runs": prepared.report.runs, "runstore.bytes": prepared.report.size_bytes}
        with spans.below("flush insert", prepared.traceparents, attributes):
            report = await self._flusher.insert(prepared)
        self._on_stored(report)
