"""Stores operations: merges them per run, places them, derives facts and hands blocks to the engine.

An engine that is away is retried for ever; one that refuses a block gets it in halves until the operation
at fault is alone, which becomes a dead letter.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import msgspec
import structlog
import tenacity

from runstore.domain.deletions import RunDeletion
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.prices import PriceBook
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunFacts, RunMove, RunPatch, RunPlace, RunRow
from runstore.ingest.awaited import AwaitedRuns, RunRef
from runstore.ingest.derive import NO_FACTS, derive
from runstore.ingest.offload import Offload
from runstore.ingest.placement import Placement, Placer
from runstore.storage.run_store import Block, BlockRefused, RunWriter, StoreUnavailable

logger = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")


_MAX_NAMED_RUNS = 1_000
"""A report goes to the store process with every flush."""

STAGES = ("wait", "merge", "place", "derive", "build", "insert")
"""What the seconds of a flush go to."""


class FlushReport(msgspec.Struct):
    """What a flush did."""

    last_sequence: int
    """Everything up to here is stored."""
    operations: int
    runs: int = 0
    """Runs that the operations were about."""
    size_bytes: int = 0
    """Of the operations, as the log holds them."""
    dead_letters: int = 0
    parked: int = 0
    """Operations that now wait for another run."""
    awaited: frozenset[str] | None = frozenset()
    """The runs that any parked operations wait for; None for more than can be named."""
    wait_s: float = 0
    """From the acceptance of the oldest operation to the beginning of the flush."""
    merge_s: float = 0
    """Reading the log included."""
    place_s: float = 0
    derive_s: float = 0
    build_s: float = 0
    insert_s: float = 0
    """All that the engine does, parked operations that waited for this flush included."""


@dataclass(slots=True)
class Prepared:
    """A flush up to the point where only the engine is needed."""

    report: FlushReport
    rows: list[RunRow]
    block: Block | None
    """Of all rows; None when it cannot be built of them together."""
    placement: Placement
    awaited: set[RunRef]
    """Runs of this flush that parked operations wait for."""
    feedback: Sequence[FeedbackPatch] = ()
    """Needs no preparation."""
    traceparents: Sequence[str] = ()
    """The spans that the operations are part of."""


class Flusher:
    """Stores batches in their order. While one is inserted, the next can be prepared."""

    def __init__(
        self,
        store: RunWriter,
        placer: Placer,
        prices: PriceBook,
        awaited: Mapping[RunRef, int],
        offload: Offload,
        purge_deleted: Callable[[], Awaitable[None]],
        on_retry: Callable[[str], None] = lambda _: None,
        *,
        is_shared: bool = False,
    ) -> None:
        """`awaited`: the runs that parked patches wait for, with how many do. `purge_deleted` returns once no
        rows of deleted runs are there. `on_retry` is told why the engine cannot take anything, each time that
        it cannot. `is_shared`: other stores may write to the engine, too."""
        self._store = store
        self._placer = placer
        self._prices = prices
        self._awaited = AwaitedRuns(awaited, looks=is_shared)
        self._is_shared = is_shared
        self._offload = offload
        self._purge_deleted = purge_deleted
        self._on_retry = on_retry
        self._expects_deleted = True
        """Rows of deleted runs may be stored still."""

    async def prepare(
        self, patches: list[RunPatch], report: FlushReport, feedback: Sequence[FeedbackPatch] = ()
    ) -> Prepared:
        """Everything up to the insert. `patches` are in order, and used up."""
        started_s = time.perf_counter()
        if self._expects_deleted:
            patches = await self._apart_from_deleted(patches)
        merged = merge_by_run(patches)
        report.runs = len(merged)
        report.merge_s += time.perf_counter() - started_s
        prepared = await self._prepare(merged, report)
        prepared.feedback = feedback
        return prepared

    async def insert(self, prepared: Prepared) -> FlushReport:
        """Store what was prepared, and the parked operations that waited for it."""
        started_s = time.perf_counter()
        await self._insert(prepared)
        await self._append_feedback(prepared.feedback, prepared.report)
        while prepared.awaited:
            prepared = await self._insert_awaiting(prepared)
        prepared.report.awaited = self.awaited
        prepared.report.insert_s = time.perf_counter() - started_s
        return prepared.report

    async def delete(self, deletion: RunDeletion) -> None:
        """Carry a deletion out; everything before it has been inserted, and nothing behind it prepared."""
        run_ids = await self._persistently(self._store.delete, deletion)
        self._placer.forget(deletion.tenant_id, run_ids)
        self._expects_deleted = True

    async def keep(self, keep: TraceKeep) -> None:
        """Carry out that traces are kept; everything before it has been inserted."""
        await self._persistently(self._store.keep, keep)

    @property
    def awaited(self) -> frozenset[str] | None:
        """The runs that any parked operations wait for; None for more than can be named."""
        if len(self._awaited) > _MAX_NAMED_RUNS:
            return None
        return self._awaited.run_ids

    @property
    def next_look_s(self) -> float | None:
        """Seconds until `look` has something to do; None for never."""
        return self._awaited.next_look_s

    async def look(self) -> None:
        """Store the parked operations whose runs came through other stores; nothing else is under way."""
        by_tenant: dict[str, set[str]] = {}
        for tenant_id, run_id in self._awaited.due():
            by_tenant.setdefault(tenant_id, set()).add(run_id)
        arrived = Placement()
        refs: set[RunRef] = set()
        for tenant_id, run_ids in by_tenant.items():
            for run_id, place in (await self._persistently(self._store.places, tenant_id, run_ids)).items():
                refs.add((tenant_id, run_id))
                if place.is_settled:
                    arrived.settled.add((tenant_id, run_id))
        prepared = Prepared(FlushReport(0, 0), [], None, arrived, refs)
        while prepared.awaited:
            prepared = await self._insert_awaiting(prepared)

    async def _apart_from_deleted(self, patches: list[RunPatch]) -> list[RunPatch]:
        """Keep what was accepted before a run's deletion, and is replayed only now, from bringing it back;
        and what of the run is still stored from showing in the run that comes after it."""
        by_tenant: dict[str, set[str]] = {}
        for patch in patches:
            by_tenant.setdefault(patch.tenant_id, set()).add(patch.run_id)
            if patch.trace_id is not None:
                by_tenant[patch.tenant_id].add(patch.trace_id)
        deleted: dict[RunRef, int] = {}
        for tenant_id, run_ids in by_tenant.items():
            pending = await self._persistently(self._store.pending_deletions, tenant_id, run_ids)
            # The deletion may have been another store's.
            self._placer.forget(tenant_id, pending.sequences)
            self._expects_deleted = pending.are_any or self._is_shared
            deleted |= {(tenant_id, run_id): last for run_id, last in pending.sequences.items()}
        kept = [patch for patch in patches if patch.sequence > _deleted_at(patch, deleted)]
        if any((patch.tenant_id, patch.run_id) in deleted for patch in kept):
            await self._persistently(self._purge_deleted)
        return kept

    async def _prepare(self, patches: list[RunPatch], report: FlushReport) -> Prepared:
        """`patches` are of distinct runs."""
        started_s = time.perf_counter()
        placement = await self._persistently(self._placer.place, patches)
        for awaited_run_id, patch in placement.parked:
            self._awaited.add((patch.tenant_id, awaited_run_id))
        awaited = set()
        if self._awaited:
            refs = ((patch.tenant_id, patch.run_id) for patch, _ in placement.placed)
            awaited = {ref for ref in refs if ref in self._awaited}
        placed_s = time.perf_counter()
        rows = [RunRow(patch, place, self._facts(patch, place)) for patch, place in placement.placed]
        await self._move_large(rows)
        derived_s = time.perf_counter()
        block = self._block(rows)
        report.place_s += placed_s - started_s
        report.derive_s += derived_s - placed_s
        report.build_s += time.perf_counter() - derived_s
        return Prepared(report, rows, block, placement, awaited)

    async def _move_large(self, rows: list[RunRow]) -> None:
        """Large payloads leave the rows once their facts are known; those that came apart are read for them,
        one after the other."""
        for index, row in enumerate(rows):
            if self._offload.is_apart(row.patch):
                try:
                    full = await self._persistently(self._offload.in_full, row.patch)
                except Exception:
                    # It is gone, or this is a defect; the run is stored without what the payload says.
                    logger.exception("payload_unread", run_id=row.patch.run_id)
                    continue
                rows[index] = RunRow(row.patch, row.place, self._facts(full, row.place))
        try:
            await self._persistently(self._offload.offload, [row.patch for row in rows])
        except Exception:
            # A defect; what it left in the rows is stored there.
            logger.exception("offload_failed", rows=len(rows))

    def _facts(self, patch: RunPatch, place: RunPlace) -> RunFacts:
        try:
            return derive(patch, place.key.start_time_us, self._prices)
        except Exception:
            # Payloads were validated, so this is a defect; the run itself must not be lost to it.
            logger.exception("derivation_failed", run_id=patch.run_id)
            return NO_FACTS

    def _block(self, rows: Sequence[RunRow]) -> Block | None:
        try:
            return self._store.block(rows)
        except Exception:  # noqa: BLE001
            return None  # `_append` waits for space, or finds out which row it is.

    async def _insert(self, prepared: Prepared) -> None:
        report, placement = prepared.report, prepared.placement
        await self._append(prepared.rows, placement.moves, report, prepared.block)
        if placement.parked:
            report.parked += len(placement.parked)
            await self._persistently(self._store.park, placement.parked)
        for patch, reason in placement.refused:
            await self._bury(patch, reason, report)

    async def _append(
        self, rows: list[RunRow], moves: list[RunMove], report: FlushReport, block: Block | None = None
    ) -> None:
        """Store rows; of a block that is refused the halves, down to the row at fault, which is buried."""
        if not rows:
            return
        try:
            if block is None:
                block = await self._persistently(self._build, rows)
            await self._persistently(self._store.append, block, moves)
        except BlockRefused as error:
            reason = str(error)
        except Exception as error:
            logger.exception("flush_failed", rows=len(rows))
            reason = f"{type(error).__name__}: {error}"
        else:
            return
        if len(rows) == 1:
            await self._bury(rows[0].patch, reason, report)
            return
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            refs = {(row.patch.tenant_id, row.patch.run_id) for row in half}
            await self._append(
                half, [move for move in moves if (move.tenant_id, move.run_id) in refs], report
            )

    async def _append_feedback(self, patches: Sequence[FeedbackPatch], report: FlushReport) -> None:
        """Store operations on feedback, as `_append` does with rows of runs."""
        if not patches:
            return
        try:
            await self._persistently(self._store.append_feedback, patches)
        except BlockRefused as error:
            reason = str(error)
        except Exception as error:
            logger.exception("flush_failed", feedback=len(patches))
            reason = f"{type(error).__name__}: {error}"
        else:
            return
        if len(patches) > 1:
            middle = len(patches) // 2
            await self._append_feedback(patches[:middle], report)
            await self._append_feedback(patches[middle:], report)
            return
        logger.error("dead_letter", feedback_id=patches[0].feedback_id, reason=reason)
        report.dead_letters += 1
        await self._persistently(self._store.bury_feedback, patches, reason)

    async def _build(self, rows: Sequence[RunRow]) -> Block:
        return self._store.block(rows)

    async def _bury(self, patch: RunPatch, reason: str, report: FlushReport) -> None:
        logger.error("dead_letter", run_id=patch.run_id, reason=reason)
        report.dead_letters += 1
        await self._persistently(self._store.bury, [patch], reason)

    async def _insert_awaiting(self, arrived: Prepared) -> Prepared:
        """Store the parked patches that awaited runs which have arrived; these may be awaited in turn.

        An update awaits its own run; a link awaits the parent, whose own ancestors must be known.
        """
        ready = [
            (awaited_run_id, patch)
            for awaited_run_id, patch in await self._persistently(self._store.parked, arrived.awaited)
            if patch.run_id == awaited_run_id
            or (patch.tenant_id, awaited_run_id) in arrived.placement.settled
        ]
        updates = [_without_key(patch) for awaited_run_id, patch in ready if patch.run_id == awaited_run_id]
        links = [copy(patch) for awaited_run_id, patch in ready if patch.run_id != awaited_run_id]
        # Of their own, not merged with newer patches of the run: they keep their place in the order.
        first = await self._prepare(merge_by_run(updates), arrived.report)
        await self._insert(first)
        second = await self._prepare(merge_by_run(links), arrived.report)
        await self._insert(second)
        await self._persistently(self._store.unpark, ready)
        for awaited_run_id, patch in ready:
            self._awaited.remove((patch.tenant_id, awaited_run_id))
        second.awaited |= first.awaited
        second.awaited = {ref for ref in second.awaited if ref in self._awaited}
        second.placement.settled |= first.placement.settled
        return second

    async def _persistently(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await persistently(self._on_retry, call, *args, **kwargs)


async def persistently(
    on_retry: Callable[[str], None], call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call until the engine is there; `on_retry` is told why it is not, each time."""

    def before_retry(state: tenacity.RetryCallState) -> None:
        error = str(state.outcome.exception() if state.outcome is not None else "")
        logger.warning("engine_unavailable", attempt=state.attempt_number, error=error)
        on_retry(error)

    async for attempt in tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=10),
        before_sleep=before_retry,
    ):
        with attempt:
            return await call(*args, **kwargs)
    raise AssertionError("retrying never ends without a result")


def _deleted_at(patch: RunPatch, deleted: Mapping[RunRef, int]) -> int:
    """When its run, or its whole trace, was deleted; 0 for never."""
    of_run = deleted.get((patch.tenant_id, patch.run_id), 0)
    return max(of_run, deleted.get((patch.tenant_id, patch.trace_id or ""), 0))


def _without_key(patch: RunPatch) -> RunPatch:
    """An update that came before its run's creation must not move the run: the creation's key is newer."""
    return msgspec.structs.replace(patch, project_id=None, start_time_us=None)


def merge_by_run(patches: Iterable[RunPatch]) -> list[RunPatch]:
    """One patch per run, merged in the order given; the runs in the order of their first patch."""
    merged: dict[RunRef, RunPatch] = {}
    apart: list[RunPatch] = []
    for patch in patches:
        ref = (patch.tenant_id, patch.run_id)
        if (earlier := merged.get(ref)) is None:
            merged[ref] = patch
            continue
        try:
            earlier.merge(patch)
        except Exception:
            # A defect; as a row of its own the patch is merged by readers.
            logger.exception("merge_failed", run_id=patch.run_id)
            apart.append(patch)
    return [*merged.values(), *apart]
