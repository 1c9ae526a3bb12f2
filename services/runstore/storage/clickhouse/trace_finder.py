"""Finds the traces that meet what a query asks of the traces of its runs.

Traces are named by project and id. They are looked for among those of a few runs, so that the statement that
follows has their ids in place of the conditions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias
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
from runstore.domain.runs import RunKey, RunQuery
from runstore.storage.clickhouse.candidates import Rank
from runstore.storage.clickhouse.filter_sql import render
from runstore.storage.clickhouse.list_sql import (
    KeyRange,
    RunListSql,
    Statement,
    bind_keys,
    condition_of,
    conjuncts,
)
from runstore.storage.clickhouse.merged_sql import matching_runs
from runstore.storage.clickhouse.trace_sql import rows_of_roots

Trace: TypeAlias = tuple[str, str]
"""Project id and trace id."""


class Rows(Protocol):
    """Executes a statement."""

    async def __call__(self, statement: Statement) -> Sequence[Sequence[Any]]: ...


class TraceFinder:
    """Finds traces among those of a few runs. Every method raises StoreUnavailable."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def exact(self, query: RunQuery, keys: Sequence[RunKey]) -> Condition:
        """What the query asks, the same for the runs with these keys, that names the traces which meet its
        conditions on traces."""
        traces = await self.of_runs(query.tenant_id, keys)
        conditions: list[Condition] = []
        for part in conjuncts(condition_of(query)):
            match part:
                case _ if not traces:
                    return NEVER
                case TraceRoot(test):
                    traces = await self._with_root(query, traces, test)
                case SomeRunOfTrace(test):
                    traces = await self._with_run(query, traces, test)
                case _:
                    conditions.append(part)
        return AllOf((*conditions, in_traces(traces))) if traces else NEVER

    async def of_runs(self, tenant_id: str, keys: Sequence[RunKey]) -> list[Trace]:
        """The traces that these runs are in, and those that were taken for them."""
        parameters: dict[str, Any] = {"tenant": tenant_id}
        where = f"tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, keys)}"
        return await self._traces(f"SELECT project_id, trace_id FROM runs WHERE {where}", parameters)

    async def _with_root(self, query: RunQuery, traces: Sequence[Trace], test: Condition) -> list[Trace]:
        """Those of the traces whose root meets a condition."""
        parameters: dict[str, Any] = {"tenant": query.tenant_id, "traces": [trace for _, trace in traces]}
        rows = rows_of_roots("{traces:Array(UUID)}")
        of_root = render(AllOf((IS_ROOT, test)), "root_test", rows)
        roots = matching_runs(rows, [], of_root)
        found = await self._traces(
            f"SELECT project_id, run_id AS trace_id FROM ({roots})", parameters | of_root.parameters
        )
        among = set(traces)
        return [trace for trace in found if trace in among]

    async def _with_run(self, query: RunQuery, traces: Sequence[Trace], test: Condition) -> list[Trace]:
        """Those of the traces some run of which meets a condition."""
        parameters: dict[str, Any] = {"tenant": query.tenant_id, "traces": [trace for _, trace in traces]}
        projects = tuple({project for project, _ in traces})
        parameters["projects"] = list(projects)
        span = await self._rows(
            Statement(
                "SELECT toUnixTimestamp64Micro(min(first_start)), toUnixTimestamp64Micro(max(last_start)) "
                "FROM trace_keys WHERE tenant_id = {tenant:UUID} AND trace_id IN {traces:Array(UUID)} "
                "AND project_id IN {projects:Array(UUID)} HAVING count() > 0",
                parameters,
            )
        )
        if not span:
            return []
        sql = RunListSql(query, KeyRange(projects, *span[0]), AllOf((in_traces(traces), test)))
        # Others would be looked for in all of the time that the traces span.
        sql.candidates = [each for each in sql.candidates if each.rank <= Rank.TRACE]
        matching = sql.matching(["trace_id"])
        return await self._traces(f"SELECT project_id, trace_id FROM ({matching.text})", matching.parameters)

    async def _traces(self, rows: str, parameters: Mapping[str, Any]) -> list[Trace]:
        """Project and trace of all rows."""
        text = f"SELECT DISTINCT toString(project_id), toString(trace_id) FROM ({rows})"
        found = await self._rows(Statement(text, dict(parameters)))
        return [(project_id, trace_id) for project_id, trace_id in found]


NEVER = Always(value=False)
IS_ROOT = Compare(ScalarField.IS_ROOT, Relation.EQ, value=True)


def in_traces(traces: Iterable[Trace]) -> Condition:
    """The run is in one of the traces."""
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
    return AnyOf(in_projects) if in_projects else NEVER
