"""Lists threads, sums them up, and lists the traces of one."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from runstore.domain.conditions import AllOf, Compare, Relation, ScalarField
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.runs import RunField, RunQuery
from runstore.domain.threads import Thread, ThreadQuery, ThreadStat, ThreadStats
from runstore.domain.traces import TracePage
from runstore.query.cursors import PageTokens, query_hash
from runstore.query.list_runs import ListRuns
from runstore.query.list_traces import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    ListTraces,
    Projects,
    check_project,
)
from runstore.query.references import References
from runstore.storage.run_store import ThreadReader

# Sequence number of the moment of the first page, and the token of a position, which is bound to it.
_TOKEN = re.compile(r"([0-9a-f]{1,16})\.([A-Za-z0-9_-]+)", re.ASCII)


class Writes(Protocol):
    """What a reader of threads needs of the writers."""

    async def snapshot(self, tenant_id: str, project_ids: tuple[str, ...] = ()) -> int:
        """Return once everything acknowledged before, and of these projects, can be read: the last of its
        sequence numbers."""
        ...


@dataclass(frozen=True, slots=True)
class ThreadsPage:
    """Threads in order, and the token of the next page; "" at the end and only there."""

    threads: tuple[Thread, ...]
    next_page_token: str


class ListThreads:
    """Answers questions about the threads of one project. Every method raises NOT_FOUND without it."""

    def __init__(
        self,
        threads: ThreadReader,
        runs: ListRuns,
        traces: ListTraces,
        projects: Projects,
        writes: Writes,
        page_tokens: PageTokens,
        references: References,
    ) -> None:
        self._threads = threads
        self._runs = runs
        self._traces = traces
        self._projects = projects
        self._writes = writes
        self._page_tokens = page_tokens
        self._references = references

    async def page(self, query: ThreadQuery, page_size: int, page_token: str) -> ThreadsPage:
        """One page. Raises INVALID_ARGUMENT and INVALID_CURSOR."""
        if page_size < 0:
            raise invalid("page_size", "must not be negative")
        as_of = await self._snapshot(query)
        if page_token:
            parsed = _TOKEN.fullmatch(page_token)
            if parsed is None:
                raise RunstoreError(ErrorReason.INVALID_CURSOR, "not a cursor of this server", field="cursor")
            as_of, page_token = int(parsed[1], 16), parsed[2]
        # A thread moves up when it gets a trace; the order of the first page holds for all, so that
        # none is passed over.
        asked = query_hash(query, as_of)
        after = self._page_tokens.decode(page_token, asked) if page_token else None
        limit = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        query = await self._references.resolved(query)
        page = await self._threads.list_threads(replace(query, as_of=as_of, after=after, limit=limit))
        token = ""
        if page.has_more:
            token = f"{as_of:x}.{self._page_tokens.encode(page.threads[-1].position, asked)}"
        return ThreadsPage(page.threads, token)

    async def aggregate_stats(self, query: ThreadQuery, stats: Collection[ThreadStat]) -> ThreadStats:
        """All threads that match, summed up."""
        await self._snapshot(query)
        return await self._threads.aggregate_stats(await self._references.resolved(query), stats)

    async def thread_stats(
        self, query: ThreadQuery, thread_id: str, stats: Collection[ThreadStat]
    ) -> ThreadStats:
        """One thread, summed up over its traces that satisfy the query's filter. Raises NOT_FOUND."""
        await self._snapshot(query)
        resolved = await self._references.resolved(query)
        found = await self._threads.thread_stats(resolved, thread_id, {*stats, ThreadStat.TRACE_COUNT})
        if not found[ThreadStat.TRACE_COUNT]:
            await self._check_thread(query.tenant_id, query.project_id, thread_id)
        return {stat: value for stat, value in found.items() if stat in stats}

    async def traces(
        self,
        query: RunQuery,
        thread_id: str,
        page_size: int,
        page_token: str,
        *,
        with_usage: bool,
        with_turn_numbers: bool,
    ) -> TracePage:
        """One page of the traces of a thread whose roots the query means, oldest first.

        Raises NOT_FOUND, INVALID_ARGUMENT and INVALID_CURSOR.
        """
        [project_id] = query.project_ids
        of_thread = Compare(ScalarField.THREAD_ID, Relation.EQ, thread_id)
        roots = replace(
            query,
            descending=False,
            filter=of_thread if query.filter is None else AllOf((of_thread, query.filter)),
        )
        page = await self._traces.page(roots, page_size, page_token, with_usage=with_usage)
        if not page.traces and not page_token:
            await self._check_thread(query.tenant_id, project_id, thread_id)
        if not with_turn_numbers or not page.traces:
            return page
        trace_ids = [trace.root.position.run_id for trace in page.traces]
        numbers = await self._threads.turn_numbers(query.tenant_id, project_id, thread_id, trace_ids)
        return replace(
            page,
            traces=tuple(
                replace(trace, turn_number=numbers.get(trace_id, 0))
                for trace_id, trace in zip(trace_ids, page.traces, strict=True)
            ),
        )

    async def _snapshot(self, query: ThreadQuery) -> int:
        await check_project(self._projects, query.tenant_id, query.project_id)
        return await self._writes.snapshot(query.tenant_id, (query.project_id,))

    async def _check_thread(self, tenant_id: str, project_id: str, thread_id: str) -> None:
        """Tells a thread none of whose traces matches from one that is not there."""
        some = RunQuery(
            tenant_id,
            frozenset({RunField.ID}),
            project_ids=(project_id,),
            is_root=True,
            filter=Compare(ScalarField.THREAD_ID, Relation.EQ, thread_id),
        )
        if not (await self._runs.page(some, 1, "")).runs:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no thread {thread_id}", field="thread_id")
