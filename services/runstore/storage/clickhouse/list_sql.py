"""SQL that finds and merges runs.

A list reads a window: the newest (or oldest) rows of the key range, whose border is found by a
reverse read in key order; the rows inside are grouped per run and filtered. The caller moves the
window on until its page is full.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runstore.domain.blob_refs import MAX_HEADER_BYTES, OFFLOADED_FIELDS
from runstore.domain.runs import Position, RunField, RunKey, RunQuery
from runstore.storage.clickhouse.columns import (
    AGGREGATES,
    EXISTS,
    MERGED,
    PAYLOAD_BITS,
    Group,
    Present,
    sql_time,
)
from runstore.storage.clickhouse.filter_sql import render
from runstore.storage.clickhouse.merged_run import groups_of

_AGGREGATE_NAME = re.compile(r"\bm_[a-z_]+\b")


@dataclass(slots=True)
class Statement:
    """SQL text and the parameters it names."""

    text: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Part of the runs table: some projects between two times, both inclusive."""

    project_ids: tuple[str, ...]
    min_start_time_us: int | None = None
    max_start_time_us: int | None = None


PAYLOAD_FIELDS = {
    RunField.INPUTS: "inputs",
    RunField.OUTPUTS: "outputs",
    RunField.ERROR: "error",
    RunField.EVENTS: "events",
    RunField.EXTRA: "extra",
    RunField.METADATA: "extra",
    RunField.MANIFEST: "manifest",
}
"""Fields that live in the payload table, and their column there."""

PREVIEWED = {
    RunField.INPUTS_PREVIEW: "inputs",
    RunField.OUTPUTS_PREVIEW: "outputs",
    RunField.ERROR_PREVIEW: "error",
}
"""Fields that are made of the beginning of a payload when they are read."""

# More than `domain.previews` looks into.
_HEAD_BYTES = (1 << 18) + 1
# A reference, and enough of its head for a preview of JSON that is cut.
_REFERENCE_BYTES = MAX_HEADER_BYTES + 4_096


class RunListSql:
    """Renders the statements of one query over one key range."""

    def __init__(self, query: RunQuery, key_range: KeyRange) -> None:
        self._query = query
        self._parameters: dict[str, Any] = {
            "tenant": query.tenant_id,
            "projects": list(key_range.project_ids),
        }
        self._range = ["tenant_id = {tenant:UUID}", "project_id IN {projects:Array(UUID)}"]
        self._projects = key_range.project_ids
        for bound, operator, name in (
            (key_range.min_start_time_us, ">=", "min_start"),
            (key_range.max_start_time_us, "<=", "max_start"),
        ):
            if bound is not None:
                self._range.append(f"start_time {operator} {self._bind(name, sql_time(bound), _TIME)}")
        self._candidate = self._candidate_rows()
        self._order = "DESC" if query.descending else "ASC"
        self.groups = groups_of(query.fields)
        """Merged groups in the order in which pages return them, behind the key and `present`."""

    @property
    def is_selective(self) -> bool:
        """Whether runs inside a window can fail the query's conditions."""
        return len(self._conditions()) > 0 or self._candidate != ""

    def border(self, after: Position | None, rows: int) -> Statement:
        """The key of the `rows`-th candidate row behind `after`: no row when fewer are left."""
        order = f"ORDER BY start_time {self._order}, run_id {self._order}"
        branches = [
            f"(SELECT start_time, run_id FROM runs WHERE {self._rows(after, None, project=index)} {order} "
            f"LIMIT {rows})"
            for index in range(len(self._projects))
        ]
        source = f"({' UNION ALL '.join(branches)})"
        return Statement(
            f"SELECT toUnixTimestamp64Micro(start_time), toString(run_id) FROM {source} {order} "
            f"LIMIT 1 OFFSET {rows - 1}",
            self._parameters,
        )

    def page(self, after: Position | None, until: Position | None, limit: int) -> Statement:
        """Merged runs behind `after` up to and including `until`, in order, at most `limit`."""
        rows = self._rows(after, until)
        if self._candidate:
            range_rows = self._rows(after, until, candidates_only=False)
            rows = (
                f"{range_rows} AND (project_id, start_time, run_id) IN "
                f"(SELECT project_id, start_time, run_id FROM runs WHERE {rows})"
            )
        text = merged_runs(rows, self.groups, self._conditions(), self._order, limit)
        return Statement(text, self._parameters)

    def by_keys(self, keys: list[RunKey]) -> Statement:
        """Merged runs with these keys that meet the query's conditions, in order."""
        rows = " AND ".join([*self._range, bind_keys(self._parameters, keys)])
        conditions = [*self._conditions(), *self._behind()]
        text = merged_runs(rows, self.groups, conditions, self._order, self._query.limit + 1)
        return Statement(text, self._parameters)

    def matching(self, expressions: Iterable[str], keys: list[RunKey] | None = None) -> Statement:
        """All runs of the range, or those of them with these keys, that meet the query's conditions, in no
        order; see `matching_runs`."""
        rows = self._rows(None, None, candidates_only=False)
        if keys is not None:
            rows = f"{rows} AND {bind_keys(self._parameters, keys)}"
        elif self._candidate:
            candidates = self._rows(None, None)
            rows = (
                f"{rows} AND (project_id, start_time, run_id) IN "
                f"(SELECT project_id, start_time, run_id FROM runs WHERE {candidates})"
            )
        return Statement(matching_runs(rows, expressions, self._conditions()), self._parameters)

    def _bind(self, name: str, value: Any, sql_type: str) -> str:
        self._parameters[name] = value
        return f"{{{name}:{sql_type}}}"

    def _rows(
        self,
        after: Position | None,
        until: Position | None,
        *,
        project: int | None = None,
        candidates_only: bool = True,
    ) -> str:
        """Condition on partial rows: the range, between two positions, candidates only or all."""
        conditions = list(self._range)
        if project is not None:
            conditions[1] = f"project_id = {self._bind(f'project{project}', self._projects[project], 'UUID')}"
        behind, up_to = ("<", ">=") if self._query.descending else (">", "<=")
        for name, position, operator in (("after", after, behind), ("until", until, up_to)):
            if position is not None:
                conditions.append(self._beside(name, position, operator))
        if candidates_only and self._candidate:
            conditions.append(self._candidate)
        return " AND ".join(conditions)

    def _beside(self, name: str, position: Position, operator: str) -> str:
        """Rows on one side of a position. The bare time bound is what the primary index understands."""
        time = self._bind(f"{name}_time", sql_time(position.start_time_us), _TIME)
        run_id = self._bind(f"{name}_run", position.run_id, "UUID")
        loose = operator if operator.endswith("=") else operator + "="
        return f"start_time {loose} {time} AND (start_time, run_id) {operator} ({time}, {run_id})"

    def _behind(self) -> list[str]:
        if self._query.after is None:
            return []
        return [self._beside("after", self._query.after, "<" if self._query.descending else ">")]

    def _candidate_rows(self) -> str:
        """A condition that at least one partial row of every matching run meets; "" when none is known.

        Conditions on the position in the trace stand on one row together; others need not.
        """
        query = self._query
        if query.reference_example_ids:
            examples = self._bind("examples", list(query.reference_example_ids), "Array(UUID)")
            return f"reference_example_id IN {examples}"
        position = self._position_conditions()
        if position:
            return " AND ".join(position)
        if query.has_error:
            return f"bitAnd(present, {Present.ERROR.value}) != 0"
        return ""

    def _position_conditions(self) -> list[str]:
        query = self._query
        conditions = []
        if query.trace_id is not None:
            conditions.append(f"trace_id = {self._bind('trace', query.trace_id, 'UUID')}")
        if query.parent_run_id is not None:
            conditions.append(f"parent_run_ids[-1] = {self._bind('parent', query.parent_run_id, 'UUID')}")
        if query.is_root is not None:
            conditions.append("empty(parent_run_ids)" if query.is_root else "notEmpty(parent_run_ids)")
        return conditions

    def _conditions(self) -> list[str]:
        """Conditions on the merged run."""
        query = self._query
        conditions = self._position_conditions()
        if query.reference_example_ids:
            examples = self._bind("examples", list(query.reference_example_ids), "Array(UUID)")
            conditions.append(f"reference_example_id IN {examples}")
        if query.run_type is not None:
            conditions.append(f"run_type = {self._bind('run_type', query.run_type.value, 'String')}")
        if query.has_error is not None:
            conditions.append("has_error" if query.has_error else "NOT has_error")
        if query.filter is not None:
            rendered = render(query.filter, prefix="filter_")
            self._parameters.update(rendered.parameters)
            conditions.append(f"({rendered.text})")
        return conditions


_TIME = "DateTime64(6, 'UTC')"


def merged_runs(rows: str, groups: Sequence[str], conditions: list[str], order: str, limit: int) -> str:
    """Select the merged runs among the partial rows that `rows` admits: project id, start time in
    microseconds, run id, `present` and then the groups."""
    where = " AND ".join(conditions) if conditions else "1"
    merged = _merged(rows, _columns_in(where), groups)
    outputs = "".join(f", m_{group}" for group in groups)
    return (
        f"SELECT toString(project_id), toUnixTimestamp64Micro(start_time), toString(run_id), m_present"
        f"{outputs} FROM ({merged}) WHERE {where} "
        f"ORDER BY start_time {order}, run_id {order} LIMIT {limit}"
    )


def matching_runs(rows: str, expressions: Iterable[str], conditions: list[str]) -> str:
    """Select the merged runs among the partial rows that `rows` admits, for statistics: project_id,
    start_time, run_id and the columns of MERGED that the expressions name."""
    where = " AND ".join(conditions) if conditions else "1"
    columns = _columns_in(" ".join(expressions))
    merged = _merged(rows, {**columns, **_columns_in(where)}, ())
    names = ", ".join(["project_id", "start_time", "run_id", *columns])
    return f"SELECT {names} FROM ({merged}) WHERE {where}"


def _columns_in(text: str) -> dict[str, str]:
    """The columns of MERGED that SQL names."""
    return {name: MERGED[name] for name in re.findall(r"\b[a-z_]+\b", text) if name in MERGED}


def _merged(rows: str, columns: Mapping[str, str], groups: Sequence[str]) -> str:
    """The runs that exist, with their key, these columns and groups."""
    aggregates = {"m_present", *(f"m_{group}" for group in groups)}
    aggregates.update(_AGGREGATE_NAME.findall(" ".join(columns.values())))
    grouped = ", ".join(f"{AGGREGATES[name]} AS {name}" for name in sorted(aggregates))
    gone = f"maxIf(seq, bitAnd(present, {Present.GONE.value}) != 0)"
    merged = (
        f"SELECT project_id, start_time, run_id, {grouped} FROM runs WHERE {rows} "
        "GROUP BY project_id, start_time, run_id "
        f"HAVING bitAnd(m_present, {EXISTS.value}) = {EXISTS.value} AND max(seq) > {gone}"
    )
    if not columns:
        return merged
    return f"SELECT *, {', '.join(f'{text} AS {name}' for name, text in columns.items())} FROM ({merged})"


def payloads(tenant_id: str, keys: list[RunKey], columns: Mapping[str, bool]) -> Statement:
    """Payload columns of the runs with these keys: project id, run id, then per column its merged value,
    NULL when absent. A column is read whole (of a reference to a blob the beginning) or, if False, as far as
    a preview needs; `extra` comes as an array of all its values, oldest first."""
    parameters: dict[str, Any] = {"tenant": tenant_id}
    outputs = []
    for column, is_whole in columns.items():
        bit = PAYLOAD_BITS[column]
        if column == "extra":
            outputs.append(
                "arrayMap(row -> row.2, arraySort(row -> row.1, "
                f"groupArrayIf((seq, extra), bitAnd(present, {bit.value}) != 0)))"
            )
            continue
        value = Group((column,), bit).aggregate
        if not is_whole:
            value = f"substring({value}, 1, {_HEAD_BYTES})"
        elif column in OFFLOADED_FIELDS:
            value = f"if(startsWith({value}, '\\0'), substring({value}, 1, {_REFERENCE_BYTES}), {value})"
        outputs.append(f"if(bitAnd(groupBitOr(present), {bit.value}) != 0, {value}, NULL)")
    text = (
        f"SELECT toString(project_id), toString(run_id), {', '.join(outputs)} FROM run_payloads "
        f"WHERE tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, keys)} "
        "GROUP BY project_id, start_time, run_id"
    )
    return Statement(text, parameters)


def payload_sizes(tenant_id: str, keys: list[RunKey], columns: Collection[str]) -> Statement:
    """How much `payloads` reads of these columns, at most: project id, run id, bytes of all partial rows."""
    parameters: dict[str, Any] = {"tenant": tenant_id}
    sizes = [
        f"if(startsWith({column}, '\\0'), {_REFERENCE_BYTES}, length({column}))"
        if column in OFFLOADED_FIELDS
        else f"length({column})"
        for column in sorted(columns)
    ]
    text = (
        f"SELECT toString(project_id), toString(run_id), sum({' + '.join(sizes)}) FROM run_payloads "
        f"WHERE tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, keys)} "
        "GROUP BY project_id, start_time, run_id"
    )
    return Statement(text, parameters)


def bind_keys(parameters: dict[str, Any], keys: list[RunKey]) -> str:
    """Condition on rows of these keys."""
    parameters["key_projects"] = [key.project_id for key in keys]
    parameters["key_times"] = [key.start_time_us for key in keys]
    parameters["key_runs"] = [key.run_id for key in keys]
    return (
        "(project_id, start_time, run_id) IN (SELECT project, fromUnixTimestamp64Micro(time, 'UTC'), "
        "run FROM "
        "(SELECT arrayJoin(arrayZip({key_projects:Array(UUID)}, {key_times:Array(Int64)}, "
        "{key_runs:Array(UUID)})) AS key, key.1 AS project, key.2 AS time, key.3 AS run))"
    )
