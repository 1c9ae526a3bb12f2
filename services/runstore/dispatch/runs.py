"""What callers do with runs of graphs: create, follow, cancel and delete them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from runstore.catalog.agent_runs import AgentRunCatalog, nobody, run_not_found
from runstore.catalog.assistants import AssistantCatalog
from runstore.dispatch.dispatcher import Dispatcher, is_resumable
from runstore.dispatch.feeds import EventId, RunEvent, RunFeed, RunFeeds
from runstore.domain.agent_requests import check_request
from runstore.domain.agent_runs import (
    AgentRun,
    AgentRunStatus,
    CancelAction,
    NewAgentRun,
    RunEnd,
)
from runstore.domain.assistants import Assistant
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.webhooks import WebhookPolicy

# For runs that a worker of another store runs: their ends are seen in the catalog alone.
_LOOK_EVERY_S: Final = 2.0
_STOPPING_TIMEOUT_S: Final = 60.0
_CANCELLED: Final = "the run was cancelled"
_DELETED: Final = "the run was deleted"
_ASSISTANT_DELETED: Final = "the assistant was deleted"


class AgentRuns:
    """Writes to the catalog, then tells the dispatcher. Refusals are those of `AgentRunCatalog`."""

    def __init__(
        self,
        runs: AgentRunCatalog,
        assistants: AssistantCatalog,
        dispatcher: Dispatcher,
        feeds: RunFeeds,
        webhooks: WebhookPolicy,
    ) -> None:
        self._runs = runs
        self._assistants = assistants
        self._dispatcher = dispatcher
        self._feeds = feeds
        self._webhooks = webhooks

    def check(self, new: NewAgentRun) -> None:
        """Raises INCONSISTENT and INVALID_ARGUMENT for what could be no run, whatever there is."""
        check_request(new)
        if new.webhook is not None:
            self._webhooks.check_url(new.webhook)

    async def create(self, tenant_id: str, requests: Sequence[tuple[str, NewAgentRun]]) -> list[AgentRun]:
        """A pending run for each request and the id or graph name of its assistant, or none at all."""
        resolved = []
        for name, new in requests:
            self.check(new)
            resolved.append((new, await self._assistants.resolve(tenant_id, name)))
        # Not cut short by a caller who leaves: a worker has to get what was claimed for it.
        return await asyncio.shield(asyncio.ensure_future(self._create(tenant_id, resolved)))

    async def _create(
        self, tenant_id: str, resolved: Sequence[tuple[NewAgentRun, Assistant]]
    ) -> list[AgentRun]:
        with self._dispatcher.slot(tenant_id) as slot:
            claimant = slot.of if len(resolved) == 1 else nobody
            runs, effects = await self._runs.create(tenant_id, resolved, claimant)
            for claimed in effects.claimed:
                await self._dispatcher.take(slot, claimed)
        for run, (new, _) in zip(runs, resolved, strict=True):
            self._feeds.open(run, is_resumable=is_resumable(run.kwargs))
            if new.after_seconds > 0:
                self._dispatcher.wake(tenant_id, new.after_seconds)
        if not effects.claimed:
            self._dispatcher.tell(tenant_id, effects)
        return runs

    async def cancel(
        self, tenant_id: str, thread_id: str, run_ids: Sequence[str], action: CancelAction, reason: str = ""
    ) -> int:
        """Cancels those of the runs that are in flight, and says how many were."""
        count, effects = await self._runs.cancel(tenant_id, thread_id, run_ids, action, reason or _CANCELLED)
        self._dispatcher.tell(tenant_id, effects)
        return count

    async def cancel_all(self, tenant_id: str, status: AgentRunStatus | None, action: CancelAction) -> int:
        """Cancels every run of the tenant that is in flight, or in one status; says how many were."""
        in_flight = await self._runs.in_flight(tenant_id, status=status)
        return sum([await self.cancel(tenant_id, thread, runs, action) for thread, runs in in_flight.items()])

    async def cancel_of_assistant(self, tenant_id: str, assistant_id: str) -> None:
        """Interrupts every run of the assistant that is in flight."""
        in_flight = await self._runs.in_flight(tenant_id, assistant_id=assistant_id)
        for thread_id, run_ids in in_flight.items():
            await self.cancel(tenant_id, thread_id, run_ids, CancelAction.INTERRUPT, _ASSISTANT_DELETED)

    async def stop_thread(self, tenant_id: str, thread_id: str) -> None:
        """Rolls every run of the thread back that is in flight, and returns once there is none.

        Raises UNAVAILABLE when one has not stopped within a minute.
        """
        async with _in_time():
            while runs := (await self._runs.in_flight(tenant_id, thread_id=thread_id)).get(thread_id):
                await self.cancel(tenant_id, thread_id, runs, CancelAction.ROLLBACK, _DELETED)
                for run_id in runs:
                    await self.wait(tenant_id, run_id)

    async def stop(self, tenant_id: str, thread_id: str, run_id: str) -> bool:
        """Rolls a run back when it is in flight, which deletes it; says whether it was, once it has stopped.

        Raises UNAVAILABLE when it has not within a minute.
        """
        if not await self.cancel(tenant_id, thread_id, [run_id], CancelAction.ROLLBACK, _DELETED):
            return False
        async with _in_time():
            await self.wait(tenant_id, run_id)
        return True

    async def wait(self, tenant_id: str, run_id: str) -> RunEnd:
        """How the run ends, once it has. Raises NOT_FOUND when nothing is known of it."""
        async for step in self.follow(tenant_id, None, run_id, None, is_end_only=True):
            if isinstance(step, RunEnd):
                return step
        raise run_not_found(run_id)

    async def follow(
        self,
        tenant_id: str,
        thread_id: str | None,
        run_id: str,
        after: EventId | None,
        *,
        is_end_only: bool = False,
    ) -> AsyncIterator[RunEvent | RunEnd]:
        """Events after `after`, those to come for None, and at last how the run ended.

        Raises NOT_FOUND when nothing is known of the run, or its thread is another.
        """
        feed = self._feeds.find(run_id) or await self._feed_or_end(tenant_id, run_id)
        if thread_id not in (None, feed.thread_id):
            raise run_not_found(run_id)
        if isinstance(feed, RunEnd):
            yield feed
            return
        if feed.tenant_id != tenant_id:
            raise run_not_found(run_id)
        seen = feed.last_id if after is None else after
        feed.followers += 1
        try:
            while True:
                for event in () if is_end_only else feed.after(seen):
                    seen = event.event_id
                    yield event
                if feed.end is not None and (is_end_only or feed.last_id <= seen):
                    yield feed.end
                    return
                if feed.last_id <= seen or is_end_only:
                    await self._next_change(feed)
        finally:
            feed.followers -= 1

    async def _feed_or_end(self, tenant_id: str, run_id: str) -> RunFeed | RunEnd:
        """Of a run without a feed here: it has ended, or is another store's, or older than this process."""
        end = await self._runs.end(tenant_id, run_id)
        if end is not None:
            return end
        try:
            run = await self._runs.get(tenant_id, None, run_id)
        except RunstoreError as error:
            end = await self._runs.end(tenant_id, run_id)
            if end is None:
                raise run_not_found(run_id) from error
            return end
        return self._feeds.open(run, is_resumable=is_resumable(run.kwargs))

    async def _next_change(self, feed: RunFeed) -> None:
        """Waits until the feed has something new; a run that ends elsewhere is seen within seconds."""
        if await feed.changed(_LOOK_EVERY_S):
            return
        try:
            end = await self._runs.end(feed.tenant_id, feed.run_id)
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND:
                return
            gone = AgentRunStatus.ROLLED_BACK
            end = RunEnd(run_id=feed.run_id, thread_id=feed.thread_id, status=gone, result=b"{}")
        if end is not None:
            self._feeds.close(end)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Bounds the wait for runs to stop."""
    try:
        async with asyncio.timeout(_STOPPING_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise RunstoreError(ErrorReason.UNAVAILABLE, "a run has not stopped in time; try again") from error
