"""SQL that merges the partial rows of runs, and keeps the runs that meet a condition."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from runstore.storage.clickhouse.columns import AGGREGATES, EXISTS, GROUPS, MERGED, Present

KEY = "project_id, start_time, run_id"
"""Of a run, within its tenant; columns of every table that knows runs."""
SELECTED_KEY = "toString(project_id), toUnixTimestamp64Micro(start_time), toString(run_id)"
"""The key as `RunKey` has it."""

_GONE = f"maxIf(seq, bitAnd(present, {Present.GONE.value}) != 0)"
_EXIST = f"HAVING bitAnd(groupBitOr(present), {EXISTS.value}) = {EXISTS.value} AND max(seq) > {_GONE}"
_COLUMN_NAME = re.compile(r"\b[a-z_]+\b")
_AGGREGATE = re.compile(r"\bm_(?:present|metadata)\b")
_OF_GROUP = re.compile(r"\bm_([a-z_]+)\.([a-z_]+)\b")


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
    if condition is None:
        return _merged(rows, named, KEY)
    names = ", ".join([KEY, *sorted(named)])
    return f"SELECT {names} FROM ({_merged(rows, named | condition.columns)}) WHERE {condition.text}"


def _merged(rows: str, columns: Iterable[str], beside: str = "*") -> str:
    """The runs that exist, with these columns, and `beside` of the key and the aggregates."""
    texts = {name: MERGED[name] for name in sorted(columns) if name in MERGED}
    merged = ", ".join(f"{text} AS {name}" for name, text in texts.items())
    grouped = {name: AGGREGATES[name] for name in _AGGREGATE.findall(merged)}
    read: dict[str, list[str]] = {}
    for group, column in sorted(set(_OF_GROUP.findall(merged))):
        read.setdefault(group, []).append(column)
    grouped |= {f"m_{group}": GROUPS[group].aggregate(names) for group, names in read.items()}
    keys = ", ".join([KEY, *(f"{text} AS {name}" for name, text in sorted(grouped.items()))])
    runs = f"SELECT {keys} FROM runs WHERE {rows} GROUP BY {KEY} {_EXIST}"
    if not texts:
        return runs

    def of_group(element: re.Match[str]) -> str:
        group, column = element.groups()
        names = read[group]
        return f"m_{group}" if len(names) == 1 else f"m_{group}.{names.index(column) + 1}"

    return f"SELECT {beside}, {_OF_GROUP.sub(of_group, merged)} FROM ({runs})"
