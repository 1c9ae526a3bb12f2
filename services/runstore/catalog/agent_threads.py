"""Threads of graphs in the catalog, and how their status follows from their runs.

Functions that take a connection are part of a caller's transaction; what they decide holds because the caller
has locked the thread first (`locked_thread`).
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog.agent_tables import IS_IN_FLIGHT, agent_runs, agent_threads
from runstore.catalog.database import Conflict, Database
from runstore.catalog.projects import contains
from runstore.catalog.texts import json_object
from runstore.domain.agent_runs import (
    CANCEL_ERRORS,
    AgentRun,
    AgentRunError,
    AgentThread,
    AgentThreadStatus,
    ThreadQuery,
    ThreadSnapshot,
    Ttl,
)
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.clock import Clock

_MICROSECONDS_A_MINUTE: Final = 60_000_000

_threads = agent_threads.c
_runs = agent_runs.c

# Built once: to build a statement takes longer than SQLite takes to execute it.
_INSERT: Final = insert(agent_threads)
_UPDATE: Final = update(agent_threads).where(_threads.thread_id == bindparam("of_thread"))
_DELETE: Final = delete(agent_threads).where(_threads.thread_id == bindparam("of_thread"))
_ANY_IN_FLIGHT: Final = (
    select(_runs.run_id).where(_runs.thread_id == bindparam("of_thread"), IS_IN_FLIGHT).limit(1)
)


class AgentThreadCatalog:
    """Reads and writes threads, always inside one tenant.

    Ids are canonical UUID text. Every method may raise RunstoreError UNAVAILABLE when the database does not
    answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        tenant_id: str,
        thread_id: str,
        metadata: dict[str, object],
        *,
        ttl: Ttl | None = None,
        returns_existing: bool = False,
    ) -> AgentThread:
        """Stores an idle thread and returns it, or with `returns_existing` the tenant's that has the id.

        Raises ALREADY_EXISTS when the id is taken.
        """
        thread = new_thread(tenant_id, thread_id, metadata, self._clock.now_us(), ttl=ttl)
        try:
            async with self._database.write() as connection:
                await insert_thread(connection, thread)
        except Conflict as error:
            if returns_existing:
                return await self.get(tenant_id, thread_id)
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, "a thread of this id already exists", field="thread_id"
            ) from error
        return thread

    async def get(self, tenant_id: str, thread_id: str) -> AgentThread:
        """Raises NOT_FOUND when the tenant has no such thread."""
        async with self._database.read() as connection:
            row = (await connection.execute(_by_id(tenant_id, thread_id))).one_or_none()
        if row is None:
            raise thread_not_found(thread_id)
        return thread_of(row)

    async def update(
        self, tenant_id: str, thread_id: str, metadata: dict[str, object], ttl: Ttl | None
    ) -> AgentThread:
        """Merges `metadata` into the thread's, sets `ttl` unless it is None. Raises NOT_FOUND."""
        now_us = self._clock.now_us()
        async with self._database.write() as connection:
            thread = await locked_thread(connection, tenant_id, thread_id)
            if thread is None:
                raise thread_not_found(thread_id)
            changes: dict[str, Any] = {"updated_at_us": now_us}
            if metadata:
                changes["metadata"] = merged(thread.metadata, metadata)
            if ttl is not None:
                changes |= _ttl_columns(ttl, now_us)
            await _update(connection, thread_id, changes)
        return await self.get(tenant_id, thread_id)

    async def set_state(self, tenant_id: str, thread_id: str, snapshot: ThreadSnapshot) -> None:
        """What the thread holds after its state was written by hand. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            thread = await locked_thread(connection, tenant_id, thread_id)
            if thread is None:
                raise thread_not_found(thread_id)
            await settle_thread(connection, thread, self._clock.now_us(), snapshot=snapshot)

    async def copy(self, source: AgentThread, thread_id: str) -> AgentThread:
        """Stores an idle thread that holds what `source` does; the caller has copied its checkpoints."""
        now_us = self._clock.now_us()
        made = dataclasses.replace(
            source,
            thread_id=thread_id,
            status=AgentThreadStatus.IDLE,
            error=None,
            is_temporary=False,
            created_at_us=now_us,
            updated_at_us=now_us,
        )
        async with self._database.write() as connection:
            await insert_thread(connection, made)
        return made

    async def delete(self, tenant_id: str, thread_id: str) -> None:
        """Removes the thread and its runs, after the caller has removed its checkpoints. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            statement = delete(agent_threads).where(_threads.tenant_id == tenant_id, _is(thread_id))
            deleted = (await connection.execute(statement)).rowcount
        if not deleted:
            raise thread_not_found(thread_id)

    async def search(self, tenant_id: str, query: ThreadQuery) -> tuple[list[AgentThread], int]:
        """The page `offset`, `limit` of the threads that meet `query`, and how many do."""
        matching = _matching(tenant_id, query)
        columns = (agent_threads.c[query.order.value], _threads.thread_id)
        direction = [column if query.is_ascending else column.desc() for column in columns]
        async with self._database.read() as connection:
            if query.metadata or query.values:
                ids = await _containing(connection, matching.order_by(*direction), query)
                found, page = len(ids), ids[query.offset : query.offset + query.limit]
                selected = select(agent_threads).where(_threads.thread_id.in_(page)).order_by(*direction)
            else:
                found = await _count(connection, matching)
                selected = matching.order_by(*direction).offset(query.offset).limit(query.limit)
            return [thread_of(row) for row in await connection.execute(selected)], found

    async def count(self, tenant_id: str, query: ThreadQuery) -> int:
        """How many threads meet `query`."""
        matching = _matching(tenant_id, query)
        async with self._database.read() as connection:
            if query.metadata or query.values:
                return len(await _containing(connection, matching, query))
            return await _count(connection, matching)

    async def restart_time(self, thread_id: str) -> None:
        """The time after which the thread expires begins again."""
        async with self._database.write() as connection:
            row = (await connection.execute(select(_threads.ttl_minutes).where(_is(thread_id)))).one_or_none()
            if row is not None and row.ttl_minutes is not None:
                until_us = _expiry(row.ttl_minutes, self._clock.now_us())
                await _update(connection, thread_id, {"expires_at_us": until_us})

    async def expired(self, limit: int) -> list[AgentThread]:
        """Threads of all tenants whose time is over and that are not busy, the longest expired first."""
        query = (
            select(agent_threads)
            .where(
                _threads.expires_at_us <= self._clock.now_us(),
                _threads.status != AgentThreadStatus.BUSY.value,
            )
            .order_by(_threads.expires_at_us)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [thread_of(row) for row in await connection.execute(query)]


# -- inside a caller's transaction -----------------------------------------------------------------


def new_thread(
    tenant_id: str,
    thread_id: str,
    metadata: dict[str, object],
    now_us: int,
    *,
    ttl: Ttl | None = None,
    status: AgentThreadStatus = AgentThreadStatus.IDLE,
    is_temporary: bool = False,
) -> AgentThread:
    """A thread that holds nothing; not stored."""
    graph_id = metadata.get("graph_id")
    return AgentThread(
        thread_id=thread_id,
        tenant_id=tenant_id,
        status=status,
        metadata=msgspec.json.encode(metadata),
        graph_id=graph_id if isinstance(graph_id, str) else None,
        is_temporary=is_temporary,
        created_at_us=now_us,
        updated_at_us=now_us,
        **({} if ttl is None else _ttl_columns(ttl, now_us)),
    )


async def insert_thread(connection: AsyncConnection, thread: AgentThread) -> None:
    """Raises Conflict when the id is taken, by any tenant."""
    columns = dataclasses.asdict(thread)
    del columns["error"]
    await connection.execute(_INSERT, columns)


async def locked_thread(connection: AsyncConnection, tenant_id: str, thread_id: str) -> AgentThread | None:
    """The tenant's thread, which no other transaction changes until this one ends; None without one."""
    row = (await connection.execute(_LOCK, {"of_tenant": tenant_id, "of_thread": thread_id})).one_or_none()
    return None if row is None else thread_of(row)


async def lock_threads(connection: AsyncConnection, tenant_id: str, thread_ids: Collection[str]) -> None:
    """Locks those of the threads that the tenant has, in one order: no two callers wait for each other."""
    theirs = select(_threads.thread_id).where(
        _threads.tenant_id == tenant_id, _threads.thread_id.in_(thread_ids)
    )
    await connection.execute(theirs.order_by(_threads.thread_id).with_for_update())


def locking(thread_id: Any) -> Select[Any]:
    """Finds and locks the thread of the tenant `of_tenant` that has the id."""
    is_it = _threads.thread_id == thread_id
    return select(agent_threads).where(_threads.tenant_id == bindparam("of_tenant"), is_it).with_for_update()


_LOCK: Final = locking(bindparam("of_thread"))


async def settle_thread(
    connection: AsyncConnection,
    thread: AgentThread,
    now_us: int,
    *,
    snapshot: ThreadSnapshot | None = None,
    error: AgentRunError | None = None,
    is_failed: bool = False,
    keeps_error: bool = False,
    is_busy: bool | None = None,
) -> AgentThreadStatus:
    """Gives the thread the status that follows from its runs and what it holds (agents.md, section 2.2).

    A temporary thread that no run needs any more goes. `is_busy`: whether a run is in flight, if it is known.
    """
    has_next = thread.has_next if snapshot is None else snapshot.has_next
    if await _is_busy(connection, thread.thread_id) if is_busy is None else is_busy:
        status = AgentThreadStatus.BUSY
    elif is_failed or (keeps_error and _has_failed(thread)):
        status = AgentThreadStatus.ERROR
    elif has_next:
        status = AgentThreadStatus.INTERRUPTED
    else:
        status = AgentThreadStatus.IDLE
    changes: dict[str, Any] = {"status": status.value, "has_next": has_next, "updated_at_us": now_us}
    if not keeps_error:
        changes |= error_columns(error)
    if snapshot is not None:
        changes |= {
            "values": snapshot.values,
            "interrupts": snapshot.interrupts,
            "state_updated_at_us": now_us,
        }
    if thread.ttl_minutes is not None:
        changes["expires_at_us"] = _expiry(thread.ttl_minutes, now_us)
    if thread.is_temporary and status is not AgentThreadStatus.BUSY:
        await connection.execute(_DELETE, {"of_thread": thread.thread_id})
    else:
        await _update(connection, thread.thread_id, changes)
    return status


def _has_failed(thread: AgentThread) -> bool:
    """Whether the last run of an idle thread failed, and was not cancelled."""
    return thread.error is not None and thread.error.error not in CANCEL_ERRORS.values()


async def occupy_thread(
    connection: AsyncConnection, thread: AgentThread, run: AgentRun, now_us: int, *, is_latest: bool
) -> None:
    """Makes the thread busy with `run`, and with `is_latest` a thread of the run's graph and assistant."""
    changes: dict[str, Any] = {"status": AgentThreadStatus.BUSY.value, "updated_at_us": now_us}
    if is_latest:
        ids = {"graph_id": run.graph_id, "assistant_id": run.assistant_id}
        changes |= {"graph_id": run.graph_id, "metadata": merged(thread.metadata, ids)}
    await _update(connection, thread.thread_id, changes)


async def _update(connection: AsyncConnection, thread_id: str, changes: Mapping[str, object]) -> None:
    await connection.execute(_UPDATE, {"of_thread": thread_id, **changes})


async def _is_busy(connection: AsyncConnection, thread_id: str) -> bool:
    return (await connection.execute(_ANY_IN_FLIGHT, {"of_thread": thread_id})).one_or_none() is not None


def merged(document: bytes, changes: Mapping[str, object]) -> bytes:
    """A JSON object with the keys of `changes` over its own."""
    return msgspec.json.encode({**json_object("metadata", document), **changes})


def error_columns(error: AgentRunError | None) -> dict[str, str | None]:
    """The columns of an error. PostgreSQL cannot store NUL."""
    if error is None:
        return {"error_class": None, "error_message": None}
    return {"error_class": error.error, "error_message": error.message.replace("\0", "\ufffd")}


def stored_error(row: Row[Any]) -> AgentRunError | None:
    """The error that `error_columns` made columns of."""
    return None if row.error_class is None else AgentRunError(row.error_class, row.error_message)


def thread_not_found(thread_id: str) -> RunstoreError:
    """The refusal of a thread that the tenant does not have."""
    return RunstoreError(ErrorReason.NOT_FOUND, f"there is no thread {thread_id}", field="thread_id")


# -- rows and conditions ---------------------------------------------------------------------------


def _is(thread_id: Any) -> Any:
    return _threads.thread_id == thread_id


def _by_id(tenant_id: str, thread_id: Any) -> Select[Any]:
    return select(agent_threads).where(_threads.tenant_id == tenant_id, _is(thread_id))


def thread_of(row: Row[Any]) -> AgentThread:
    """The thread of a row that has all its columns."""
    fields = dict(row._mapping)
    error = stored_error(row)
    del fields["error_class"], fields["error_message"]
    fields["status"] = AgentThreadStatus(row.status)
    return AgentThread(**fields, error=error)


def _ttl_columns(ttl: Ttl, now_us: int) -> dict[str, Any]:
    return {
        "ttl_minutes": ttl.minutes,
        "ttl_strategy": ttl.strategy,
        "expires_at_us": _expiry(ttl.minutes, now_us),
    }


def _expiry(ttl_minutes: float, now_us: int) -> int:
    return now_us + round(ttl_minutes * _MICROSECONDS_A_MINUTE)


def _matching(tenant_id: str, query: ThreadQuery) -> Select[Any]:
    selected = select(agent_threads).where(_threads.tenant_id == tenant_id)
    if query.status is not None:
        selected = selected.where(_threads.status == query.status.value)
    if query.thread_ids:
        selected = selected.where(_threads.thread_id.in_(query.thread_ids))
    return selected


async def _count(connection: AsyncConnection, matching: Select[Any]) -> int:
    return (await connection.execute(matching.with_only_columns(func.count()))).scalar_one()


async def _containing(connection: AsyncConnection, matching: Select[Any], query: ThreadQuery) -> list[str]:
    """Ids of the threads whose documents contain what `query` wants: SQLite has no operator for that."""
    columns = [_threads.thread_id, _threads.metadata]
    if query.values:
        columns.append(_threads["values"])
    ids = []
    async with connection.stream(matching.with_only_columns(*columns)) as rows:
        async for row in rows:
            if query.metadata and not contains(msgspec.json.decode(row.metadata), query.metadata):
                continue
            if query.values and not contains(msgspec.json.decode(row[2] or b"null"), query.values):
                continue
            ids.append(row.thread_id)
    return ids
