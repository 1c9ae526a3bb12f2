"""Claims: the right of a worker to one attempt of one run, for as long as its lease.

A claim is named by a random token. Whatever is written for it is conditional on the token and on the run
still running, so that a worker that has lost a claim without knowing can do no harm.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import and_, bindparam, exists, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog.agent_run_rows import (
    NO_CLAIM,
    cancel_error,
    end_run,
    run_of,
    select_runs,
    update_run,
)
from runstore.catalog.agent_tables import IS_PENDING, IS_RUNNING, agent_runs, is_in_flight
from runstore.catalog.agent_threads import (
    locked_thread,
    locking,
    occupy_thread,
    settle_thread,
    thread_of,
)
from runstore.catalog.database import Conflict, Database
from runstore.catalog.webhook_outbox import put_webhook
from runstore.domain.agent_runs import (
    MAX_FAILURES,
    AgentRun,
    AgentRunError,
    AgentRunStatus,
    AgentThread,
    AgentThreadStatus,
    Cancel,
    CancelAction,
    Claim,
    ClaimedRun,
    Finished,
    Outcome,
    RunEnd,
)
from runstore.domain.webhook_bodies import webhook_body
from runstore.runtime.clock import Clock

LEASE_S: Final = 30.0
"""How long a claim holds after it was made or renewed."""

BROKEN_STREAM_LEASE_S: Final = 5.0
"""How long it holds after its worker's stream broke."""

_MICROSECONDS: Final = 1_000_000
_TOKEN_BYTES: Final = 16
_EXPIRED_AT_ONCE: Final = 100
# Each means that another store has claimed a run meanwhile.
_MAX_LOST_RACES: Final = 10

_runs = agent_runs.c


@dataclass(frozen=True, slots=True)
class Worker:
    """Who claims."""

    tenant_id: str
    worker_id: str
    graph_ids: frozenset[str]
    is_tracing: bool


@dataclass(frozen=True, slots=True)
class Released:
    """A claim that was given up or lost, and what became of the run."""

    tenant_id: str
    claim: Claim
    end: RunEnd | None
    """None when the run is pending again."""
    has_following: bool
    """Whether a run of the thread waits to be claimed."""


class _RaceLost(Exception):
    """Somebody else has claimed the run, or stopped it, since it was found."""


class AgentClaimCatalog:
    """Gives runs to workers and takes them back. Every method may raise RunstoreError UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, worker: Worker) -> ClaimedRun | None:
        """The next due run that the worker can run, running from now on; None when there is none.

        Runs of a thread are claimed one at a time, in the order in which they are due.
        """
        for _ in range(_MAX_LOST_RACES):
            try:
                async with self._database.write() as connection:
                    return await self._claim(connection, worker)
            except (_RaceLost, Conflict):
                continue
        return None

    async def _claim(self, connection: AsyncConnection, worker: Worker) -> ClaimedRun | None:
        now_us = self._clock.now_us()
        wanted = {"tenant_id": worker.tenant_id, "now_us": now_us, "graph_ids": list(worker.graph_ids)}
        candidates = (await connection.execute(_NEXT_RUNS, wanted)).all()
        if not candidates:
            return None
        candidate = candidates[0]
        thread = await locked_thread(connection, worker.tenant_id, candidate.thread_id)
        claim = new_claim(candidate.run_id)
        taking = {
            **claim_columns(worker, claim, now_us),
            "status": AgentRunStatus.RUNNING.value,
            "is_traced": worker.is_tracing,
            "updated_at_us": now_us,
        }
        row = (await connection.execute(_TAKE_RUN, {"id": candidate.run_id, **taking})).one_or_none()
        if thread is None or row is None:
            raise _RaceLost
        run = run_of(row)
        if thread.graph_id != run.graph_id:
            await occupy_thread(connection, thread, run, now_us, is_latest=True)
        return ClaimedRun(claim, run, is_last=len(candidates) == 1)

    async def renew(self, tenant_id: str, claims: Sequence[Claim]) -> tuple[list[Claim], list[Cancel]]:
        """Extends the leases of `claims`. Returns those that are lost, and which others are cancelled."""
        if not claims:
            return [], []
        until_us = self._clock.now_us() + _us(LEASE_S)
        held = and_(
            _runs.tenant_id == tenant_id,
            IS_RUNNING,
            _runs.run_id.in_([claim.run_id for claim in claims]),
            _runs.claim_token.in_([claim.token for claim in claims]),
        )
        query = select(_runs.run_id, _runs.claim_token, _runs.cancel_action, _runs.cancel_reason).where(held)
        async with self._database.write() as connection:
            await connection.execute(update(agent_runs).where(held).values(lease_until_us=until_us))
            rows = list(await connection.execute(query))
        alive = {Claim(row.run_id, row.claim_token) for row in rows}
        cancels = [
            Cancel(Claim(row.run_id, row.claim_token), CancelAction(row.cancel_action), row.cancel_reason)
            for row in rows
            if row.cancel_action is not None
        ]
        return [claim for claim in claims if claim not in alive], cancels

    async def shorten(self, worker_id: str) -> None:
        """The leases of a worker whose stream broke end soon, unless it renews them."""
        until_us = self._clock.now_us() + _us(BROKEN_STREAM_LEASE_S)
        shortening = (
            update(agent_runs)
            .where(IS_RUNNING, _runs.worker_id == worker_id, _runs.lease_until_us > until_us)
            .values(lease_until_us=until_us)
        )
        async with self._database.write() as connection:
            await connection.execute(shortening)

    async def finish(self, tenant_id: str, finished: Finished) -> Released | None:
        """Stores how an attempt ended; None when its claim is lost, and then nothing changes.

        A cancel in the row overrules the outcome: an interrupted run is never anything else, and a run that
        is to be rolled back and was not goes to a worker again, to be cleaned up.
        """
        claim = finished.claim
        async with self._database.write() as connection:
            held = await _held(connection, tenant_id, claim)
            return None if held is None else await self._end_attempt(connection, held, finished)

    async def _end_attempt(self, connection: AsyncConnection, held: "_Held", finished: Finished) -> Released:
        thread, run, now_us = held.thread, held.run, self._clock.now_us()
        failures = run.failures + finished.is_failure
        status = _status(run, finished.outcome, failures)
        if status is None:
            await _requeue(connection, run, failures, now_us)
            return Released(run.tenant_id, finished.claim, None, has_following=True)
        end = RunEnd(
            run_id=run.run_id,
            thread_id=run.thread_id,
            status=status,
            result=finished.result or b"{}",
            error=_error(run, status, finished.error),
        )
        changes = {
            "failures": failures,
            "started_at_us": finished.started_at_us,
            "ended_at_us": finished.ended_at_us or now_us,
        }
        await end_run(connection, thread, run, end, now_us, changes)
        if run.webhook is not None:
            body = webhook_body(run, thread, end, finished, now_us)
            await put_webhook(connection, run, body, now_us)
        settled = await settle_thread(
            connection,
            thread,
            now_us,
            snapshot=finished.snapshot,
            error=end.error,
            is_failed=status in (AgentRunStatus.ERROR, AgentRunStatus.TIMEOUT),
            is_busy=held.has_others,
        )
        is_busy = settled is AgentThreadStatus.BUSY
        return Released(run.tenant_id, finished.claim, end, has_following=is_busy)

    async def expire(self, on_found: Callable[[Claim], None] = lambda _claim: None) -> list[Released]:
        """Takes claims back whose lease is over, of all tenants; at most 100 at once, the oldest first.

        `on_found` is called for each before any of them is free.
        """
        query = (
            select(_runs.tenant_id, _runs.run_id, _runs.claim_token)
            .where(IS_RUNNING, _runs.lease_until_us < self._clock.now_us())
            .order_by(_runs.lease_until_us)
            .limit(_EXPIRED_AT_ONCE)
        )
        async with self._database.read() as connection:
            rows = list(await connection.execute(query))
        for row in rows:
            on_found(Claim(row.run_id, row.claim_token))
        released = [await self._expire(row) for row in rows]
        return [each for each in released if each is not None]

    async def _expire(self, row: Any) -> Released | None:
        claim = Claim(row.run_id, row.claim_token)
        lost = Finished(
            claim=claim,
            outcome=Outcome.REQUEUE,
            result=_worker_lost_result(),
            error=_WORKER_LOST,
            is_failure=True,
        )
        async with self._database.write() as connection:
            held = await _held(connection, row.tenant_id, claim, over_at_us=self._clock.now_us())
            return None if held is None else await self._end_attempt(connection, held, lost)


def new_claim(run_id: str) -> Claim:
    """A claim to a run that nobody has yet."""
    return Claim(run_id, secrets.token_hex(_TOKEN_BYTES))


def claim_columns(worker: Worker, claim: Claim, now_us: int) -> dict[str, object]:
    """The columns of a run that say who has it, from `now_us` on."""
    return {
        "worker_id": worker.worker_id,
        "claim_token": claim.token,
        "lease_until_us": now_us + _us(LEASE_S),
    }


# A thread is in error for as long as it has one.
_UNEXPLAINED: Final = AgentRunError("Error", "the worker did not say why")
_WORKER_LOST: Final = AgentRunError(
    "WorkerLost", f"the run was begun {MAX_FAILURES} times and no worker could end it"
)


def _worker_lost_result() -> bytes:
    return msgspec.json.encode({"__error__": {"error": _WORKER_LOST.error, "message": _WORKER_LOST.message}})


def _is_blocked() -> Any:
    """Whether a run has to wait for another of its thread."""
    other = agent_runs.alias("other")
    is_earlier = tuple_(other.c.due_at_us, other.c.run_id) < tuple_(_runs.due_at_us, _runs.run_id)
    is_running = other.c.status == AgentRunStatus.RUNNING.value
    blocking = and_(other.c.thread_id == _runs.thread_id, is_in_flight(other), or_(is_running, is_earlier))
    return exists().where(blocking).correlate(agent_runs)


# Built once: these are executed more often than all others together.
_NEXT_RUNS: Final = (
    select(_runs.run_id, _runs.thread_id)
    .where(
        _runs.tenant_id == bindparam("tenant_id"),
        IS_PENDING,
        _runs.due_at_us <= bindparam("now_us"),
        _runs.graph_id.in_(bindparam("graph_ids", expanding=True)),
        ~_is_blocked(),
    )
    .order_by(_runs.due_at_us, _runs.run_id)
    .limit(2)
)
_TAKE_RUN: Final = (
    update(agent_runs)
    .where(_runs.run_id == bindparam("id"), IS_PENDING, ~_is_blocked())
    .values(
        status=bindparam("status"),
        attempt=_runs.attempt + 1,
        worker_id=bindparam("worker_id"),
        claim_token=bindparam("claim_token"),
        lease_until_us=bindparam("lease_until_us"),
        is_traced=bindparam("is_traced"),
        updated_at_us=bindparam("updated_at_us"),
    )
    .returning(agent_runs)
)


def _has_others() -> Any:
    """Whether another run of a run's thread is in flight."""
    other = agent_runs.alias("other")
    are_others = and_(
        other.c.thread_id == _runs.thread_id, other.c.run_id != _runs.run_id, is_in_flight(other)
    )
    return exists().where(are_others).correlate(agent_runs)


_IS_HELD: Final = and_(
    _runs.tenant_id == bindparam("of_tenant"),
    _runs.run_id == bindparam("of_run"),
    _runs.claim_token == bindparam("token"),
    _runs.lease_until_us < bindparam("over_at_us"),
    IS_RUNNING,
)
_THREAD_HELD: Final = locking(select(_runs.thread_id).where(_IS_HELD).scalar_subquery())
_RUN_HELD: Final = select_runs().add_columns(_has_others().label("has_others")).where(_IS_HELD)
_ALWAYS_US: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Held:
    """What a claim holds; the thread is locked."""

    thread: AgentThread
    run: AgentRun
    has_others: bool
    """Whether another run of the thread is in flight."""


async def _held(
    connection: AsyncConnection, tenant_id: str, claim: Claim, *, over_at_us: int = _ALWAYS_US
) -> _Held | None:
    """What `claim` holds with a lease that ends before `over_at_us`; None when it is lost."""
    wanted = {"of_tenant": tenant_id, "of_run": claim.run_id, "token": claim.token, "over_at_us": over_at_us}
    thread = (await connection.execute(_THREAD_HELD, wanted)).one_or_none()
    if thread is None:
        return None
    # Looked at again: the lock may have been waited for.
    run = (await connection.execute(_RUN_HELD, wanted)).one_or_none()
    return None if run is None else _Held(thread_of(thread), run_of(run), run.has_others)


def _status(run: AgentRun, outcome: Outcome, failures: int) -> AgentRunStatus | None:
    """How the run ends; None when it goes on in another attempt."""
    if run.cancel_action is CancelAction.ROLLBACK or outcome is Outcome.ROLLED_BACK:
        return AgentRunStatus.ROLLED_BACK if outcome is Outcome.ROLLED_BACK else None
    if outcome is Outcome.REQUEUE:
        if failures < MAX_FAILURES:
            return None
        return AgentRunStatus.INTERRUPTED if run.cancel_action else AgentRunStatus.ERROR
    if run.cancel_action is CancelAction.INTERRUPT:
        return AgentRunStatus.INTERRUPTED
    return AgentRunStatus(outcome.value)


def _error(run: AgentRun, status: AgentRunStatus, error: AgentRunError | None) -> AgentRunError | None:
    if status in (AgentRunStatus.INTERRUPTED, AgentRunStatus.ROLLED_BACK):
        return cancel_error(run.cancel_action or CancelAction.INTERRUPT, run.cancel_reason or "cancelled")
    return None if status is AgentRunStatus.SUCCESS else error or _UNEXPLAINED


async def _requeue(connection: AsyncConnection, run: AgentRun, failures: int, now_us: int) -> None:
    again = {
        "status": AgentRunStatus.PENDING.value,
        "failures": failures,
        "updated_at_us": now_us,
        **NO_CLAIM,
    }
    await update_run(connection, run.run_id, again)


def _us(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)
