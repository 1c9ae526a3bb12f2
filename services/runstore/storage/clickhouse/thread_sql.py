"""SQL that groups root runs into threads and sums their traces up.

Threads are made when they are asked for: a thread is the merged root runs of a project that name it, and
the skip index on `thread_id` finds these among the partial rows.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from runstore.domain.conditions import (
    Always,
    Compare,
    Condition,
    OneOf,
    Present,
    Relation,
    RowFamily,
    ScalarField,
    ThreadField,
)
from runstore.domain.runs import Position, RunField
from runstore.domain.threads import ThreadQuery, ThreadStat
from runstore.domain.traces import USAGE_FIELDS
from runstore.storage.clickhouse.columns import NIL_UUID, sql_time
from runstore.storage.clickhouse.feedback_sql import feedback_stats, merged_feedback
from runstore.storage.clickhouse.filter_sql import ConditionWriter, render
from runstore.storage.clickhouse.list_sql import Statement
from runstore.storage.clickhouse.operands import MONEY, Column
from runstore.storage.clickhouse.usage_sql import HAS_USAGE, runs_with, usage_columns

_TIME = "DateTime64(6, 'UTC')"
_NEWEST = "(root.start_time, root.run_id)"
_LATENCY = "root.latency"
_USED = re.compile(r"\bused\.([a-z_]+)")
_FIRST_TOKEN = "date_diff('microsecond', root.start_time, used.first_token_time) / 1e6"  # noqa: S105 - a time

_STATS: Mapping[ThreadStat, str] = {
    ThreadStat.THREAD_COUNT: "uniqExact(root.thread_id)",
    ThreadStat.TRACE_COUNT: "count()",
    ThreadStat.FAILED_TRACE_COUNT: "countIf(root.has_error)",
    ThreadStat.ERROR_RATE: "avgOrNull(root.has_error)",
    ThreadStat.STREAMING_RATE: "avgOrNullIf(used.first_token_time IS NOT NULL, root.end_time IS NOT NULL)",
    ThreadStat.FIRST_START_TIME: "toUnixTimestamp64Micro(minOrNull(root.start_time))",
    ThreadStat.LAST_START_TIME: "toUnixTimestamp64Micro(maxOrNull(root.start_time))",
    ThreadStat.LAST_END_TIME: "toUnixTimestamp64Micro(maxOrNull(root.end_time))",
    ThreadStat.LATENCY_P50: f"quantileExactInclusive(0.5)({_LATENCY})",
    ThreadStat.LATENCY_P99: f"quantileExactInclusive(0.99)({_LATENCY})",
    ThreadStat.FIRST_TOKEN_P50: f"quantileExactInclusive(0.5)({_FIRST_TOKEN})",
    ThreadStat.FIRST_TOKEN_P99: f"quantileExactInclusive(0.99)({_FIRST_TOKEN})",
    ThreadStat.MEDIAN_TOKENS: "quantileExact(0.5)(used.total_tokens)",
    ThreadStat.TOTAL_TOKENS: "ifNull(sum(used.total_tokens), 0)",
    ThreadStat.PROMPT_TOKENS: "ifNull(sum(used.prompt_tokens), 0)",
    ThreadStat.COMPLETION_TOKENS: "ifNull(sum(used.completion_tokens), 0)",
    ThreadStat.TOTAL_COST: "ifNull(sum(used.total_cost), 0)",
    ThreadStat.PROMPT_COST: "ifNull(sum(used.prompt_cost), 0)",
    ThreadStat.COMPLETION_COST: "ifNull(sum(used.completion_cost), 0)",
    ThreadStat.PROMPT_TOKEN_DETAILS: "sumMap(used.prompt_token_details)",
    ThreadStat.COMPLETION_TOKEN_DETAILS: "sumMap(used.completion_token_details)",
    ThreadStat.PROMPT_COST_DETAILS: "sumMap(used.prompt_cost_details)",
    ThreadStat.COMPLETION_COST_DETAILS: "sumMap(used.completion_cost_details)",
}
"""Over the root runs (`root`) and what their traces used (`used`)."""

_SUMMARY: Mapping[str, str] = {
    "turn_count": _STATS[ThreadStat.TRACE_COUNT],
    "num_errored_turns": _STATS[ThreadStat.FAILED_TRACE_COUNT],
    "thread_duration": ("date_diff('microsecond', min(root.start_time), maxOrNull(root.end_time)) / 1e6"),
    "trace_latency_p50": _STATS[ThreadStat.LATENCY_P50],
    "trace_latency_p99": _STATS[ThreadStat.LATENCY_P99],
    **{
        stat.value: _STATS[stat]
        for stat in (
            ThreadStat.TOTAL_TOKENS,
            ThreadStat.TOTAL_COST,
            ThreadStat.PROMPT_TOKEN_DETAILS,
            ThreadStat.COMPLETION_TOKEN_DETAILS,
            ThreadStat.PROMPT_COST_DETAILS,
            ThreadStat.COMPLETION_COST_DETAILS,
        )
    },
}
"""Columns of a thread that conditions name."""


def _seconds(field: ThreadField) -> Column:
    name = field.value
    return Column(name, frozenset({name}), True, f"{name} IS NOT NULL", "Float64")


def _number(name: str, number_type: str = "Int64") -> Column:
    return Column(name, frozenset({name}), number_type=number_type)


THREAD_SCALARS: Mapping[ScalarField | ThreadField, Column] = {
    ScalarField.THREAD_ID: Column("assumeNotNull(thread_id)", frozenset({"thread_id"})),
    ScalarField.TOTAL_TOKENS: _number("total_tokens"),
    ScalarField.TOTAL_COST: _number("total_cost", MONEY),
    ThreadField.TURN_COUNT: _number("turn_count"),
    ThreadField.NUM_ERRORED_TURNS: _number("num_errored_turns"),
    ThreadField.THREAD_DURATION: _seconds(ThreadField.THREAD_DURATION),
    ThreadField.TRACE_LATENCY_P50: _seconds(ThreadField.TRACE_LATENCY_P50),
    ThreadField.TRACE_LATENCY_P99: _seconds(ThreadField.TRACE_LATENCY_P99),
}

_USAGE = frozenset(field.value for field in USAGE_FIELDS)
_KEY = ("project_id", "start_time", "run_id")

ROOT_COLUMNS = ("thread_id", "has_error", "end_time", "latency")
"""Merged columns of the root runs that statistics need."""

# Of one thread: ids of its last, its first and its last failing trace, and their start times.
_LANDMARKS = (
    f"toString(argMax(root.run_id, {_NEWEST})), "
    f"toString(argMin(root.run_id, {_NEWEST})), "
    f"if(countIf(root.has_error) > 0, toString(argMaxIf(root.run_id, {_NEWEST}, root.has_error)), ''), "
    "toUnixTimestamp64Micro(max(root.start_time)), "
    "toUnixTimestamp64Micro(min(root.start_time)), "
    "toUnixTimestamp64Micro(maxIf(root.start_time, root.has_error))"
)


def computed(stats: Collection[ThreadStat]) -> list[ThreadStat]:
    """Those that the statements here compute, in their order."""
    return [stat for stat in _STATS if stat in stats]


def in_threads(thread_ids: Collection[str] | None) -> Condition:
    """The run is of one of these threads; of any when None."""
    if thread_ids is None:
        return Present(ScalarField.THREAD_ID)
    match list(thread_ids):
        case []:
            return Always(value=False)
        case [thread_id]:
            return Compare(ScalarField.THREAD_ID, Relation.EQ, thread_id)
        case several:
            return OneOf(ScalarField.THREAD_ID, tuple(several))


def roots_of(query: ThreadQuery, thread_ids: Collection[str], columns: Collection[str]) -> Statement:
    """The merged roots of these threads in the window: key and these columns."""
    parameters: dict[str, Any] = {"of_threads": list(thread_ids)}
    of_threads = "thread_id IN {of_threads:Array(String)}"
    roots = runs_with(
        _window(query, parameters),
        [f"{of_threads} AND {_IS_CANDIDATE}"],
        {*columns, "thread_id", "is_root"},
    )
    return Statement(f"SELECT * FROM {roots} WHERE is_root AND ifNull({of_threads}, false)", parameters)


def root_rows(roots: Statement, most: int) -> Statement:
    """The roots themselves, at most so many: run id, start time in microseconds, thread id, whether it
    failed, and the end in microseconds, NULL while there is none."""
    text = (
        "SELECT toString(run_id), toUnixTimestamp64Micro(start_time), assumeNotNull(thread_id), has_error, "
        f"toUnixTimestamp64Micro(end_time) FROM ({roots.text}) LIMIT {most}"
    )
    return Statement(text, roots.parameters)


def known_roots(rows: Sequence[Sequence[Any]], project_id: str) -> Statement:
    """The same relation of these rows, so that no statement looks for the roots again."""
    ids, starts, threads, failed, ends = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    parameters: dict[str, Any] = {
        "of_project": project_id,
        "root_ids": list(ids),
        "root_starts": list(starts),
        "root_threads": list(threads),
        "root_failed": list(failed),
        "root_ends": [_NO_END if end is None else end for end in ends],
    }
    end = f"if(root.5 = {_NO_END}, NULL, fromUnixTimestamp64Micro(root.5, 'UTC'))"
    text = (
        "SELECT {of_project:UUID} AS project_id, fromUnixTimestamp64Micro(root.2, 'UTC') AS start_time, "
        f"root.1 AS run_id, root.3 AS thread_id, root.4 AS has_error, {end} AS end_time, "
        f"if(root.5 = {_NO_END}, NULL, (root.5 - root.2) / 1e6) AS latency FROM (SELECT arrayJoin(arrayZip("
        "{root_ids:Array(UUID)}, {root_starts:Array(Int64)}, {root_threads:Array(String)}, "
        "{root_failed:Array(Bool)}, {root_ends:Array(Int64)})) AS root)"
    )
    return Statement(text, parameters)


# Before any time that the engine holds.
_NO_END = -(2**62)


def root_columns_of(condition: Condition) -> frozenset[str]:
    """Merged columns of the root that `ThreadStatsSql.threads_with_trace` needs."""
    return (render(condition).columns - _USAGE) | {"thread_id"}


class _ThreadConditionWriter(ConditionWriter):
    """Writes a condition on a thread's summary; its feedback is that on any run of its traces."""

    of_runs = ""
    """Selects the threads of the runs that pass `{test}`."""

    def _some_row(self, family: RowFamily, test: Condition) -> str:
        return f"thread_id IN ({self.of_runs.replace('{test}', super()._some_row(family, test))})"


def _window(query: ThreadQuery, parameters: dict[str, Any]) -> str:
    """Condition on rows: of the project, between the times of the query."""
    parameters.update(tenant=query.tenant_id, project=query.project_id)
    conditions = ["tenant_id = {tenant:UUID}", "project_id = {project:UUID}"]
    for bound, operator, name in (
        (query.min_start_time_us, ">=", "min_start"),
        (query.max_start_time_us, "<=", "max_start"),
    ):
        if bound is not None:
            parameters[name] = sql_time(bound)
            conditions.append(f"start_time {operator} {{{name}:{_TIME}}}")
    return " AND ".join(conditions)


# The position in the trace and the name of the thread stand on one row: an update repeats the position.
_IS_CANDIDATE = "thread_id != '' AND empty(parent_run_ids)"


class ThreadOrderSql:
    """Finds the threads of a window in their order: that of their latest root runs, as of one moment."""

    def __init__(self, query: ThreadQuery) -> None:
        self._parameters: dict[str, Any] = {}
        self._range = _window(query, self._parameters)
        if query.as_of is not None:
            self._parameters["as_of"] = query.as_of
            self._range += " AND seq <= {as_of:UInt64}"

    def border(self, after: Position | None, rows: int) -> Statement:
        """Key of the `rows`-th partial row of a thread's root behind `after`; no row when fewer are left."""
        behind = ""
        if after is not None:
            behind = f" AND start_time <= {self._time('after', after)} AND {self._key('after', after, '<')}"
        text = (
            "SELECT toUnixTimestamp64Micro(start_time), toString(run_id) FROM runs "
            f"WHERE {self._range} AND {_IS_CANDIDATE}{behind} "
            f"ORDER BY start_time DESC, run_id DESC LIMIT 1 OFFSET {rows - 1}"
        )
        return Statement(text, self._parameters)

    def threads(self, after: Position | None, until: Position | None) -> Statement:
        """The threads whose latest root is behind `after`, up to and including `until`: thread id, start time
        in microseconds and run id of that root."""
        rows, kept = self._range, []
        if until is not None:
            rows += f" AND start_time >= {self._time('until', until)}"
            kept.append(self._last(until, "until", ">="))
        if after is not None:
            kept.append(self._last(after, "after", "<"))
        roots = runs_with(rows, [_IS_CANDIDATE], ("thread_id", "is_root"))
        having = f"HAVING {' AND '.join(kept)} " if kept else ""
        text = (
            "SELECT assumeNotNull(thread_id), toUnixTimestamp64Micro(last.1), toString(last.2) FROM ("
            f"SELECT thread_id, max((start_time, run_id)) AS last FROM {roots} "
            f"WHERE is_root AND thread_id IS NOT NULL GROUP BY thread_id {having}) ORDER BY last DESC"
        )
        return Statement(text, self._parameters)

    def _time(self, name: str, position: Position) -> str:
        self._parameters[f"{name}_time"] = sql_time(position.start_time_us)
        return f"{{{name}_time:{_TIME}}}"

    def _key(self, name: str, position: Position, operator: str, key: str = "(start_time, run_id)") -> str:
        self._parameters[f"{name}_run"] = position.run_id
        return f"{key} {operator} ({self._time(name, position)}, {{{name}_run:UUID}})"

    def _last(self, position: Position, name: str, operator: str) -> str:
        return self._key(name, position, operator, "last")


class ThreadStatsSql:
    """Sums up the traces below some root runs."""

    def __init__(self, roots: Statement, tenant_id: str, project_id: str) -> None:
        """`roots` selects the root runs with their keys and ROOT_COLUMNS."""
        self._roots = roots.text
        # Of known roots the ids are there: the indexes on traces understand these at once.
        self._ids = f"(SELECT run_id FROM ({roots.text}))"
        if "root_ids" in roots.parameters:
            self._ids = "{root_ids:Array(UUID)}"
        self._parameters = {**roots.parameters, "tenant": tenant_id, "of_project": project_id}
        self._range = "tenant_id = {tenant:UUID} AND project_id = {of_project:UUID}"

    def span(self) -> Statement:
        """Between which times the runs of the traces started: two times in microseconds; no row without
        traces."""
        text = (
            "SELECT toUnixTimestamp64Micro(min(first_start)), toUnixTimestamp64Micro(max(last_start)) "
            f"FROM trace_keys WHERE {self._range} AND trace_id IN {self._ids} "
            "HAVING count() > 0"
        )
        return Statement(text, self._parameters)

    def bound(self, first_us: int, last_us: int) -> None:
        """Runs of the traces are looked for between these times."""
        self._parameters.update(of_first=sql_time(first_us), of_last=sql_time(last_us))
        self._range += f" AND start_time BETWEEN {{of_first:{_TIME}}} AND {{of_last:{_TIME}}}"

    def totals(self, stats: Collection[ThreadStat]) -> Statement:
        """One row: all traces summed up, in the order of `computed`."""
        columns = [_STATS[stat] for stat in computed(stats)]
        return Statement(f"SELECT {', '.join(columns)} FROM {self._traces(columns)}", self._parameters)

    def by_thread(self, stats: Collection[ThreadStat]) -> Statement:
        """A row for each thread: its id; ids of its last trace, its first and its last that failed ("" when
        none did); when these started, in microseconds; then the traces summed up."""
        columns = [_STATS[stat] for stat in computed(stats)]
        text = (
            f"SELECT assumeNotNull(root.thread_id), {_LANDMARKS}, {', '.join(columns)} "
            f"FROM {self._traces(columns)} GROUP BY root.thread_id"
        )
        return Statement(text, self._parameters)

    def any_feedback_at_all(self) -> Statement:
        """A row if the tenant has feedback on any run: if not, nothing else needs to be asked."""
        where = f"tenant_id = {{tenant:UUID}} AND run_id != toUUID('{NIL_UUID}')"
        return Statement(
            f"SELECT 1 FROM feedback WHERE {where} LIMIT 1", {"tenant": self._parameters["tenant"]}
        )

    def any_feedback(self) -> Statement:
        """A row if there is feedback on any run of the traces: else `feedback` is not worth its cost."""
        runs = f"SELECT run_id FROM runs WHERE {self._range} AND {self._of_roots}"
        text = f"SELECT 1 FROM feedback WHERE tenant_id = {{tenant:UUID}} AND run_id IN ({runs}) LIMIT 1"
        return Statement(text, self._parameters)

    def feedback(self, *, by_thread: bool) -> Statement:
        """Feedback on the runs of the traces: thread id, or "" if they are not told apart, key, and then what
        `stats_of` reads."""
        records = merged_feedback(
            f"tenant_id = {{tenant:UUID}} AND run_id IN (SELECT run_id FROM {self._runs('trace_id')})"
        )
        rows = (
            f"(SELECT feedback.*, assumeNotNull(root.thread_id) AS thread_id FROM {records} AS feedback "
            f"INNER JOIN {self._runs('trace_id')} AS run ON run.run_id = feedback.run_id "
            f"INNER JOIN ({self._roots}) AS root ON root.run_id = run.trace_id)"
        )
        return Statement(feedback_stats(rows, "thread_id" if by_thread else "''"), self._parameters)

    def threads_with_trace(self, condition: Condition) -> Statement:
        """The threads some trace of which meets a condition on its root, with the usage of the whole trace in
        place of the root's own. The roots have the other columns that `root_columns_of` names."""
        test = render(condition, "trace_test", self._range)
        used = sorted(test.columns & _USAGE)
        columns = [f"root.{name} AS {name}" for name in (*_KEY, "thread_id", *sorted(test.columns - _USAGE))]
        columns += [f"used.{name} AS {name}" for name in used]
        text = (
            "SELECT DISTINCT assumeNotNull(thread_id) FROM (SELECT "
            f"{', '.join(dict.fromkeys(columns))} FROM {self._traces(columns)}) WHERE {test.text}"
        )
        return Statement(text, {**self._parameters, **test.parameters})

    def threads_that(self, condition: Condition) -> Statement:
        """The threads that meet a condition on threads."""
        writer = _ThreadConditionWriter("thread_test", {}, self._range, THREAD_SCALARS)
        writer.of_runs = (
            f"SELECT root.thread_id FROM ({self._roots}) AS root INNER JOIN (SELECT trace_id FROM "
            f"{self._runs('trace_id')} WHERE {{test}}) AS run ON run.trace_id = root.run_id"
        )
        test = writer.condition(condition)
        columns = [f"{_SUMMARY[name]} AS {name}" for name in sorted(writer.columns - {"thread_id"})]
        summary = ", ".join(["root.thread_id AS thread_id", *columns])
        text = (
            "SELECT assumeNotNull(thread_id) FROM ("
            f"SELECT {summary} FROM {self._traces(columns)} GROUP BY root.thread_id) WHERE {test}"
        )
        return Statement(text, {**self._parameters, **writer.parameters})

    def _traces(self, expressions: list[str]) -> str:
        """The roots, joined with what their traces used as far as the expressions ask for it."""
        fields = [RunField(name) for name in sorted(set(_USED.findall(" ".join(expressions))))]
        if not fields:
            return f"({self._roots}) AS root"
        columns = ("trace_id", *(field.value for field in fields))
        runs = runs_with(self._range, [self._of_roots, HAS_USAGE], columns)
        return (
            f"({self._roots}) AS root LEFT JOIN (SELECT merged.trace_id AS trace_id, {usage_columns(fields)} "
            f"FROM {runs} AS merged GROUP BY merged.trace_id) AS used ON used.trace_id = root.run_id"
        )

    def _runs(self, *columns: str) -> str:
        """All runs of the traces, among others."""
        return runs_with(self._range, [self._of_roots], columns)

    @property
    def _of_roots(self) -> str:
        return f"trace_id IN {self._ids}"
