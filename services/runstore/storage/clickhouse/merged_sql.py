"""SQL that merges the partial rows of runs, and keeps the runs that meet a condition."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runstore.storage.clickhouse.columns import AGGREGATES, EXISTS, MERGED, Present

KEY = "project_id, start_time, run_id"
"""Of a run, within its tenant; columns of every table that knows runs."""

_COLUMN_NAME = re.compile(r"\b[a-z_]+\b")
_AGGREGATE_NAME = re.compile(r"\bm_[a-z_]+\b")


@dataclass(frozen=True, slots=True)
class SqlCondition:
    """A boolean expression, the values of its parameters, and the merged columns that it reads."""

    text: str
    parameters: dict[str, object]
    columns: frozenset[str]


def merged_runs(
    rows: str, groups: Sequence[str], condition: SqlCondition | None, order: str, limit: int
) -> str:
    """Select the merged runs among the partial rows that `rows` admits: project id, start time in
    microseconds, run id, `present` and then the groups."""
    merged = _merged(rows, condition.columns if condition else (), groups)
    outputs = "".join(f", m_{group}" for group in groups)
    return (
        "SELECT toString(project_id), toUnixTimestamp64Micro(start_time), toString(run_id), m_present"
        f"{outputs} FROM ({merged}) WHERE {condition.text if condition else '1'} "
        f"ORDER BY start_time {order}, run_id {order} LIMIT {limit}"
    )


def matching_runs(rows: str, expressions: Iterable[str], condition: SqlCondition | None = None) -> str:
    """Select the merged runs among the partial rows that `rows` admits, for more SQL: the key and the columns
    of MERGED that the expressions name."""
    named = {name for name in _COLUMN_NAME.findall(" ".join(expressions)) if name in MERGED}
    merged = _merged(rows, named | (condition.columns if condition else frozenset()), ())
    names = ", ".join([KEY, *sorted(named)])
    return f"SELECT {names} FROM ({merged}) WHERE {condition.text if condition else '1'}"


def _merged(rows: str, columns: Iterable[str], groups: Sequence[str]) -> str:
    """The runs that exist, with their key, these columns and groups."""
    texts = {name: MERGED[name] for name in sorted(columns) if name in MERGED}
    aggregates = {"m_present", *(f"m_{group}" for group in groups)}
    aggregates.update(_AGGREGATE_NAME.findall(" ".join(texts.values())))
    grouped = ", ".join(f"{AGGREGATES[name]} AS {name}" for name in sorted(aggregates))
    gone = f"maxIf(seq, bitAnd(present, {Present.GONE.value}) != 0)"
    merged = (
        f"SELECT {KEY}, {grouped} FROM runs WHERE {rows} GROUP BY {KEY} "
        f"HAVING bitAnd(m_present, {EXISTS.value}) = {EXISTS.value} AND max(seq) > {gone}"
    )
    if not texts:
        return merged
    return f"SELECT *, {', '.join(f'{text} AS {name}' for name, text in texts.items())} FROM ({merged})"
