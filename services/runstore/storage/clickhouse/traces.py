"""What the runs of a trace, or of a part of one, used together."""

import heapq
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from runstore.domain.query_kinds import QueryKind
from runstore.domain.runs import RunField
from runstore.domain.traces import USAGE_FIELDS, Usage
from runstore.storage.clickhouse.columns import EPOCH, sql_time
from runstore.storage.clickhouse.engine import Engine
from runstore.storage.clickhouse.list_sql import Statement
from runstore.storage.clickhouse.query_watch import QueryWatch
from runstore.storage.clickhouse.usage_sql import HAS_USAGE, runs_with, usage_columns

_TIME = "DateTime64(6, 'UTC')"
# Ranges of start times that are read apart; shorter gaps are read over, because a granule is longer.
_MOST_RANGES = 16
_SHORTEST_GAP_US = 60_000_000

_MICROSECOND = sql_time(1) - EPOCH


class ClickHouseTraces:
    """`TraceReader` on an engine whose schema is up to date."""

    def __init__(self, engine: Engine, watch: QueryWatch) -> None:
        self._watch = watch
        self._engine = engine

    async def trace_usage(
        self,
        tenant_id: str,
        project_id: str,
        trace_ids: Collection[str],
        fields: Collection[RunField],
        /,
    ) -> Mapping[str, Usage]:
        shape = {"given": ["project_id", "trace_ids"], "limit": len(trace_ids), "fields": len(fields)}
        with self._watch.watch(QueryKind.USAGE, tenant_id, lambda: shape):
            return await self._trace_usage(tenant_id, project_id, trace_ids, fields)

    async def _trace_usage(
        self, tenant_id: str, project_id: str, trace_ids: Collection[str], fields: Collection[RunField]
    ) -> Mapping[str, Usage]:
        asked = _asked(fields)
        statement = await self._runs_of_traces(tenant_id, (project_id,), trace_ids, {"trace_id", *asked})
        if statement is None or not asked:
            return {}
        text = (
            f"SELECT toString(merged.trace_id), {usage_columns(asked)} FROM {statement.text} AS merged "
            "WHERE merged.trace_id IN {traces:Array(UUID)} GROUP BY merged.trace_id"
        )
        return await self._usage(Statement(text, statement.parameters), asked)

    async def subtree_usage(
        self,
        tenant_id: str,
        trace_ids: Collection[str],
        run_ids: Collection[str],
        fields: Collection[RunField],
        /,
    ) -> Mapping[str, Usage]:
        asked = _asked(fields)
        statement = await self._runs_of_traces(tenant_id, (), trace_ids, {"parent_run_ids", *asked})
        if statement is None or not asked:
            return {}
        text = (
            f"SELECT toString(above), {usage_columns(asked)} FROM (SELECT *, "
            f"arrayJoin(arrayPushBack(parent_run_ids, run_id)) AS above FROM {statement.text}) AS merged "
            "WHERE above IN {runs:Array(UUID)} GROUP BY above"
        )
        return await self._usage(Statement(text, {**statement.parameters, "runs": list(run_ids)}), asked)

    async def _runs_of_traces(
        self,
        tenant_id: str,
        project_ids: tuple[str, ...],
        trace_ids: Collection[str],
        columns: Collection[str],
    ) -> Statement | None:
        """A relation that holds every merged run of the traces that has used anything, among others; None
        when there is no trace."""
        parameters: dict[str, Any] = {"tenant": tenant_id, "traces": list(trace_ids)}
        where = "tenant_id = {tenant:UUID} AND trace_id IN {traces:Array(UUID)}"
        if project_ids:
            parameters["projects"] = list(project_ids)
            where += " AND project_id IN {projects:Array(UUID)}"
        text = (
            "SELECT toString(project_id), toUnixTimestamp64Micro(min(first_start)), "
            f"toUnixTimestamp64Micro(max(last_start)) FROM trace_keys WHERE {where} "
            "GROUP BY trace_id, project_id"
        )
        spans = await self._rows(Statement(text, parameters))
        if not spans:
            return None
        parameters["projects"] = sorted({project_id for project_id, _, _ in spans})
        times = []
        for index, (first_us, last_us) in enumerate(_ranges([(first, last) for _, first, last in spans])):
            parameters[f"first{index}"], parameters[f"last{index}"] = sql_time(first_us), sql_time(last_us)
            times.append(f"start_time BETWEEN {{first{index}:{_TIME}}} AND {{last{index}:{_TIME}}}")
        range_rows = (
            f"tenant_id = {{tenant:UUID}} AND project_id IN {{projects:Array(UUID)}} "
            f"AND ({' OR '.join(times)})"
        )
        return Statement(
            runs_with(range_rows, ["trace_id IN {traces:Array(UUID)}", HAS_USAGE], columns), parameters
        )

    async def _usage(self, statement: Statement, asked: Sequence[RunField]) -> Mapping[str, Usage]:
        rows = await self._rows(statement)
        return {group: usage_of(asked, values) for group, *values in rows}

    async def _rows(self, statement: Statement) -> Sequence[Sequence[Any]]:
        return await self._engine.read(
            lambda client: client.query(statement.text, parameters=statement.parameters).result_rows
        )


def usage_of(fields: Sequence[RunField], values: Sequence[Any]) -> Usage:
    """What the columns of `usage_columns` say; what no run has is left out."""
    usage = {
        field: time_us(value) if isinstance(value, datetime) else value
        for field, value in zip(fields, values, strict=True)
    }
    return {field: value for field, value in usage.items() if value is not None and value != {}}


def time_us(time: datetime) -> int:
    """Microseconds since the epoch of a time as the driver gives it."""
    return (time.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND


def _asked(fields: Collection[RunField]) -> list[RunField]:
    return [field for field in USAGE_FIELDS if field in fields]


def _ranges(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A few ranges that cover all spans, parted at the longest gaps between these."""
    spans.sort()
    ends = [spans[0][1]]
    for _, last in spans[1:]:
        ends.append(max(ends[-1], last))
    gaps = [(span[0] - end, index) for index, (span, end) in enumerate(zip(spans[1:], ends, strict=False), 1)]
    longest = heapq.nlargest(_MOST_RANGES - 1, (gap for gap in gaps if gap[0] > _SHORTEST_GAP_US))
    cuts = [0, *sorted(index for _, index in longest), len(spans)]
    return [(spans[begin][0], ends[end - 1]) for begin, end in pairwise(cuts)]
