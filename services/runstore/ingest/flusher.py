"""Moves durable operations from memory into the engine, and says what is visible.

Operations gather until there are enough of them, the oldest has waited long enough, or a reader
asks; then they are merged per run, placed, derived from and stored in one go. An engine that is
away is retried for ever; one that refuses a block gets it in halves until the operation at fault is
alone, which becomes a dead letter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import msgspec
import structlog
import tenacity

from runstore.domain.prices import PriceBook
from runstore.domain.runs import RunPatch, RunPlace, RunRow
from runstore.ingest.derive import NO_FACTS, derive
from runstore.ingest.placement import Placement, Placer, RunRef
from runstore.storage.run_store import BlockRefused, RunStore, StoreUnavailable

logger = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When a flush begins, and how much it takes."""

    interval_ms: int
    max_runs: int
    max_bytes: int


class Flusher:
    """Owns the operations that are durable but not yet stored. Lives on one event loop."""

    def __init__(
        self,
        store: RunStore,
        placer: Placer,
        prices: PriceBook,
        limits: FlushLimits,
        awaited: dict[RunRef, int],
        on_stored: Callable[[int], None],
    ) -> None:
        """`awaited`: the runs that parked patches wait for. `on_stored` is told the sequence number
        up to which everything is stored, after each flush."""
        self._store = store
        self._placer = placer
        self._prices = prices
        self._limits = limits
        self._awaited = awaited
        self._on_stored = on_stored
        self._waiting: list[RunPatch] = []
        self.waiting_bytes = 0
        """Bytes of operations in memory, those being stored included."""
        self._room = asyncio.Condition()
        self._wanted = asyncio.Event()
        self._arrived = asyncio.Event()
        self._submitted_sequence = 0
        self._stored_sequence = 0
        self._stored = asyncio.Condition()
        self._last_waiting: dict[tuple[str, str | None], int] = {}
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to store what is submitted."""
        self._task = asyncio.create_task(self._run())

    def submit(self, patches: Sequence[RunPatch]) -> None:
        """Take durable operations, in the order of their sequence numbers."""
        self._waiting.extend(patches)
        for patch in patches:
            self.waiting_bytes += patch.size_bytes()
            self._last_waiting[(patch.tenant_id, patch.project_id)] = patch.sequence
            self._submitted_sequence = patch.sequence
        self._arrived.set()
        if len(self._waiting) >= self._limits.max_runs or self.waiting_bytes >= self._limits.max_bytes:
            self._wanted.set()

    async def wait_for_room(self, max_bytes: int) -> None:
        """Return once fewer than `max_bytes` of operations are in memory."""
        async with self._room:
            await self._room.wait_for(lambda: self.waiting_bytes < max_bytes)

    async def see_writes(self, tenant_id: str, project_ids: Iterable[str] = ()) -> None:
        """Return once all that was submitted before, and could concern these projects, is stored.

        No projects means every project of the tenant.
        """
        projects = set(project_ids)
        sequence = max(
            (
                last
                for (tenant, project), last in self._last_waiting.items()
                if tenant == tenant_id and (not projects or project is None or project in projects)
            ),
            default=0,
        )
        await self.see_sequence(sequence)

    async def see_sequence(self, sequence: int) -> None:
        """Return once everything submitted so far, and up to this sequence number, is stored."""
        # A number that was never submitted here is of an earlier process, or of a write that failed.
        sequence = min(sequence, self._submitted_sequence)
        if sequence <= self._stored_sequence:
            return
        self._wanted.set()
        async with self._stored:
            await self._stored.wait_for(lambda: self._stored_sequence >= sequence)

    async def close(self) -> None:
        """Store what waits and stop."""
        self._closed = True
        self._wanted.set()
        self._arrived.set()
        if self._task is not None:
            await self._task

    async def abandon(self) -> None:
        """Stop at once; what waits is in the log."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._closed:
                try:
                    async with asyncio.timeout(self._limits.interval_ms / 1_000):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
            self._wanted.clear()
            self._arrived.clear()
            batch = self._take()
            if batch:
                await self._store_batch(batch)
            elif self._closed:
                return

    def _take(self) -> list[RunPatch]:
        """The oldest waiting operations, as many as one flush may hold."""
        size = 0
        count = 0
        for patch in self._waiting[: self._limits.max_runs]:
            size += patch.size_bytes()
            count += 1
            if size >= self._limits.max_bytes:
                break
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if self._waiting or self._closed:
            self._arrived.set()
            self._wanted.set()
        return batch

    async def _store_batch(self, batch: list[RunPatch]) -> None:
        size = sum(patch.size_bytes() for patch in batch)
        last_sequence = batch[-1].sequence
        outcome = await self._store_patches(await asyncio.to_thread(merge_by_run, batch))
        await self._store_awaiting(outcome)
        self.waiting_bytes -= size
        self._stored_sequence = last_sequence
        for ref in [ref for ref, last in self._last_waiting.items() if last <= last_sequence]:
            del self._last_waiting[ref]
        self._on_stored(last_sequence)
        async with self._stored:
            self._stored.notify_all()
        async with self._room:
            self._room.notify_all()

    async def _store_patches(self, patches: list[RunPatch]) -> Placement:
        """Store patches of distinct runs; park those without a place, bury those that are refused."""
        refusal = ""
        outcome = Placement()
        try:
            outcome = await _persistently(self._placer.place, patches)
            rows = await asyncio.to_thread(self._rows, outcome.placed)
            if rows:
                await _persistently(self._store.append, rows, outcome.moves)
        except BlockRefused as error:
            refusal = str(error)
        except Exception as error:
            logger.exception("flush_failed", patches=len(patches))
            refusal = f"{type(error).__name__}: {error}"
        if refusal:
            return await self._store_apart(patches, refusal)
        self._placer.remember(outcome)
        if outcome.parked:
            await _persistently(self._store.park, outcome.parked)
            for awaited_run_id, patch in outcome.parked:
                ref = (patch.tenant_id, awaited_run_id)
                self._awaited[ref] = self._awaited.get(ref, 0) + 1
        return outcome

    async def _store_apart(self, patches: list[RunPatch], reason: str) -> Placement:
        """Store the halves of a refused block; a patch that is alone in it becomes a dead letter."""
        if len(patches) == 1:
            logger.error("dead_letter", run_id=patches[0].run_id, reason=reason)
            await _persistently(self._store.bury, patches, reason)
            return Placement()
        middle = len(patches) // 2
        outcome = await self._store_patches(patches[:middle])
        outcome.add(await self._store_patches(patches[middle:]))
        return outcome

    def _rows(self, placed: Sequence[tuple[RunPatch, RunPlace]]) -> list[RunRow]:
        rows = []
        for patch, place in placed:
            try:
                facts = derive(patch, place.key.start_time_us, self._prices)
            except Exception:
                # Payloads were validated, so this is a defect; the run itself must not be lost to it.
                logger.exception("derivation_failed", run_id=patch.run_id)
                facts = NO_FACTS
            rows.append(RunRow(patch, place, facts))
        return rows

    async def _store_awaiting(self, outcome: Placement) -> None:
        """Store the parked patches that awaited these runs, and those that awaited them in turn.

        An update awaits its own run; a link awaits the parent, whose own ancestors must be known.
        """
        while arrived := {
            ref for patch, _ in outcome.placed if (ref := (patch.tenant_id, patch.run_id)) in self._awaited
        }:
            ready = [
                (awaited_run_id, patch)
                for awaited_run_id, patch in await _persistently(self._store.parked, arrived)
                if patch.run_id == awaited_run_id or (patch.tenant_id, awaited_run_id) in outcome.settled
            ]
            updates = [
                _without_key(patch) for awaited_run_id, patch in ready if patch.run_id == awaited_run_id
            ]
            links = [patch for awaited_run_id, patch in ready if patch.run_id != awaited_run_id]
            # Of their own, not merged with newer patches of the run: they keep their place in the order.
            outcome = await self._store_patches(merge_by_run(updates))
            outcome.add(await self._store_patches(merge_by_run(map(copy, links))))
            await _persistently(self._store.unpark, ready)
            for awaited_run_id, patch in ready:
                ref = (patch.tenant_id, awaited_run_id)
                self._awaited[ref] -= 1
                if self._awaited[ref] <= 0:
                    del self._awaited[ref]


def _without_key(patch: RunPatch) -> RunPatch:
    """An update that came before its run's creation must not move the run: the creation's key is newer."""
    return msgspec.structs.replace(patch, project_id=None, start_time_us=None)


def merge_by_run(patches: Iterable[RunPatch]) -> list[RunPatch]:
    """One patch per run, merged in the order given; the runs in the order of their first patch."""
    merged: dict[RunRef, RunPatch] = {}
    for patch in patches:
        ref = (patch.tenant_id, patch.run_id)
        if (earlier := merged.get(ref)) is None:
            merged[ref] = patch
        else:
            earlier.merge(patch)
    return list(merged.values())


async def _persistently(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call until the engine is there."""
    async for attempt in tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=10),
        before_sleep=_log_retry,
    ):
        with attempt:
            return await call(*args, **kwargs)
    raise AssertionError("retrying never ends without a result")


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    logger.warning("engine_unavailable", attempt=state.attempt_number, error=str(error))
