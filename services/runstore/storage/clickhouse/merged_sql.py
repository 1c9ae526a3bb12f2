"""SQL that merges the partial rows of runs, and keeps the runs that meet a condition."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from runstore.storage.clickhouse.columns import AGGREGATES, EXISTS, MERGED, Present

KEY = "project_id, start_time, run_id"
"""Of a run, within its tenant; columns of every table that knows runs."""
SELECTED_KEY = "toString(project_id), toUnixTimestamp64Micro(start_time), toString(run_id)"
"""The key as `RunKey` has it."""

_GONE = f"maxIf(seq, bitAnd(present, {Present.GONE.value}) != 0)"
_EXIST = f"HAVING bitAnd(groupBitOr(present), {EXISTS.value}) = {EXISTS.value} AND max(seq) > {_GONE}"
_COLUMN_NAME = re.compile(r"\b[a-z_]+\b")
_AGGREGATE_NAME = re.compile(r"\bm_[a-z_]+\b")


@dataclass(frozen=True, slots=True)
class SqlCondition:
    """A boolean expression, the values of its parameters, and the merged columns that it reads."""

    text: str
    parameters: dict[str, object]
    columns: frozenset[str]


def keys_of_runs(rows: str, condition: SqlCondition | None, by_position: str, limit: int) -> str:
    """Select the keys, as `SELECTED_KEY`, of the runs that exist among the partial rows that `rows` admits,
    and meet the condition."""
    runs = f"runs WHERE {rows} GROUP BY {KEY} {_EXIST}"
    if condition is not None:
        runs = f"({_merged(rows, condition.columns)}) WHERE {condition.text}"
    return f"SELECT {SELECTED_KEY} FROM {runs} {by_position} LIMIT {limit}"


def matching_runs(rows: str, expressions: Iterable[str], condition: SqlCondition | None = None) -> str:
    """Select the merged runs among the partial rows that `rows` admits, for more SQL: the key and the columns
    of MERGED that the expressions name."""
    named = {name for name in _COLUMN_NAME.findall(" ".join(expressions)) if name in MERGED}
    merged = _merged(rows, named | (condition.columns if condition else frozenset()))
    names = ", ".join([KEY, *sorted(named)])
    return f"SELECT {names} FROM ({merged}) WHERE {condition.text if condition else '1'}"


def _merged(rows: str, columns: Iterable[str]) -> str:
    """The runs that exist, with their key and these columns."""
    texts = {name: MERGED[name] for name in sorted(columns) if name in MERGED}
    needed = sorted(set(_AGGREGATE_NAME.findall(" ".join(texts.values()))))
    grouped = ", ".join([KEY, *(f"{AGGREGATES[name]} AS {name}" for name in needed)])
    merged = f"SELECT {grouped} FROM runs WHERE {rows} GROUP BY {KEY} {_EXIST}"
    if not texts:
        return merged
    return f"SELECT *, {', '.join(f'{text} AS {name}' for name, text in texts.items())} FROM ({merged})"
