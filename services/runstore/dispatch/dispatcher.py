"""Gives due runs to workers with free slots, at once, and takes them back from those that are gone.

Whatever happens here is decided by the catalog's transactions; the dispatcher only knows whom to tell. It is
woken by everything that may make a run claimable. Once a second it looks by itself: for runs that other
stores on the same catalog have created, for delayed ones, and for leases that are over.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import msgspec
import structlog

from runstore.catalog.agent_claims import AgentClaimCatalog, Released, Worker
from runstore.catalog.agent_runs import AgentRunCatalog
from runstore.dispatch.feeds import RunEvent, RunFeeds
from runstore.dispatch.questions import Questions
from runstore.dispatch.workers import ConnectedWorker, Lost, Recorded, Slot, Workers, freest
from runstore.domain.agent_runs import Cancel, Claim, ClaimedRun, Effects, Finished, Outcome
from runstore.domain.errors import RunstoreError

LOOK_EVERY_S: Final = 1.0
EXPIRE_AFTER_S: Final = 5.0
"""Time after the start in which no lease ends: workers that outlived it come and renew theirs first."""

_FORGET_EVERY_S: Final = 60.0
_LOOKED_UP_AT_ONCE: Final = 1_000

logger = structlog.get_logger()


class Dispatcher:
    """Runs as a task of the store for as long as it serves."""

    def __init__(
        self,
        claims: AgentClaimCatalog,
        runs: AgentRunCatalog,
        workers: Workers,
        feeds: RunFeeds,
        questions: Questions,
        *,
        look_every_s: float = LOOK_EVERY_S,
        expire_after_s: float = EXPIRE_AFTER_S,
    ) -> None:
        self._claims = claims
        self._runs = runs
        self._workers = workers
        self._feeds = feeds
        self._questions = questions
        self._look_every_s = look_every_s
        self._expire_after_s = expire_after_s
        self._woken: set[str] = set()
        # Tenants whose runs have all been given to workers, with slots left over.
        self._without_queue: set[str] = set()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._shortening: set[asyncio.Task[None]] = set()

    # -- the task ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Dispatches until `stop`; transactions that are under way come to their end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._serve_woken())
            tasks.create_task(self._look())

    async def _serve_woken(self) -> None:
        while not self._stopping.is_set():
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = self._woken, set()
            for tenant_id in woken:
                with _logged_failures():
                    await self._serve(tenant_id)

    async def _look(self) -> None:
        """Once a second, what nobody wakes the dispatcher for."""
        loop = asyncio.get_running_loop()
        next_expiry, next_forget = loop.time() + self._expire_after_s, loop.time()
        while not self._stopping.is_set():
            with _logged_failures():
                if loop.time() >= next_expiry:
                    await self._expire()
                if loop.time() >= next_forget:
                    next_forget = loop.time() + _FORGET_EVERY_S
                    self._feeds.expire()
                    await self._forget_feeds()
                    await self._runs.forget_results()
            # After that, which closes workers that are stalled.
            for tenant_id in self._workers.tenants():
                self.wake(tenant_id)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._look_every_s)

    def wake(self, tenant_id: str, after_s: float = 0.0) -> None:
        """A run of the tenant may be claimable now, or after some seconds."""
        if after_s > 0:
            asyncio.get_running_loop().call_later(after_s, self.wake, tenant_id)
            return
        self._without_queue.discard(tenant_id)
        self._woken.add(tenant_id)
        self._wake.set()

    def stop(self) -> None:
        """Ends the streams of all workers, which come back to another store or to this one's successor."""
        self._stopping.set()
        self._wake.set()
        for worker in self._workers:
            worker.close()

    # -- giving ------------------------------------------------------------------------------------

    async def _serve(self, tenant_id: str) -> None:
        """Claims for the tenant's workers, the freest first, until there is nothing to claim."""
        able = self._workers.of_tenant(tenant_id)
        while able := [worker for worker in able if worker.free_slots > 0 and not self._stopping.is_set()]:
            worker = freest(able)
            worker.reserved_slots += 1
            try:
                claimed = await self._claims.claim(worker.worker)
                if claimed is not None:
                    await self._give(worker, claimed)
            finally:
                worker.reserved_slots -= 1
            if claimed is None or claimed.is_last:
                able.remove(worker)
        have_slots = all(worker.free_slots > 0 for worker in self._workers.of_tenant(tenant_id))
        if have_slots and tenant_id not in self._woken:
            self._without_queue.add(tenant_id)

    @contextmanager
    def slot(self, tenant_id: str) -> Iterator[Slot]:
        """A slot for a run that is about to be created: none when others wait for one."""
        slot = Slot(self._workers.of_tenant(tenant_id) if tenant_id in self._without_queue else [])
        try:
            yield slot
        finally:
            if slot.worker is not None:
                slot.worker.reserved_slots -= 1
                if not slot.is_taken:
                    self.wake(tenant_id)

    async def take(self, slot: Slot, claimed: ClaimedRun) -> None:
        """A run was created and claimed for the worker of `slot`."""
        if slot.worker is None:
            raise ValueError("the slot was never asked for")
        slot.is_taken = True
        await self._give(slot.worker, claimed)

    async def _give(self, worker: ConnectedWorker, claimed: ClaimedRun) -> None:
        if not worker.takes_runs:
            await self._give_back(claimed)
            return
        worker.claims[claimed.run.run_id] = claimed.claim
        worker.send(claimed)
        run = claimed.run
        self._feeds.open(run, is_resumable=is_resumable(run.kwargs))
        start = msgspec.json.encode({"run_id": run.run_id, "attempt": run.attempt})
        self._feeds.publish(run.run_id, [RunEvent("metadata", (), start)])

    async def _give_back(self, claimed: ClaimedRun) -> None:
        """The worker has gone, or wants no more, since the claim was made for it."""
        unused = Finished(claim=claimed.claim, outcome=Outcome.REQUEUE, result=b"")
        await self._claims.finish(claimed.run.tenant_id, unused)
        self.wake(claimed.run.tenant_id)

    # -- what workers say --------------------------------------------------------------------------

    async def connect(self, worker: Worker, slots: int, claims: Sequence[Claim]) -> ConnectedWorker:
        """A worker has come, or come again with `claims` from an earlier stream."""
        connected = ConnectedWorker(worker, slots)
        if self._stopping.is_set():
            connected.close()
            return connected
        # A run that was on its way when the earlier stream broke is not among `claims`: soon it is free.
        await self._claims.shorten(worker.worker_id)
        lost, cancels = await self._claims.renew(worker.tenant_id, claims)
        connected.claims = {claim.run_id: claim for claim in claims if claim not in lost}
        for claim in lost:
            connected.send(Lost(claim))
        for cancel in cancels:
            connected.send(cancel)
        self._workers.add(connected)
        self.wake(worker.tenant_id)
        return connected

    def disconnect(self, connected: ConnectedWorker) -> None:
        """A worker's stream has ended. Its claims hold for some seconds, in which it may come again."""
        self._questions.gone(connected)
        if not self._workers.remove(connected) or self._stopping.is_set() or not connected.claims:
            return
        # A task of its own: gRPC cancels the call of a worker that has died until it ends.
        shortening = asyncio.create_task(self._shorten(connected.worker.worker_id))
        self._shortening.add(shortening)
        shortening.add_done_callback(self._shortening.discard)

    async def _shorten(self, worker_id: str) -> None:
        with _logged_failures():  # At worst, the leases end by themselves, later.
            await self._claims.shorten(worker_id)

    def drain(self, connected: ConnectedWorker) -> None:
        """A worker wants no more runs."""
        connected.is_draining = True

    def publish(self, connected: ConnectedWorker, claim: Claim, events: Sequence[RunEvent]) -> None:
        """A run says something; what a worker without the claim says is dropped."""
        if connected.holds(claim):
            self._feeds.publish(claim.run_id, events)

    async def finish(self, connected: ConnectedWorker, finished: Finished) -> None:
        """An attempt is over: stores it, then tells the worker and those who wait."""
        claim, was_full = finished.claim, not connected.free_slots
        released = await self._claims.finish(connected.worker.tenant_id, finished)
        if connected.holds(claim):
            del connected.claims[claim.run_id]
        if released is None:
            connected.send(Lost(claim))
        else:
            connected.send(Recorded(claim))
            self._released(released)
        if was_full or released is None or released.has_following:
            self.wake(connected.worker.tenant_id)

    async def renew(self, tenant_id: str, claims: Sequence[Claim]) -> tuple[list[Claim], list[Cancel]]:
        """Extends leases; returns the claims that are lost, and which others are cancelled."""
        return await self._claims.renew(tenant_id, claims)

    # -- taking back -------------------------------------------------------------------------------

    async def _expire(self) -> None:
        holders: set[ConnectedWorker] = set()

        def stalls(claim: Claim) -> None:
            # Else it would be given its own runs again, being the freest.
            holder = self._workers.holder(claim)
            if holder is not None:
                holder.is_stalled = True
                holders.add(holder)

        try:
            for released in await self._claims.expire(stalls):
                logger.warning(
                    "claim_expired", run_id=released.claim.run_id, is_over=released.end is not None
                )
                holder = self._workers.holder(released.claim)
                if holder is not None:
                    del holder.claims[released.claim.run_id]
                    holder.send(Lost(released.claim))
                self._released(released)
                self.wake(released.tenant_id)
        finally:
            for holder in holders:
                holder.close()  # It comes again, if it is well.

    async def _forget_feeds(self) -> None:
        """Lets feeds go of runs that other stores have ended."""
        unfollowed = self._feeds.unfollowed()
        for start in range(0, len(unfollowed), _LOOKED_UP_AT_ONCE):
            some = unfollowed[start : start + _LOOKED_UP_AT_ONCE]
            for run_id in set(some) - await self._runs.still_in_flight(some):
                self._feeds.discard(run_id)

    def _released(self, released: Released) -> None:
        if released.end is not None:
            self._feeds.close(released.end)

    def tell(self, tenant_id: str, effects: Effects) -> None:
        """Tells workers and waiters what a transaction has done to runs."""
        for cancel in effects.cancels:
            holder = self._workers.holder(cancel.claim)
            if holder is not None:  # Else it is told with the next renewal.
                holder.send(cancel)
        for end in effects.ends:
            self._feeds.close(end)
        self.wake(tenant_id)


@contextmanager
def _logged_failures() -> Iterator[None]:
    """The dispatcher outlives everything that goes wrong: a second later it tries again."""
    try:
        yield
    except RunstoreError as error:
        logger.warning("dispatch_failed", reason=error.reason.name, error=error.message)
    except Exception:
        logger.exception("dispatch_failed")


def is_resumable(kwargs: bytes) -> bool:
    """Whether a run's events may be asked for again long after its end."""
    return msgspec.json.decode(kwargs, type=_Kwargs).resumable


class _Kwargs(msgspec.Struct):
    resumable: bool = False
