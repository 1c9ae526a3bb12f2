"""Statistics over merged runs: one pass for the numbers, one each for facets and feedback if asked for."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from runstore.domain.query_kinds import QueryKind
from runstore.domain.run_stats import (
    Facet,
    FacetField,
    GroupAttribute,
    Grouping,
    GroupStats,
    StatsField,
    StatsQuery,
)
from runstore.domain.runs import RunQuery
from runstore.storage.clickhouse.columns import NIL_UUID
from runstore.storage.clickhouse.engine import Engine
from runstore.storage.clickhouse.feedback_sql import feedback_stats, merged_feedback, stats_of
from runstore.storage.clickhouse.filter_sql import metadata_texts
from runstore.storage.clickhouse.list_sql import Statement
from runstore.storage.clickhouse.query_watch import QueryWatch, watched

_MAX_FACETS = 20
"""Values per facet field."""


def _percentile(level: float, value: str) -> str:
    return f"quantileExactInclusive({level})({value})"


def _whole_percentile(level: float, value: str) -> str:
    return f"quantileExact({level})({value})"


def _summed(details: str) -> str:
    return f"mapFilter((category, amount) -> amount != 0, sumMap({details}))"


_FIRST_TOKEN = "date_diff('microsecond', start_time, first_token_time) / 1e6"  # noqa: S105 - a time
_COST = "toFloat64(total_cost)"

_NUMBERS: dict[StatsField, str] = {
    StatsField.RUN_COUNT: "count()",
    StatsField.LATENCY_P50: _percentile(0.5, "latency"),
    StatsField.LATENCY_P99: _percentile(0.99, "latency"),
    StatsField.LATENCY_AVG: "avg(latency)",
    StatsField.FIRST_TOKEN_P50: _percentile(0.5, _FIRST_TOKEN),
    StatsField.FIRST_TOKEN_P99: _percentile(0.99, _FIRST_TOKEN),
    StatsField.TOTAL_TOKENS: "ifNull(sum(total_tokens), 0)",
    StatsField.PROMPT_TOKENS: "ifNull(sum(prompt_tokens), 0)",
    StatsField.COMPLETION_TOKENS: "ifNull(sum(completion_tokens), 0)",
    StatsField.MEDIAN_TOKENS: _whole_percentile(0.5, "total_tokens"),
    StatsField.COMPLETION_TOKENS_P50: _whole_percentile(0.5, "completion_tokens"),
    StatsField.PROMPT_TOKENS_P50: _whole_percentile(0.5, "prompt_tokens"),
    StatsField.TOKENS_P99: _whole_percentile(0.99, "total_tokens"),
    StatsField.COMPLETION_TOKENS_P99: _whole_percentile(0.99, "completion_tokens"),
    StatsField.PROMPT_TOKENS_P99: _whole_percentile(0.99, "prompt_tokens"),
    StatsField.LAST_RUN_START_TIME: "toUnixTimestamp64Micro(maxOrNull(start_time))",
    StatsField.ERROR_RATE: "avgOrNull(has_error)",
    StatsField.STREAMING_RATE: "avgOrNull(first_token_time IS NOT NULL)",
    StatsField.TOTAL_COST: "ifNull(sum(total_cost), 0)",
    StatsField.PROMPT_COST: "ifNull(sum(prompt_cost), 0)",
    StatsField.COMPLETION_COST: "ifNull(sum(completion_cost), 0)",
    StatsField.COST_P50: _percentile(0.5, _COST),
    StatsField.COST_P99: _percentile(0.99, _COST),
    StatsField.PROMPT_TOKEN_DETAILS: _summed("prompt_token_details"),
    StatsField.COMPLETION_TOKEN_DETAILS: _summed("completion_token_details"),
    StatsField.PROMPT_COST_DETAILS: _summed("prompt_cost_details"),
    StatsField.COMPLETION_COST_DETAILS: _summed("completion_cost_details"),
}
"""SQL of each number over columns of merged runs."""

_FACETS: dict[FacetField, str] = {
    FacetField.NAME: "[name]",
    FacetField.RUN_TYPE: "[toString(run_type)]",
    FacetField.STATUS: "[status]",
    FacetField.TAGS: "arrayDistinct(tags)",
}

_GROUPS: dict[GroupAttribute, str] = {
    GroupAttribute.PROJECT: "[toString(project_id)]",
    GroupAttribute.NAME: "[name]",
    GroupAttribute.RUN_TYPE: "[toString(run_type)]",
    GroupAttribute.TAG: "arrayDistinct(tags)",
}
"""SQL of the array of groups that a run is in; that of METADATA depends on the path."""


_ANY_FEEDBACK = (
    f"SELECT 1 FROM feedback WHERE tenant_id = {{tenant:UUID}} AND run_id != toUUID('{NIL_UUID}') LIMIT 1"
)
_ALL = "''"
"""The group of all runs."""


class Runs(Protocol):
    """Finds the runs that a query means."""

    async def matching(self, query: RunQuery, expressions: Iterable[str], /) -> Statement:
        """SQL of the runs, one row each, in no order: key, and the merged columns that expressions name."""
        ...


class ClickHouseRunStats:
    """`RunStatsReader` over the runs of a store."""

    def __init__(self, engine: Engine, runs: Runs, watch: QueryWatch) -> None:
        self._watch = watch
        self._engine = engine
        self._runs = runs

    @watched(QueryKind.STATS)
    async def run_stats(self, query: StatsQuery, /) -> list[GroupStats]:
        numbers = [field for field in query.fields if field in _NUMBERS]
        expressions = [_NUMBERS[field] for field in numbers]
        facets = list(_FACETS.values()) if StatsField.RUN_FACETS in query.fields else []
        groups = _groups(query.grouping)
        runs = await self._runs.matching(query.runs, [*expressions, *facets, groups.text])
        runs.parameters.update(groups.parameters)
        members = f"(SELECT *, arrayJoin({groups.text}) AS run_group FROM ({runs.text}))"
        found: _Found = {"": {}}  # All runs together are a group, also when there are none.
        if numbers or query.grouping is not None:
            found = {
                group: dict(zip(numbers, values, strict=True))
                for group, *values in await self._rows(_numbers(members, runs, expressions, query.grouping))
            }
        if query.grouping is not None:
            runs.parameters["found"] = list(found)
            members = f"(SELECT * FROM {members} WHERE run_group IN {{found:Array(String)}})"
        if facets:
            _add_facets(found, await self._rows(_facets(members, runs)))
        if StatsField.FEEDBACK_STATS in query.fields:
            has_any = await self._rows(Statement(_ANY_FEEDBACK, {"tenant": query.runs.tenant_id}))
            rows = await self._rows(_feedback_of_runs(members, runs, query.grouping)) if has_any else ()
            _add_feedback(found, StatsField.FEEDBACK_STATS, rows)
        if StatsField.SESSION_FEEDBACK_STATS in query.fields:
            rows = await self._rows(_feedback_of_projects(query))
            _add_feedback(found, StatsField.SESSION_FEEDBACK_STATS, rows)
        return [
            GroupStats(group, {field: value for field, value in values.items() if value is not None})
            for group, values in found.items()
        ]

    async def _rows(self, statement: Statement) -> Sequence[Sequence[Any]]:
        return await self._engine.read(
            lambda client: client.query(statement.text, parameters=statement.parameters).result_rows
        )


def _groups(grouping: Grouping | None) -> Statement:
    """Array of the groups that a run is in, as an expression."""
    if grouping is None:
        return Statement(f"[{_ALL}]", {})
    if grouping.attribute is GroupAttribute.METADATA:
        texts = metadata_texts(grouping.path, prefix="group_path_")
        return Statement(texts.text, texts.parameters)
    return Statement(_GROUPS[grouping.attribute], {})


def _numbers(
    members: str, runs: Statement, expressions: Sequence[str], grouping: Grouping | None
) -> Statement:
    """A row for each group, the largest first: group, then the numbers."""
    if grouping is None:
        # Without GROUP BY there is a row for no runs, too.
        return Statement(f"SELECT {', '.join([_ALL, *expressions])} FROM {members}", runs.parameters)
    parameters = {**runs.parameters, "groups": list(grouping.values)}
    where = "WHERE run_group IN {groups:Array(String)} " if grouping.values else ""
    return Statement(
        f"SELECT {', '.join(['run_group', *expressions])} FROM {members} {where}"
        f"GROUP BY run_group ORDER BY count() DESC, run_group LIMIT {grouping.max_groups:d}",
        parameters,
    )


def _facets(members: str, runs: Statement) -> Statement:
    """Group, field, value and count of the commonest values, the commonest first."""
    pairs = ", ".join(
        f"arrayMap(value -> ('{field.value}', value), {values})" for field, values in _FACETS.items()
    )
    return Statement(
        "SELECT run_group, facet.1 AS facet_field, facet.2 AS facet_value, count() AS runs FROM "
        f"(SELECT run_group, arrayJoin(arrayConcat({pairs})) AS facet FROM {members}) "
        "GROUP BY run_group, facet_field, facet_value ORDER BY runs DESC, facet_value "
        f"LIMIT {_MAX_FACETS} BY run_group, facet_field",
        runs.parameters,
    )


def _feedback_of_runs(members: str, runs: Statement, grouping: Grouping | None) -> Statement:
    records = merged_feedback(f"tenant_id = {{tenant:UUID}} AND run_id IN (SELECT run_id FROM {members})")
    if grouping is None:
        return Statement(feedback_stats(records, _ALL), runs.parameters)
    rows = (
        f"(SELECT records.*, members.run_group AS run_group FROM {records} AS records "
        f"INNER JOIN (SELECT run_id, run_group FROM {members}) AS members ON records.run_id = members.run_id)"
    )
    return Statement(feedback_stats(rows, "run_group"), runs.parameters)


def _feedback_of_projects(query: StatsQuery) -> Statement:
    """What was said of the projects themselves; runs grouped by anything else have none of it."""
    parameters = {"tenant": query.runs.tenant_id, "projects": list(query.runs.project_ids)}
    records = merged_feedback(f"tenant_id = {{tenant:UUID}} AND run_id = toUUID('{NIL_UUID}')")
    rows = f"(SELECT * FROM {records} WHERE project_id IN {{projects:Array(UUID)}})"
    by_project = query.grouping is not None and query.grouping.attribute is GroupAttribute.PROJECT
    return Statement(feedback_stats(rows, "toString(project_id)" if by_project else _ALL), parameters)


_Found = dict[str, dict[StatsField, Any]]


def _add_facets(found: _Found, rows: Sequence[Sequence[Any]]) -> None:
    for values in found.values():
        values[StatsField.RUN_FACETS] = []
    for group, field, value, count in rows:
        found[group][StatsField.RUN_FACETS].append(Facet(FacetField(field), value, count))


def _add_feedback(found: _Found, field: StatsField, rows: Sequence[Sequence[Any]]) -> None:
    for values in found.values():
        values[field] = {}
    for group, key, *columns in rows:
        if group in found:
            found[group][field][key] = stats_of(columns)
