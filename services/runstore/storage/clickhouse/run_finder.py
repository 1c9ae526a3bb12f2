"""Finds the runs that a query means, with as few statements as it can be told from the first of them.

Candidates that are few are read in one go, whatever part of the range they lie in. Where there are many, a
window moves through the range until its page is full: then matches are common, and near.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from runstore.domain.conditions import (
    AllOf,
    Always,
    AnyOf,
    Compare,
    Condition,
    OneOf,
    Relation,
    ScalarField,
    SomeRunOfTrace,
    TraceRoot,
)
from runstore.domain.runs import Position, RunKey, RunPlace, RunQuery, StoredRun
from runstore.storage.clickhouse.list_sql import (
    KeyRange,
    RunListSql,
    Statement,
    bind_keys,
    condition_of,
    conjuncts,
)
from runstore.storage.clickhouse.merged_run import COST_FIELDS, MergedRun, Prices

FoundRun: TypeAlias = tuple[RunKey, StoredRun]

_FEW = 1_024
"""Rows of a candidate that are read in one go; also the rows of the first window."""
_FEW_IN_TRACES = 4_096
"""Rows of a candidate whose traces are looked up."""
_WIDEST_WINDOW_ROWS = 1_000_000


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


class _Narrowed(NamedTuple):
    """How to find the runs of a query."""

    sql: RunListSql
    """With the rarest candidate first."""
    few: list[RunKey] | None
    """Of the only runs that can match, if they are few."""
    border: Position | None
    """Where the first window ends, if that is known."""


class RunFinder:
    """Answers questions on the runs table. Every method raises StoreUnavailable."""

    def __init__(self, rows: Rows, places: Places) -> None:
        self._rows = rows
        self._places = places

    async def page(self, query: RunQuery) -> list[FoundRun]:
        """Runs behind `query.after`, in order, at most one more than `query.limit`."""
        return await (self._by_ids(query) if query.run_ids else self._by_position(query))

    async def matching(self, query: RunQuery, expressions: Iterable[str]) -> Statement:
        """SQL of all runs that the query means; see `merged_sql.matching_runs`."""
        if query.run_ids:
            keys, key_range = await self._named(query)
            return RunListSql(query, key_range, condition_of(query)).matching(expressions, keys)
        sql, few, _ = await self._narrowed(query, await self._key_range(query))
        return sql.matching(expressions, few)

    # -- by id -----------------------------------------------------------------------------------

    async def _by_ids(self, query: RunQuery) -> list[FoundRun]:
        keys, key_range = await self._named(query)
        if not keys:
            return []
        sql = RunListSql(query, key_range, condition_of(query))
        return await self._found(sql, sql.by_keys(keys))

    async def _named(self, query: RunQuery) -> tuple[list[RunKey], KeyRange]:
        """Keys of the runs that the query names, and the range that they are in."""
        keys = await self._places.keys_of(query.tenant_id, query.run_ids)
        if query.project_ids:
            keys = [key for key in keys if key.project_id in query.project_ids]
        projects = tuple({key.project_id for key in keys})
        return keys, KeyRange(projects, query.min_start_time_us, query.max_start_time_us)

    # -- by position -----------------------------------------------------------------------------

    async def _by_position(self, query: RunQuery) -> list[FoundRun]:
        """Until one run more than the page holds is found."""
        sql, few, until = await self._narrowed(query, await self._key_range(query))
        if few is not None:
            return await self._found(sql, sql.by_keys(few)) if few else []
        window = _FEW if sql.condition is not None else 2 * query.limit + 16
        found: list[FoundRun] = []
        after = query.after
        while len(found) <= query.limit:
            if until is None:
                border = await self._rows(sql.border(after, window))
                until = Position(*border[0]) if border else None
            page = sql.page(after, until, query.limit + 1 - len(found))
            found += await self._found(sql, page)
            if until is None:
                break
            after, until = until, None
            window = min(4 * window, _WIDEST_WINDOW_ROWS)
        return found

    async def _narrowed(self, query: RunQuery, key_range: KeyRange) -> _Narrowed:
        condition = condition_of(query)
        sql = RunListSql(query, key_range, condition)
        if not key_range.project_ids:
            return _Narrowed(sql, [], None)
        few, border = await self._few(sql, query.after, _FEW)
        if few == [] or (query.trace_filter is None and query.tree_filter is None):
            return _Narrowed(sql, few, border)
        known = await self._traces_of(query, few) if few is not None else None
        conditions: list[Condition] = []
        for part in conjuncts(condition):
            exact = await self._traces_with(query, key_range, part, known)
            conditions.append(exact or part)
            known = exact or known
        if known is None:
            return _Narrowed(sql, few, border)
        sql = RunListSql(query, key_range, AllOf(tuple(conditions)))
        if few is None:
            few, border = await self._few(sql, query.after, _FEW)
        return _Narrowed(sql, few, border)

    async def _few(
        self, sql: RunListSql, after: Position | None, most: int
    ) -> tuple[list[RunKey] | None, Position | None]:
        """The keys behind `after` that one of the candidates has, if it has less than `most` rows there.

        If none has, that with the fewest is made the first of them: its rows reach furthest. How far they do
        is told instead of keys.
        """
        statements = [sql.nearest(candidate, after, most) for candidate in sql.promising]
        found = await asyncio.gather(*map(self._rows, statements))
        complete = [rows for rows in found if len(rows) < most]
        if complete:
            return list(dict.fromkeys(RunKey(*row) for row in min(complete, key=len))), None
        if not found:
            return None, None
        reach = [rows[-1][1] for rows in found]
        sparsest = reach.index(min(reach) if sql.descending else max(reach))
        sql.prefer(sparsest)
        return None, Position(*found[sparsest][-1][1:])

    # -- traces ----------------------------------------------------------------------------------

    async def _traces_with(
        self, query: RunQuery, key_range: KeyRange, condition: Condition, known: Condition | None
    ) -> Condition | None:
        """For a condition on the trace of a run: the same as the ids of all traces that meet it, if the runs
        that decide it are few. `known` is a condition that these runs have to meet, too."""
        match condition:
            case TraceRoot(test):
                parts = [known, Compare(ScalarField.IS_ROOT, Relation.EQ, value=True), test]
            case SomeRunOfTrace(test):
                parts = [known, test]
            case _:
                return None
        # The runs of a trace may lie outside of the times that the query asks about.
        everywhere = KeyRange(key_range.project_ids)
        sql = RunListSql(query, everywhere, AllOf(tuple(part for part in parts if part is not None)))
        keys, _ = await self._few(sql, None, _FEW_IN_TRACES)
        if keys is None:
            return None
        return _in_traces(await self._rows(_traces(sql.matching(["trace_id"], keys))) if keys else [])

    async def _traces_of(self, query: RunQuery, keys: list[RunKey]) -> Condition:
        """The run is in a trace of one of these runs, or in one that was taken for it."""
        parameters: dict[str, Any] = {"tenant": query.tenant_id}
        where = f"tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, keys)}"
        rows = Statement(f"SELECT project_id, trace_id FROM runs WHERE {where}", parameters)
        return _in_traces(await self._rows(_traces(rows)) if keys else [])

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

    async def _found(self, sql: RunListSql, statement: Statement) -> list[FoundRun]:
        """The runs that the statement, one of `sql`, selects."""
        query = sql.query
        places = {column: place for place, column in enumerate(sql.columns)}
        runs = [
            MergedRun(query.tenant_id, RunKey(*key), places, rows)
            for *key, rows in await self._rows(statement)
        ]
        is_priced = query.fields & COST_FIELDS and any(run.needs_price() for run in runs)
        prices = await self._prices() if is_priced else {}
        return [
            (
                run.key,
                StoredRun(Position(run.key.start_time_us, run.key.run_id), run.fields(query.fields, prices)),
            )
            for run in runs
        ]

    async def _prices(self) -> Prices:
        """Every price that runs were charged by; a few hundred at most."""
        text = (
            "SELECT toString(price_model_id), any(prompt_prices), any(completion_prices) "
            "FROM model_prices GROUP BY price_model_id"
        )
        return {row[0]: (row[1], row[2]) for row in await self._rows(Statement(text, {}))}


def _traces(rows: Statement) -> Statement:
    """Project and trace of all rows."""
    text = f"SELECT DISTINCT toString(project_id), toString(trace_id) FROM ({rows.text})"
    return Statement(text, rows.parameters)


def _in_traces(traces: Sequence[Sequence[Any]]) -> Condition:
    """The run is in one of the traces, given by project and id."""
    by_project: dict[str, list[UUID]] = {}
    for project_id, trace_id in traces:
        by_project.setdefault(project_id, []).append(UUID(trace_id))
    in_projects = tuple(
        AllOf(
            (
                OneOf(ScalarField.TRACE_ID, tuple(sorted(ids))),
                Compare(ScalarField.PROJECT_ID, Relation.EQ, UUID(project_id)),
            )
        )
        for project_id, ids in by_project.items()
    )
    return AnyOf(in_projects) if in_projects else Always(value=False)


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
