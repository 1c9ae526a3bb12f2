"""Finds the runs that a query means, with as few statements as it can be told from the first of them.

Candidates that are few are looked up in one go, whatever part of the range they lie in. Where there are many,
the nearest are looked up, and then a window moves through the range until its page is full: then matches are
common, and near. Only keys are found; but a query without conditions reads the rows of its runs at once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from runstore.domain.conditions import (
    AllOf,
    Condition,
    SomeRunOfTrace,
    TraceRoot,
)
from runstore.domain.runs import Position, RunField, RunKey, RunPlace, RunQuery, StoredRun
from runstore.storage.clickhouse.candidates import Candidate, Rank
from runstore.storage.clickhouse.columns import NIL_UUID
from runstore.storage.clickhouse.horizons import Horizon, Memory, Way
from runstore.storage.clickhouse.list_sql import (
    KeyRange,
    RunListSql,
    Statement,
    condition_of,
    conjuncts,
)
from runstore.storage.clickhouse.merged_run import MergedRun, columns_of
from runstore.storage.clickhouse.trace_finder import IS_ROOT, NEVER, TraceFinder, in_traces

_FEW = 1_024
"""Rows of a candidate that are looked up in one go; also the rows of the first window."""
_FEW_IN_TRACES = 4_096
"""Rows of a candidate whose traces are looked up."""
_WIDEST_WINDOW_ROWS = 1_000_000
_FEW_PROJECTS = 4
"""Rows of more are not read before it is known which of them make the page."""


class Rows(Protocol):
    """Executes a statement."""

    async def __call__(self, statement: Statement) -> Sequence[Sequence[Any]]: ...


class Places(Protocol):
    """Knows where runs are."""

    async def keys_of(self, tenant_id: str, run_ids: Collection[str], /) -> list[RunKey]:
        """Current keys of the runs that are stored."""
        ...

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        """Where the runs are stored; those that are not are left out."""
        ...


class Merging(Protocol):
    """Knows what partial rows say together."""

    async def merge(
        self,
        query: RunQuery,
        rows: Sequence[Sequence[Any]],
        columns: Sequence[str],
        passes: Callable[[MergedRun], bool],
        most: int,
        /,
    ) -> dict[RunKey, StoredRun]:
        """The first `most` runs among partial rows that exist and pass, in the order of the rows."""
        ...


class FoundRuns(NamedTuple):
    """Keys of runs in order, and the runs where they have been read on the way."""

    keys: list[RunKey]
    runs: Mapping[RunKey, StoredRun] | None = None
    is_dense: bool = False
    """Whether hardly any other runs of their projects lie between them."""


class _Narrowed(NamedTuple):
    """How to find the runs of a query."""

    sql: RunListSql
    nearest: list[RunKey]
    """Of the only runs behind the position asked for that can match, in order."""
    border: Position | None = None
    """How far `nearest` reaches; None for everything."""
    is_open: bool = False
    """Whether nothing is known of which runs can match."""

    @property
    def few(self) -> list[RunKey] | None:
        """Keys of the only runs that can match, if they are few."""
        return None if self.is_open or self.border else self.nearest


class RunFinder:
    """Answers questions on the runs table. Every method raises StoreUnavailable."""

    def __init__(self, rows: Rows, places: Places, merging: Merging) -> None:
        self._rows = rows
        self._places = places
        self._merging = merging
        self._horizons: Memory[int] = OrderedDict()
        self._ways: Memory[Way] = OrderedDict()
        self._traces = TraceFinder(rows)
        self._reaches: Memory[int] = OrderedDict()

    async def page(self, query: RunQuery) -> FoundRuns:
        """Runs behind `query.after`, in order, at most one more than `query.limit`."""
        if query.run_ids:
            return FoundRuns(await self._by_ids(query))
        key_range = await self._key_range(query)
        if 0 < len(key_range.project_ids) <= _FEW_PROJECTS and _is_plain(query):
            found = await self._plain(query, key_range)
            if found is not None:
                return found
        return FoundRuns(await self._conditional(query, key_range))

    async def matching(self, query: RunQuery, expressions: Iterable[str]) -> Statement:
        """SQL of all runs that the query means; see `merged_sql.matching_runs`."""
        if query.run_ids:
            keys, key_range = await self._named(query)
            sql = RunListSql(query, key_range, condition_of(query))
        else:
            narrowed = await self._narrowed(query, await self._key_range(query))
            if narrowed.few is None:
                return narrowed.sql.matching(expressions)
            keys, sql = narrowed.few, narrowed.sql
        return sql.matching_among(keys, await self._condition(sql, keys), expressions)

    # -- by id -----------------------------------------------------------------------------------

    async def _by_ids(self, query: RunQuery) -> list[RunKey]:
        keys, key_range = await self._named(query)
        condition = condition_of(query)
        if not keys or (
            len(keys) == 1 and condition is None and query.after is None and not key_range.is_bound
        ):
            return keys  # Whether the run exists is seen when it is read.
        return await self._among(RunListSql(query, key_range, condition), keys, query.limit + 1)

    async def _named(self, query: RunQuery) -> tuple[list[RunKey], KeyRange]:
        """Keys of the runs that the query names, and the range that they are in."""
        keys = await self._places.keys_of(query.tenant_id, query.run_ids)
        if query.project_ids:
            keys = [key for key in keys if key.project_id in query.project_ids]
        projects = tuple({key.project_id for key in keys})
        return keys, KeyRange(projects, query.min_start_time_us, query.max_start_time_us)

    # -- by position -----------------------------------------------------------------------------

    async def _plain(self, query: RunQuery, key_range: KeyRange) -> FoundRuns | None:
        """Read partial rows until one run more than the page holds is complete; None when few of them are of
        such runs, so that it is better to find these first."""
        condition = condition_of(query)
        sql = RunListSql(query, key_range, condition)
        columns = columns_of(query.fields | _TESTED_FIELDS if condition else query.fields)
        horizon = Horizon(self._horizons, query, key_range)
        most, floor_us, after = 2 * query.limit + 16, horizon.known, query.after
        most_read = _WIDEST_WINDOW_ROWS
        if condition is not None:
            # Of several conditions one finds the rows, most of which may not meet the others.
            most_read = 16 * most if len(conjuncts(condition)) == 1 else most
        passes = partial(_passes, query)
        runs: dict[RunKey, StoredRun] = {}
        while most <= most_read:
            rows = await self._rows(sql.partial_rows(columns, after, most, floor_us))
            is_cut = len(rows) >= most
            if is_cut:
                horizon.learned(rows[-1][1])
                most *= 4
                rows = _before_the_cut(rows)
            runs |= await self._merging.merge(query, rows, columns, passes, query.limit + 1 - len(runs))
            if len(runs) > query.limit or (not is_cut and floor_us is None):
                return FoundRuns(list(runs), runs, is_dense=condition is None)
            if not is_cut:
                floor_us = None
            if rows:
                after = Position(*rows[-1][1:3])
        return None

    async def _conditional(self, query: RunQuery, key_range: KeyRange) -> list[RunKey]:
        """Until one run more than the page holds is found."""
        if _asks_of_traces(query):
            return (await self._search(query, key_range))[0]
        wanted = query.limit + 1
        ways = Horizon(self._ways, query, key_range)
        if (way := ways.known) is not None:
            sql = RunListSql(query, key_range, condition_of(query))
            if way.driver is not None:
                sql.drive_by(sql.candidates[way.driver])
            until = None if way.floor_us is None else Position(way.floor_us, NIL_UUID)
            found = await self._keys(sql.page(query.after, until, wanted))
            if until is None or len(found) == wanted:
                ways.learned(way if until is None else way._replace(floor_us=found[-1].start_time_us))
                return found
        found, new_way = await self._search(query, key_range)
        if new_way is not None:
            ways.learned(new_way)
        return found

    async def _search(self, query: RunQuery, key_range: KeyRange) -> tuple[list[RunKey], "Way | None"]:
        """The keys, and how to find them at once; None for those that are found soon enough."""
        sql, nearest, border, is_open = await self._narrowed(query, key_range)
        wanted = query.limit + 1
        # Most of the nearest match, or few do; of a trace some.
        likely = (wanted + wanted // 4) * (3 if _asks_of_traces(query) else 1)
        found = await self._among(sql, nearest[:likely], wanted)
        after = query.after
        if len(found) < wanted and len(nearest) > likely:
            found += await self._among(sql, nearest[likely:], wanted - len(found))
        if border is None and not is_open:
            return found, Way(found[-1].start_time_us, sql.driver) if len(found) == wanted else None
        after = border or query.after
        window = _FEW if sql.condition is not None else 2 * query.limit + 16
        walked = window
        while len(found) < wanted:
            rows = await self._rows(sql.border(after, window))
            until = Position(*rows[0]) if rows else None
            page = await self._keys(sql.page(after, until, wanted - len(found)))
            found += page
            if until is None:
                break
            after = until
            window = min((4 if page else 16) * window, _WIDEST_WINDOW_ROWS)
            walked += window
        if walked > _WIDEST_WINDOW_ROWS:
            return found, None
        return found, Way(found[-1].start_time_us if len(found) == wanted else None, sql.driver)

    async def _among(self, sql: RunListSql, keys: Sequence[RunKey], limit: int) -> list[RunKey]:
        if not keys or (condition := await self._condition(sql, keys)) == NEVER:
            return []
        return await self._keys(sql.among(keys, limit, condition))

    async def _condition(self, sql: RunListSql, keys: Sequence[RunKey]) -> Condition | None:
        """The same as the question's for the runs with these keys, without conditions on traces."""
        if not _asks_of_traces(sql.query):
            return sql.condition
        return await self._traces.exact(sql.query, keys)

    async def _keys(self, statement: Statement) -> list[RunKey]:
        return [RunKey(*row) for row in await self._rows(statement)]

    async def _narrowed(self, query: RunQuery, key_range: KeyRange) -> _Narrowed:
        condition = condition_of(query)
        sql = RunListSql(query, key_range, condition)
        if not key_range.project_ids:
            return _Narrowed(sql, [])
        narrowed = await self._nearest(sql, query.after, _FEW, Horizon(self._horizons, query, key_range))
        if narrowed.few is not None or not _asks_of_traces(query):
            return narrowed
        for part in conjuncts(condition):
            among = await self._may_be_in(query, key_range, part)
            if among is not None:
                sql = RunListSql(query, key_range, AllOf((among, *conjuncts(condition))))
                return await self._nearest(sql, query.after, _FEW, Horizon(self._reaches, query, key_range))
        return narrowed

    async def _nearest(
        self, sql: RunListSql, after: Position | None, most: int, horizon: "Horizon[int] | None" = None
    ) -> _Narrowed:
        """The keys behind `after` that one of the candidates has, if it has less than `most` rows there; else
        those that the sparsest has, which then drives the search: its rows reach furthest."""
        candidates = sql.promising
        if not candidates:
            return _Narrowed(sql, [], is_open=True)
        floor_us = horizon.known if horizon else None

        async def rows_of(candidate: Candidate) -> Sequence[Sequence[Any]]:
            rows = await self._rows(sql.nearest(candidate, after, most, floor_us))
            if floor_us is not None and len(rows) < most:
                rows = await self._rows(sql.nearest(candidate, after, most, None))
            return rows

        found = []
        if candidates[0].rank <= Rank.METADATA:
            # These are few, as a rule: then there is no need to look for others.
            found = [await rows_of(candidates[0])]
        if not found or len(found[0]) == most:
            found += await asyncio.gather(*map(rows_of, candidates[len(found) :]))
        complete = [rows for rows in found if len(rows) < most]
        if complete:
            fewest = min(complete, key=len)
            sql.drive_by(candidates[found.index(fewest)])
            return _Narrowed(sql, _distinct(fewest))
        sparsest = (min if sql.descending else max)(range(len(found)), key=lambda n: found[n][-1][1])
        sql.drive_by(candidates[sparsest])
        rows = found[sparsest]
        if horizon:
            horizon.learned(rows[-1][1])
        if not (rows := _before_the_cut(rows)):
            return _Narrowed(sql, [], is_open=True)  # One run, perhaps in other projects, too.
        return _Narrowed(sql, _distinct(rows), Position(*rows[-1][1:3]))

    # -- traces ----------------------------------------------------------------------------------

    async def _may_be_in(self, query: RunQuery, key_range: KeyRange, part: Condition) -> Condition | None:
        """For a condition on the trace of a run: that it is in one of the only traces that can meet it, if
        these are few."""
        match part:
            case TraceRoot(test):
                decisive: Condition = AllOf((IS_ROOT, test))
            case SomeRunOfTrace(test):
                decisive = test
            case _:
                return None
        # The runs of a trace may lie outside of the times that the query asks about.
        sql = RunListSql(query, KeyRange(key_range.project_ids), decisive)
        # Roots are never few, nor are the runs of a type.
        sql.candidates = [each for each in sql.candidates if each.rank < Rank.KIND]
        keys = (await self._nearest(sql, None, _FEW_IN_TRACES)).few
        if keys is None:
            return None
        if isinstance(part, TraceRoot):
            # A root has the id of its trace.
            return in_traces((key.project_id, key.run_id) for key in keys)
        return in_traces(await self._traces.of_runs(query.tenant_id, keys) if keys else [])

    async def _key_range(self, query: RunQuery) -> KeyRange:
        """Projects and times to look in, as narrow as the query's conditions allow."""
        bounds = KeyRange(query.project_ids, query.min_start_time_us, query.max_start_time_us)
        trace_id = query.trace_id
        if trace_id is None and query.parent_run_id is not None:
            place = (await self._places.places(query.tenant_id, [query.parent_run_id])).get(
                query.parent_run_id
            )
            trace_id = place.trace_id if place is not None else None
        if trace_id is not None:
            text = (
                "SELECT toString(project_id), toUnixTimestamp64Micro(min(first_start)), "
                "toUnixTimestamp64Micro(max(last_start)) FROM trace_keys "
                "WHERE tenant_id = {tenant:UUID} AND trace_id = {trace:UUID} GROUP BY project_id"
            )
            return _narrowed(
                bounds, await self._rows(Statement(text, {"tenant": query.tenant_id, "trace": trace_id}))
            )
        if query.project_ids:
            return bounds
        # The runs of an example, or the children of a run that has not come, may be anywhere.
        parameters: dict[str, Any] = {"tenant": query.tenant_id}
        if query.reference_example_ids:
            parameters["examples"] = list(query.reference_example_ids)
            condition = "reference_example_id IN {examples:Array(UUID)}"
        else:
            parameters["parent"] = query.parent_run_id
            condition = "parent_run_ids[-1] = {parent:UUID}"
        text = (
            "SELECT toString(project_id), toUnixTimestamp64Micro(min(start_time)), "
            "toUnixTimestamp64Micro(max(start_time)) FROM runs WHERE tenant_id = {tenant:UUID} "
            f"AND {condition} GROUP BY project_id"
        )
        return _narrowed(bounds, await self._rows(Statement(text, parameters)))


def _asks_of_traces(query: RunQuery) -> bool:
    return query.trace_filter is not None or query.tree_filter is not None


_TESTED_FIELDS = frozenset({RunField.TRACE_ID, RunField.PARENT_RUN_IDS, RunField.RUN_TYPE})


def _is_plain(query: RunQuery) -> bool:
    """Whether the query asks of runs no more than what `_passes` tests."""
    asks_more = query.reference_example_ids or query.has_error is not None
    return not asks_more and query.filter is query.trace_filter is query.tree_filter is None


def _passes(query: RunQuery, run: MergedRun) -> bool:
    """Whether a run, of which `_TESTED_FIELDS` are known, meets the conditions of a plain query."""
    return (
        (query.trace_id is None or run.field(RunField.TRACE_ID) == query.trace_id)
        and (query.parent_run_id is None or query.parent_run_id in run.field(RunField.PARENT_RUN_IDS)[-1:])
        and (query.is_root is None or run.field(RunField.IS_ROOT) is query.is_root)
        and (query.run_type is None or run.field(RunField.RUN_TYPE) == query.run_type.value)
    )


def _before_the_cut(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Rows (key first) that a limit has ended, without those at the last position: there may be more."""
    return [row for row in rows if row[1:3] != rows[-1][1:3]]


def _distinct(rows: Sequence[Sequence[Any]]) -> list[RunKey]:
    """Keys in order, each once."""
    return list(dict.fromkeys(RunKey(*row) for row in rows))


def _narrowed(bounds: KeyRange, found: Sequence[Sequence[Any]]) -> KeyRange:
    """`bounds` cut down to where the rows (project id, first start, last start) lie."""
    kept = [row for row in found if not bounds.project_ids or row[0] in bounds.project_ids]
    if not kept:
        return KeyRange(())
    low, high = min(row[1] for row in kept), max(row[2] for row in kept)
    return replace(
        bounds,
        project_ids=tuple(row[0] for row in kept),
        min_start_time_us=low if bounds.min_start_time_us is None else max(low, bounds.min_start_time_us),
        max_start_time_us=high if bounds.max_start_time_us is None else min(high, bounds.max_start_time_us),
    )
