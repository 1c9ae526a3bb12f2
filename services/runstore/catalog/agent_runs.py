"""Runs of graphs in the catalog, as callers create, watch and cancel them; claims are in `agent_claims`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog.agent_claims import Worker, claim_columns, new_claim
from runstore.catalog.agent_run_rows import (
    cancel_run,
    insert_run,
    run_of,
    runs_in_flight,
    select_runs,
)
from runstore.catalog.agent_tables import IS_IN_FLIGHT, agent_results, agent_runs, agent_threads
from runstore.catalog.agent_threads import (
    insert_thread,
    lock_threads,
    locked_thread,
    new_thread,
    occupy_thread,
    settle_thread,
    thread_not_found,
)
from runstore.catalog.database import Conflict, Database
from runstore.domain.agent_requests import TimeOrderedIds, run_kwargs, run_metadata, thread_metadata
from runstore.domain.agent_runs import (
    AgentRun,
    AgentRunStatus,
    AgentThread,
    AgentThreadStatus,
    CancelAction,
    ClaimedRun,
    Effects,
    MultitaskStrategy,
    NewAgentRun,
    RunEnd,
)
from runstore.domain.assistants import Assistant
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.clock import Clock

_MICROSECONDS: Final = 1_000_000
_KEPT_RESULT_US: Final = 3_600 * _MICROSECONDS
# Each lost race means that somebody else has just created the thread.
_MAX_LOST_RACES: Final = 5

_runs = agent_runs.c
_results = agent_results.c


Claimant = Callable[[str], Worker | None]
"""The worker that has a free slot for a run of a graph, given the graph's name; None when nobody has."""


def nobody(_graph_id: str) -> None:
    """The claimant of runs that wait for whoever looks for them."""


class AgentRunCatalog:
    """Creates, reads, cancels and deletes runs, always inside one tenant.

    Ids are canonical UUID text. Every method may raise RunstoreError UNAVAILABLE when the database does not
    answer. Effects are to be told to workers and waiters by the caller.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ids = TimeOrderedIds()

    async def create(
        self,
        tenant_id: str,
        requests: Sequence[tuple[NewAgentRun, Assistant]],
        claimant: Claimant = nobody,
    ) -> tuple[list[AgentRun], Effects]:
        """Stores a pending run for each request, in order, or none of them.

        A run that can start at once is claimed for whom `claimant` names, which saves a transaction; it is
        returned as pending all the same.

        Raises NOT_FOUND for a thread that the tenant does not have and that is not to be created, CONFLICT
        when the strategy is `reject` and a run of the thread is in flight, ALREADY_EXISTS when a run of the
        given id is stored, or was within the last hour.
        """
        for _ in range(_MAX_LOST_RACES):
            effects = Effects()
            try:
                async with self._database.write() as connection:
                    if len(requests) > 1:
                        threads = {new.thread_id for new, _ in requests if new.thread_id is not None}
                        await lock_threads(connection, tenant_id, threads)
                    runs = [
                        await self._create(connection, tenant_id, new, assistant, index, effects, claimant)
                        for index, (new, assistant) in enumerate(requests)
                    ]
            except Conflict:
                continue
            return runs, effects
        # The id is another tenant's.
        raise thread_not_found(next(new.thread_id for new, _ in requests if new.thread_id))

    async def _create(
        self,
        connection: AsyncConnection,
        tenant_id: str,
        new: NewAgentRun,
        assistant: Assistant,
        index: int,
        effects: Effects,
        claimant: Claimant,
    ) -> AgentRun:
        now_us = self._clock.now_us() + index
        if new.run_id is not None:
            await _check_new(connection, new.run_id)
        existing = await self._existing_thread(connection, tenant_id, new)
        thread = existing or self._new_thread(tenant_id, new, assistant, now_us)
        if existing is None:
            await insert_thread(connection, thread)
        others = await runs_in_flight(connection, thread.thread_id) if existing else []
        run = self._new_run(tenant_id, new, assistant, thread, now_us, is_first=existing is None)
        if others and new.multitask_strategy is MultitaskStrategy.REJECT:
            raise RunstoreError(
                ErrorReason.CONFLICT, "a run of the thread is in flight", field="multitask_strategy"
            )
        action = _SUPERSEDING.get(new.multitask_strategy)
        if action is not None:
            reason = f"superseded by run {run.run_id}"
            for row in others:
                effects.add(await cancel_run(connection, thread, row, action, reason, now_us))
        worker = None if others or run.due_at_us > now_us else claimant(run.graph_id)
        if worker is None:
            await insert_run(connection, run)
        else:
            effects.claimed.append(await self._insert_claimed(connection, run, worker))
        if existing is not None:
            await occupy_thread(connection, thread, run, now_us, is_latest=not others)
        return run

    async def _insert_claimed(self, connection: AsyncConnection, run: AgentRun, worker: Worker) -> ClaimedRun:
        claim = new_claim(run.run_id)
        running = dataclasses.replace(
            run, status=AgentRunStatus.RUNNING, attempt=1, is_traced=worker.is_tracing
        )
        await insert_run(connection, running, claim_columns(worker, claim, self._clock.now_us()))
        return ClaimedRun(claim, running)

    async def _existing_thread(
        self, connection: AsyncConnection, tenant_id: str, new: NewAgentRun
    ) -> AgentThread | None:
        if new.thread_id is None:
            return None
        thread = await locked_thread(connection, tenant_id, new.thread_id)
        if thread is None and not new.creates_thread:
            raise thread_not_found(new.thread_id)
        return thread

    def _new_thread(self, tenant_id: str, new: NewAgentRun, assistant: Assistant, now_us: int) -> AgentThread:
        return new_thread(
            tenant_id,
            new.thread_id or self._ids.next_id(now_us),
            thread_metadata(new, assistant),
            now_us,
            status=AgentThreadStatus.BUSY,
            is_temporary=new.thread_id is None and not new.keeps_thread,
        )

    def _new_run(
        self,
        tenant_id: str,
        new: NewAgentRun,
        assistant: Assistant,
        thread: AgentThread,
        now_us: int,
        *,
        is_first: bool,
    ) -> AgentRun:
        run_id = new.run_id or self._ids.next_id(now_us)
        metadata = run_metadata(new, assistant, None if is_first else thread)
        kwargs = run_kwargs(new, assistant, thread, run_id, metadata)
        return AgentRun(
            run_id=run_id,
            tenant_id=tenant_id,
            thread_id=thread.thread_id,
            assistant_id=assistant.assistant_id,
            graph_id=assistant.graph_id,
            status=AgentRunStatus.PENDING,
            metadata=msgspec.json.encode(metadata),
            kwargs=kwargs,
            multitask_strategy=new.multitask_strategy,
            created_at_us=now_us,
            due_at_us=now_us + round(new.after_seconds * _MICROSECONDS),
            updated_at_us=now_us,
            project_name=new.project_name,
            webhook=new.webhook,
            user_id=new.user_id,
            has_checkpoints=not thread.is_temporary,
        )

    async def get(self, tenant_id: str, thread_id: str | None, run_id: str) -> AgentRun:
        """Raises NOT_FOUND when the thread, any of the tenant for None, has no such run."""
        query = select_runs().where(_runs.tenant_id == tenant_id, _runs.run_id == run_id)
        if thread_id is not None:
            query = query.where(_runs.thread_id == thread_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise run_not_found(run_id)
        return run_of(row)

    async def page(
        self, tenant_id: str, thread_id: str, status: AgentRunStatus | None, offset: int, limit: int
    ) -> list[AgentRun]:
        """A page of the thread's runs, the last due first. Raises NOT_FOUND when there is no such thread."""
        query = select_runs().where(_of(tenant_id, thread_id))
        if status is not None:
            query = query.where(_runs.status == status.value)
        query = query.order_by(_runs.due_at_us.desc(), _runs.run_id.desc()).offset(offset).limit(limit)
        async with self._database.read() as connection:
            runs = [run_of(row) for row in await connection.execute(query)]
            if not runs:
                await _check_thread(connection, tenant_id, thread_id)
        return runs

    async def end(self, tenant_id: str, run_id: str) -> RunEnd | None:
        """How the run ended, also when it is gone since an hour or less; None while it is in flight.

        Raises NOT_FOUND when nothing is known of it.
        """
        stored = select_runs().where(_runs.tenant_id == tenant_id, _runs.run_id == run_id)
        kept = select(agent_results).where(_results.tenant_id == tenant_id, _results.run_id == run_id)
        async with self._database.read() as connection:
            row = (await connection.execute(stored)).one_or_none()
            if row is None:
                row = (await connection.execute(kept)).one_or_none()
        if row is None:
            raise run_not_found(run_id)
        if row.result is None:
            return None
        return RunEnd(
            run_id=run_id,
            thread_id=row.thread_id,
            status=AgentRunStatus(row.status),
            result=row.result,
        )

    async def cancel(
        self, tenant_id: str, thread_id: str, run_ids: Sequence[str], action: CancelAction, reason: str
    ) -> tuple[int, Effects]:
        """Cancels those of `run_ids` that are in flight on the thread, and says how many were."""
        effects, now_us = Effects(), self._clock.now_us()
        async with self._database.write() as connection:
            thread = await locked_thread(connection, tenant_id, thread_id)
            if thread is None:
                return 0, effects
            rows = [row for row in await runs_in_flight(connection, thread_id) if row.run_id in run_ids]
            for row in rows:
                effects.add(await cancel_run(connection, thread, row, action, reason, now_us))
            if effects.ends:
                await settle_thread(connection, thread, now_us, keeps_error=True)
        return len(rows), effects

    async def in_flight(
        self,
        tenant_id: str,
        *,
        thread_id: str | None = None,
        status: AgentRunStatus | None = None,
        assistant_id: str | None = None,
    ) -> dict[str, list[str]]:
        """Ids of the runs in flight by thread: of the tenant, or of one thread, status or assistant."""
        query = select(_runs.thread_id, _runs.run_id).where(_runs.tenant_id == tenant_id, IS_IN_FLIGHT)
        if thread_id is not None:
            query = query.where(_runs.thread_id == thread_id)
        if status is not None:
            query = query.where(_runs.status == status.value)
        if assistant_id is not None:
            query = query.where(_runs.assistant_id == assistant_id)
        found: dict[str, list[str]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                found.setdefault(row.thread_id, []).append(row.run_id)
        return found

    async def was_begun(self, tenant_id: str, thread_id: str) -> bool:
        """Whether a worker has begun a run of the thread, so that there may be checkpoints."""
        query = select(_runs.run_id).where(_of(tenant_id, thread_id), _runs.attempt > 0).limit(1)
        async with self._database.read() as connection:
            return (await connection.execute(query)).one_or_none() is not None

    async def still_in_flight(self, run_ids: Sequence[str]) -> set[str]:
        """Those of the runs, of all tenants, that are in flight; at most 1,000."""
        query = select(_runs.run_id).where(_runs.run_id.in_(run_ids), IS_IN_FLIGHT)
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def delete(self, tenant_id: str, thread_id: str, run_id: str) -> None:
        """Removes a run that has ended, after the caller has removed its checkpoints. Raises NOT_FOUND."""
        statement = delete(agent_runs).where(_of(tenant_id, thread_id), _runs.run_id == run_id, ~IS_IN_FLIGHT)
        async with self._database.write() as connection:
            deleted = (await connection.execute(statement)).rowcount
        if not deleted:
            raise run_not_found(run_id)

    async def forget_results(self) -> None:
        """Removes the ends of runs that have been gone for an hour."""
        statement = delete(agent_results).where(_results.ended_at_us < self._clock.now_us() - _KEPT_RESULT_US)
        async with self._database.write() as connection:
            await connection.execute(statement)


_SUPERSEDING: Final = {
    MultitaskStrategy.INTERRUPT: CancelAction.INTERRUPT,
    MultitaskStrategy.ROLLBACK: CancelAction.ROLLBACK,
}


def run_not_found(run_id: str) -> RunstoreError:
    """The refusal of a run that the thread does not have, or that has ended."""
    return RunstoreError(ErrorReason.NOT_FOUND, f"there is no run {run_id}", field="run_id")


async def _check_new(connection: AsyncConnection, run_id: str) -> None:
    stored = select(_runs.run_id).where(_runs.run_id == run_id)
    kept = select(_results.run_id).where(_results.run_id == run_id)
    if (await connection.execute(stored.union(kept))).first() is not None:
        raise RunstoreError(ErrorReason.ALREADY_EXISTS, f"there is a run {run_id} already", field="run_id")


async def _check_thread(connection: AsyncConnection, tenant_id: str, thread_id: str) -> None:
    threads = agent_threads.c
    query = select(threads.thread_id).where(threads.tenant_id == tenant_id, threads.thread_id == thread_id)
    if (await connection.execute(query)).one_or_none() is None:
        raise thread_not_found(thread_id)


def _of(tenant_id: str, thread_id: str) -> Any:
    return (_runs.tenant_id == tenant_id) & (_runs.thread_id == thread_id)
