"""SQL that finds the keys of runs, and reads the rows of runs whose keys are known.

Keys are found in a window: the newest (or oldest) rows of the key range, whose border is found by a
reverse read in key order; the rows inside are grouped per run and filtered. Where the query's conditions
have candidates (`candidates`), only rows of these are counted and grouped. `run_finder` moves the window on
until its page is full.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from runstore.domain.blob_refs import MAX_HEADER_BYTES, OFFLOADED_FIELDS
from runstore.domain.conditions import (
    AllOf,
    Compare,
    Condition,
    Not,
    OneOf,
    Present,
    Relation,
    Scalar,
    ScalarField,
    SomeRunOfTrace,
    TextField,
    TraceRoot,
)
from runstore.domain.runs import Position, RunField, RunKey, RunQuery
from runstore.storage.clickhouse.candidates import Candidate, CandidateWriter, Rank
from runstore.storage.clickhouse.columns import PAYLOAD_BITS, sql_time
from runstore.storage.clickhouse.filter_sql import render
from runstore.storage.clickhouse.merged_run import selected
from runstore.storage.clickhouse.merged_sql import (
    KEY,
    SELECTED_KEY,
    SqlCondition,
    keys_of_runs,
    matching_runs,
)


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

    @property
    def is_bound(self) -> bool:
        """Whether it leaves any time out."""
        return self.min_start_time_us is not None or self.max_start_time_us is not None


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


# Branches of a statement that reads every project and source in key order; more are read out of order.
_MOST_BRANCHES = 100
# More candidates than this would cost a window more than they save.
_MOST_CANDIDATES = 3


def condition_of(query: RunQuery) -> Condition | None:
    """Everything that a query asks of a run but its id, its project and its time; None for nothing."""
    conditions = [
        *_equal(ScalarField.TRACE_ID, query.trace_id and UUID(query.trace_id)),
        *_equal(ScalarField.PARENT_RUN_ID, query.parent_run_id and UUID(query.parent_run_id)),
        *_equal(ScalarField.IS_ROOT, query.is_root),
        *_equal(ScalarField.RUN_TYPE, query.run_type and query.run_type.value),
    ]
    if query.reference_example_ids:
        examples = tuple(UUID(each) for each in query.reference_example_ids)
        conditions.append(OneOf(ScalarField.REFERENCE_EXAMPLE_ID, examples))
    if query.has_error is not None:
        failed = Present(TextField.ERROR)
        conditions.append(failed if query.has_error else Not(failed))
    if query.filter is not None:
        conditions.append(query.filter)
    if query.trace_filter is not None:
        conditions.append(TraceRoot(query.trace_filter))
    if query.tree_filter is not None:
        conditions.append(SomeRunOfTrace(query.tree_filter))
    return AllOf(tuple(conditions)) if conditions else None


def conjuncts(condition: Condition | None) -> tuple[Condition, ...]:
    """Conditions that hold together."""
    if condition is None:
        return ()
    return condition.conditions if isinstance(condition, AllOf) else (condition,)


def _equal(field: ScalarField, value: Scalar | None, /) -> list[Condition]:
    return [] if value is None else [Compare(field, Relation.EQ, value)]


class RunListSql:
    """Renders the statements of one question over one key range."""

    def __init__(self, query: RunQuery, key_range: KeyRange, condition: Condition | None) -> None:
        """`condition` is what runs have to meet besides being in the range."""
        self.query = query
        self.condition = condition
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
        writer = CandidateWriter("candidate")
        self.candidates = writer.candidates(condition)[:_MOST_CANDIDATES] if condition else []
        """The first counts the rows of windows: it is that with the fewest, as a rule."""
        self.driver: int | None = None
        """Which of them has been chosen to be the only one."""
        self._parameters.update(writer.parameters)
        self.descending = query.descending
        self._order = "DESC" if query.descending else "ASC"

    @property
    def promising(self) -> list[Candidate]:
        """The candidates that may have few rows: ids of runs or traces have, and then the others need not be
        asked for."""
        return [each for each in self.candidates if each.rank <= Rank.TRACE] or self.candidates

    def drive_by(self, candidate: Candidate) -> None:
        """Look at no other rows than this candidate's."""
        self.driver = self.candidates.index(candidate)
        self.candidates = [candidate]

    def border(self, after: Position | None, rows: int) -> Statement:
        """The key of the `rows`-th row behind `after`, of the first candidate if there is one: no row when
        fewer are left."""
        text = self._nearest(self.candidates[0] if self.candidates else None, after, rows)
        return Statement(
            f"SELECT toUnixTimestamp64Micro(start_time), toString(run_id) FROM ({text}) {self._by_position} "
            f"LIMIT 1 OFFSET {rows - 1}",
            self._parameters,
        )

    def nearest(
        self, candidate: Candidate, after: Position | None, rows: int, floor_us: int | None
    ) -> Statement:
        """The keys of the first `rows` rows of the candidate behind `after`, in order; none that began before
        `floor_us`."""
        text = self._nearest(candidate, after, rows, floor_us)
        return Statement(
            f"SELECT {SELECTED_KEY} FROM ({text}) {self._by_position} LIMIT {rows}", self._parameters
        )

    def page(self, after: Position | None, until: Position | None, limit: int) -> Statement:
        """Keys of runs behind `after` up to and including `until` that meet the condition, in order, at most
        `limit`."""
        return self._keys(self._rows_of_candidates(self._rows(after, until)), limit, self.condition)

    def among(self, keys: Sequence[RunKey], limit: int, condition: Condition | None) -> Statement:
        """Those of the keys behind `query.after` whose runs exist and meet a condition, which may be said
        otherwise for these runs, in order, at most `limit`."""
        parameters: dict[str, Any] = {}
        rows = f"{self._rows(self.query.after)} AND {bind_keys(parameters, keys)}"
        found = self._keys(rows, limit, condition)
        return Statement(found.text, found.parameters | parameters)

    def partial_rows(
        self, columns: Sequence[str], after: Position | None, rows: int, floor_us: int | None
    ) -> Statement:
        """Key and columns of the first `rows` partial rows behind `after`, in order; none that began before
        `floor_us`. With candidates, of the first `rows` rows of the first candidate, and of all other rows of
        their runs."""
        if self.candidates:
            keys = self._nearest(self.candidates[0], after, rows, floor_us)
            nearest = f"SELECT {KEY} FROM ({keys}) {self._by_position} LIMIT {rows}"
            return Statement(
                f"SELECT {SELECTED_KEY}, {selected(columns)} FROM runs "
                f"WHERE {self._rows(after, floor_us=floor_us)} "
                f"AND ({KEY}) IN ({nearest}) {self._by_position}",
                self._parameters,
            )
        if len(self._projects) == 1:
            return Statement(
                f"SELECT {SELECTED_KEY}, {selected(columns)} FROM runs "
                f"WHERE {self._rows(after, project=0, floor_us=floor_us)} {self._by_position} LIMIT {rows}",
                self._parameters,
            )
        names = ", ".join(columns)
        branches = " UNION ALL ".join(
            f"(SELECT {KEY}, {names} FROM runs WHERE {self._rows(after, project=project, floor_us=floor_us)} "
            f"{self._by_position} LIMIT {rows})"
            for project in range(len(self._projects))
        )
        return Statement(
            f"SELECT {SELECTED_KEY}, {selected(columns)} FROM ({branches}) {self._by_position} LIMIT {rows}",
            self._parameters,
        )

    def matching(self, expressions: Iterable[str]) -> Statement:
        """All runs of the range that meet the condition, in no order; see `matching_runs`."""
        rows = self._rows_of_candidates(self._rows(None))
        text = matching_runs(rows, expressions, self._sql_condition(self.condition, rows))
        return Statement(text, self._parameters)

    def matching_among(
        self, keys: Sequence[RunKey], condition: Condition | None, expressions: Iterable[str]
    ) -> Statement:
        """As `matching`, of the runs with these keys that meet a condition."""
        rows = f"{self._rows(None)} AND {bind_keys(self._parameters, keys)}"
        text = matching_runs(rows, expressions, self._sql_condition(condition, rows))
        return Statement(text, self._parameters)

    def _bind(self, name: str, value: Any, sql_type: str) -> str:
        self._parameters[name] = value
        return f"{{{name}:{sql_type}}}"

    @property
    def _by_position(self) -> str:
        return f"ORDER BY start_time {self._order}, run_id {self._order}"

    def _nearest(
        self, candidate: Candidate | None, after: Position | None, rows: int, floor_us: int | None = None
    ) -> str:
        sources = [(each.table, each.where) for each in candidate.sources] if candidate else [("runs", "")]
        projects: Iterable[int | None] = range(len(self._projects))
        if len(sources) * len(self._projects) > _MOST_BRANCHES:
            projects = [None]
        branches = []
        for table, where in sources:
            for project in projects:
                key_range = self._rows(after, project=project, floor_us=floor_us)
                conditions = " AND ".join(filter(None, [key_range, where]))
                branches.append(
                    f"(SELECT {KEY} FROM {table} WHERE {conditions} {self._by_position} LIMIT {rows})"
                )
        return " UNION ALL ".join(branches)

    def _rows(
        self,
        after: Position | None,
        until: Position | None = None,
        *,
        project: int | None = None,
        floor_us: int | None = None,
    ) -> str:
        """Condition on the key: the range, between two positions."""
        conditions = list(self._range)
        if floor_us is not None:
            conditions.append(f"start_time >= fromUnixTimestamp64Micro({floor_us:d}, 'UTC')")
        if project is not None:
            conditions[1] = f"project_id = {self._bind(f'project{project}', self._projects[project], 'UUID')}"
        behind, up_to = ("<", ">=") if self.query.descending else (">", "<=")
        for name, position, operator in (("after", after, behind), ("until", until, up_to)):
            if position is not None:
                conditions.append(self._beside(name, position, operator))
        return " AND ".join(conditions)

    def _rows_of_candidates(self, rows: str) -> str:
        """Condition on the key: runs with rows in `rows` that have a row in every candidate."""
        found = [
            " UNION ALL ".join(
                f"SELECT {KEY} FROM {source.table} WHERE {rows} AND {source.where}"
                for source in candidate.sources
            )
            for candidate in self.candidates
        ]
        return " AND ".join([rows, *(f"({KEY}) IN ({keys})" for keys in found)])

    def _keys(self, rows: str, limit: int, condition: Condition | None) -> Statement:
        text = keys_of_runs(rows, self._sql_condition(condition, rows), self._by_position, limit)
        return Statement(text, self._parameters)

    def _sql_condition(self, condition: Condition | None, rows: str) -> SqlCondition | None:
        if condition is None:
            return None
        rendered = render(condition, "filter", rows)
        self._parameters.update(rendered.parameters)
        return rendered

    def _beside(self, name: str, position: Position, operator: str) -> str:
        """Rows on one side of a position. The bare time bound is what the primary index understands."""
        time = self._bind(f"{name}_time", sql_time(position.start_time_us), _TIME)
        run_id = self._bind(f"{name}_run", position.run_id, "UUID")
        loose = operator if operator.endswith("=") else operator + "="
        return f"start_time {loose} {time} AND (start_time, run_id) {operator} ({time}, {run_id})"


_TIME = "DateTime64(6, 'UTC')"


def rows_of(tenant_id: str, keys: Sequence[RunKey], columns: Sequence[str]) -> Statement:
    """Key and columns of all partial rows with these keys."""
    parameters: dict[str, Any] = {"tenant": tenant_id}
    text = (
        f"SELECT {SELECTED_KEY}, {selected(columns)} FROM runs "
        f"WHERE tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, keys)}"
    )
    return Statement(text, parameters)


def payloads(
    tenant_id: str, keys: Sequence[RunKey], columns: Mapping[str, bool], *, is_dense: bool
) -> Statement:
    """Payload columns of the runs with these keys: key, `present`, and per column its merged value, "" when
    absent. A column is read whole (of a reference to a blob the beginning) or, if False, as far as a preview
    needs; `extra` comes as an array of all its values, oldest first. If `is_dense`, a run may come under
    other keys, too."""
    parameters: dict[str, Any] = {"tenant": tenant_id}
    outputs = []
    for column, is_whole in columns.items():
        said = f"bitAnd(present, {PAYLOAD_BITS[column].value}) != 0"
        if column == "extra":
            pairs = f"arraySort(row -> row.1, groupArrayIf((seq, extra), {said}))"
            outputs.append(f"arrayMap(row -> row.2, {pairs})")
            continue
        value = column
        if not is_whole:
            value = f"substring({column}, 1, {_HEAD_BYTES})"
        elif column in OFFLOADED_FIELDS:
            value = f"if(startsWith({column}, '\0'), substring({column}, 1, {_REFERENCE_BYTES}), {column})"
        outputs.append(f"argMaxIf({value}, seq, {said})")
    text = (
        f"SELECT {SELECTED_KEY}, groupBitOr(present), {', '.join(outputs)} FROM run_payloads "
        f"WHERE tenant_id = {{tenant:UUID}} AND {(bind_range if is_dense else bind_keys)(parameters, keys)} "
        f"GROUP BY {KEY}"
    )
    return Statement(text, parameters)


def payload_sizes(tenant_id: str, keys: Sequence[RunKey], columns: Collection[str]) -> Statement:
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


def bind_range(parameters: dict[str, Any], keys: Sequence[RunKey]) -> str:
    """Condition on rows of these runs from the first key to the last: much less to parse and to plan."""
    parameters["projects"] = list({key.project_id for key in keys})
    parameters["first"] = sql_time(min(key.start_time_us for key in keys))
    parameters["last"] = sql_time(max(key.start_time_us for key in keys))
    parameters["runs"] = [key.run_id for key in keys]
    return (
        f"project_id IN {{projects:Array(UUID)}} AND start_time >= {{first:{_TIME}}} "
        f"AND start_time <= {{last:{_TIME}}} AND run_id IN {{runs:Array(UUID)}}"
    )


def bind_keys(parameters: dict[str, Any], keys: Sequence[RunKey]) -> str:
    """Condition on rows of these keys."""
    parameters["keys"] = [(key.project_id, sql_time(key.start_time_us), key.run_id) for key in keys]
    return f"({KEY}) IN {{keys:Array(Tuple(UUID, {_TIME}, UUID))}}"
