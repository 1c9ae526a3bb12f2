"""Threads in ClickHouse: listed, and summed up."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from runstore.domain.conditions import AllOf, Condition
from runstore.domain.feedback import FeedbackByKey, FeedbackStats
from runstore.domain.query_kinds import QueryKind
from runstore.domain.runs import Position, RunField, RunKey, RunQuery, StoredRun
from runstore.domain.threads import (
    LISTED_STATS,
    Thread,
    ThreadPage,
    ThreadQuery,
    ThreadStat,
    ThreadStats,
)
from runstore.storage.clickhouse.columns import NIL_UUID
from runstore.storage.clickhouse.engine import Engine
from runstore.storage.clickhouse.feedback_sql import stats_of
from runstore.storage.clickhouse.horizons import Horizon, Memory
from runstore.storage.clickhouse.list_sql import KeyRange, Statement
from runstore.storage.clickhouse.query_watch import QueryWatch, watched
from runstore.storage.clickhouse.thread_sql import (
    ROOT_COLUMNS,
    ThreadOrderSql,
    ThreadStatsSql,
    computed,
    in_threads,
    known_roots,
    root_columns_of,
    root_rows,
    roots_of,
)

_WIDEST_WINDOW_ROWS = 1_000_000
_ALL = 10**9
_FEW_ROOTS = 2_000
"""So many roots are sent back to the engine rather than looked for by every statement."""
_PREVIEWS = frozenset({RunField.INPUTS_PREVIEW, RunField.OUTPUTS_PREVIEW, RunField.ERROR_PREVIEW})


class Runs(Protocol):
    """What threads need of the store of runs."""

    async def read_existing(self, query: RunQuery, keys: Sequence[RunKey], /) -> Sequence[StoredRun]:
        """The payload fields of the query of the runs with these keys, which are known to exist."""
        ...

    async def matching(self, query: RunQuery, expressions: Iterable[str], /) -> Statement:
        """SQL of the runs, one row each, in no order: key, and the merged columns that expressions name."""
        ...


class ClickHouseThreads:
    """`ThreadReader` over the runs of a store."""

    def __init__(self, engine: Engine, runs: Runs, watch: QueryWatch) -> None:
        self._watch = watch
        self._engine = engine
        self._runs = runs
        self._horizons: Memory[int] = OrderedDict()

    @watched(QueryKind.THREADS)
    async def list_threads(self, query: ThreadQuery, /) -> ThreadPage:
        while True:
            found = await self._in_order(query)
            page, has_more = found[: query.limit], len(found) > query.limit
            threads = await self._threads(query, dict(page))
            # Threads that have lost their traces since the first page leave nothing to show.
            if threads or not has_more:
                return ThreadPage(tuple(threads), has_more)
            query = replace(query, after=page[-1][1])

    @watched(QueryKind.THREADS)
    async def aggregate_stats(self, query: ThreadQuery, stats: Collection[ThreadStat], /) -> ThreadStats:
        filters = (query.filter, query.trace_filter, query.tree_filter, query.thread_filter)
        thread_ids = None
        if any(each is not None for each in filters):
            thread_ids = [thread_id for thread_id, _ in await self._in_order(replace(query, limit=_ALL))]
        return await self._totals(query, await self._roots(query, thread_ids), stats)

    @watched(QueryKind.THREADS)
    async def thread_stats(
        self, query: ThreadQuery, thread_id: str, stats: Collection[ThreadStat], /
    ) -> ThreadStats:
        return await self._totals(query, await self._roots(query, [thread_id], query.filter), stats)

    async def _totals(
        self, query: ThreadQuery, roots: Statement, stats: Collection[ThreadStat]
    ) -> ThreadStats:
        sql = await self._stats_sql(query, roots)
        found: dict[ThreadStat, Any] = {}
        if names := computed(stats):
            [values] = await self._rows(sql.totals(stats))
            found = _stats(names, values)
        if ThreadStat.FEEDBACK_STATS in stats:
            feedback = await self._feedback(sql, by_thread=False)
            found[ThreadStat.FEEDBACK_STATS] = feedback.get("", {})
        return found

    async def turn_numbers(
        self, tenant_id: str, project_id: str, thread_id: str, trace_ids: Collection[str], /
    ) -> Mapping[str, int]:
        roots = roots_of(ThreadQuery(tenant_id, project_id), [thread_id], ())
        text = (
            "SELECT toString(run_id), turn FROM (SELECT run_id, "
            "row_number() OVER (ORDER BY start_time, run_id) AS turn "
            f"FROM ({roots.text})) WHERE run_id IN {{turns:Array(UUID)}}"
        )
        rows = await self._rows(Statement(text, {**roots.parameters, "turns": list(trace_ids)}))
        return {trace_id: int(turn) for trace_id, turn in rows}

    async def _in_order(self, query: ThreadQuery) -> list[tuple[str, Position]]:
        """Threads that match behind `query.after`, at least one more than the limit if there are."""
        sql = ThreadOrderSql(query)
        found: list[tuple[str, Position]] = []
        after, window = query.after, min(16 * query.limit + 16, _WIDEST_WINDOW_ROWS)
        horizon = self._horizon(query)
        floor_us = horizon.known if horizon else None
        until = None if floor_us is None else Position(floor_us, NIL_UUID)
        while len(found) <= query.limit:
            if until is None:
                border = await self._rows(sql.border(after, window))
                until = Position(*border[0]) if border else None
            rows = await self._rows(sql.threads(after, until))
            threads = {thread_id: Position(time_us, run_id) for thread_id, time_us, run_id in rows}
            eligible = await self._eligible(query, threads)
            found += [
                (thread_id, position) for thread_id, position in threads.items() if thread_id in eligible
            ]
            if until is None:
                break
            after, until = until, None
            window = min(4 * window, _WIDEST_WINDOW_ROWS)
        if horizon and len(found) > query.limit:
            horizon.learned(found[query.limit][1].start_time_us)
        return found

    def _horizon(self, query: ThreadQuery) -> Horizon[int] | None:
        """How far back the first page of such a query reaches; None for one that nothing is remembered of."""
        if query.after is not None or query.max_start_time_us is not None or query.thread_filter is not None:
            return None
        kind = replace(
            _root_query(query, None, query.filter),
            min_start_time_us=None,
            trace_filter=query.trace_filter,
            tree_filter=query.tree_filter,
            limit=query.limit,
        )
        return Horizon(self._horizons, kind, KeyRange(kind.project_ids))

    async def _eligible(self, query: ThreadQuery, thread_ids: Collection[str]) -> Collection[str]:
        """Those of the threads that satisfy the query's filters."""
        eligible = thread_ids
        if query.filter is not None and eligible:
            eligible = await self._with_root(_root_query(query, eligible, query.filter))
        if query.trace_filter is not None and eligible:
            columns = root_columns_of(query.trace_filter)
            sql = await self._about(query, roots_of(query, eligible, columns))
            eligible = await self._thread_ids(sql.threads_with_trace(query.trace_filter))
        if query.tree_filter is not None and eligible:
            roots = replace(_root_query(query, eligible), tree_filter=query.tree_filter)
            eligible = await self._with_root(roots)
        if query.thread_filter is not None and eligible:
            all_of_them = ThreadQuery(query.tenant_id, query.project_id)
            sql = await self._stats_sql(query, await self._roots(all_of_them, eligible))
            eligible = await self._thread_ids(sql.threads_that(query.thread_filter))
        return eligible

    async def _with_root(self, roots: RunQuery) -> set[str]:
        """The threads that have such a root."""
        matching = await self._runs.matching(roots, ("thread_id",))
        text = f"SELECT DISTINCT assumeNotNull(thread_id) FROM ({matching.text})"
        return await self._thread_ids(Statement(text, matching.parameters))

    async def _thread_ids(self, statement: Statement) -> set[str]:
        return {thread_id for (thread_id,) in await self._rows(statement)}

    async def _threads(self, query: ThreadQuery, positions: Mapping[str, Position]) -> list[Thread]:
        """The threads with what there is to say of them, in the order given."""
        if not positions:
            return []
        sql = await self._stats_sql(query, await self._roots(query, positions))
        summaries, feedback = await asyncio.gather(
            self._rows(sql.by_thread(LISTED_STATS)), self._feedback(sql, by_thread=True)
        )
        rows = {thread_id: values for thread_id, *values in summaries}
        landmarks = {
            RunKey(query.project_id, start_us, run_id)
            for values in rows.values()
            for run_id, start_us in zip(values[:3], values[3:6], strict=True)
            if run_id
        }
        previews = await self._previews(query, list(landmarks))
        threads = []
        for thread_id, position in positions.items():
            if thread_id not in rows:
                continue
            last, first, failed, _, _, _, *values = rows[thread_id]
            threads.append(
                Thread(
                    thread_id,
                    position,
                    first,
                    last,
                    previews.get(first, {}).get(RunField.INPUTS_PREVIEW),
                    previews.get(last, {}).get(RunField.OUTPUTS_PREVIEW),
                    previews.get(failed, {}).get(RunField.ERROR_PREVIEW),
                    {
                        **_stats(computed(LISTED_STATS), values),
                        ThreadStat.FEEDBACK_STATS: feedback.get(thread_id, {}),
                    },
                )
            )
        return threads

    async def _feedback(self, sql: ThreadStatsSql, *, by_thread: bool) -> dict[str, FeedbackByKey]:
        """Feedback on the runs of each thread, or of all together, under ""."""
        found: dict[str, dict[str, FeedbackStats]] = {}
        if not await self._rows(sql.any_feedback_at_all()) or not await self._rows(sql.any_feedback()):
            return {}
        for thread_id, key, *columns in await self._rows(sql.feedback(by_thread=by_thread)):
            found.setdefault(thread_id, {})[key] = stats_of(columns)
        return dict(found)

    async def _previews(
        self, query: ThreadQuery, keys: Sequence[RunKey]
    ) -> Mapping[str, Mapping[RunField, Any]]:
        runs = await self._runs.read_existing(RunQuery(query.tenant_id, _PREVIEWS), keys)
        return {run.position.run_id: run.values for run in runs}

    async def _roots(
        self, query: ThreadQuery, thread_ids: Collection[str] | None, condition: Condition | None = None
    ) -> Statement:
        """The merged roots in the window, of these threads or of any, that satisfy the condition."""
        if thread_ids and condition is None:
            return roots_of(query, thread_ids, ROOT_COLUMNS)
        return await self._runs.matching(_root_query(query, thread_ids, condition), ROOT_COLUMNS)

    async def _stats_sql(self, query: ThreadQuery, roots: Statement) -> ThreadStatsSql:
        """Statements about the traces below these roots."""
        rows = await self._rows(root_rows(roots, _FEW_ROOTS + 1))
        if len(rows) <= _FEW_ROOTS:
            roots = known_roots(rows, query.project_id)
        return await self._about(query, roots)

    async def _about(self, query: ThreadQuery, roots: Statement) -> ThreadStatsSql:
        sql = ThreadStatsSql(roots, query.tenant_id, query.project_id)
        span = await self._rows(sql.span())
        sql.bound(*(span[0] if span else (0, 0)))
        return sql

    async def _rows(self, statement: Statement) -> Sequence[Sequence[Any]]:
        return await self._engine.read(
            lambda client: client.query(statement.text, parameters=statement.parameters).result_rows
        )


def _root_query(
    query: ThreadQuery, thread_ids: Collection[str] | None, condition: Condition | None = None
) -> RunQuery:
    """Root runs in the window, of these threads or of any, that satisfy the condition."""
    of_thread = in_threads(thread_ids)
    return RunQuery(
        query.tenant_id,
        frozenset(),
        project_ids=(query.project_id,),
        is_root=True,
        min_start_time_us=query.min_start_time_us,
        max_start_time_us=query.max_start_time_us,
        filter=of_thread if condition is None else AllOf((of_thread, condition)),
    )


def _stats(names: Sequence[ThreadStat], values: Sequence[Any]) -> dict[ThreadStat, Any]:
    """Statistics that have a value."""
    stats = dict(zip(names, values, strict=True))
    return {name: value for name, value in stats.items() if value is not None and value != {}}
