"""SQL that sums up what merged runs used."""

from collections.abc import Iterable

from runstore.domain.runs import RunField
from runstore.storage.clickhouse.columns import Present
from runstore.storage.clickhouse.merged_sql import KEY, matching_runs


def runs_with(range_rows: str, candidates: Iterable[str], columns: Iterable[str]) -> str:
    """SQL of a subquery, in brackets: the merged runs of a range that have, for each of the conditions
    `candidates`, a partial row that meets it: key and the merged columns."""
    found = [f"({KEY}) IN (SELECT {KEY} FROM runs WHERE {range_rows} AND {each})" for each in candidates]
    return f"({matching_runs(' AND '.join([range_rows, *found]), columns)})"


HAS_USAGE = f"bitAnd(present, {(Present.USAGE | Present.FIRST_TOKEN).value}) != 0"
"""Every run with anything to sum up has such a row; most runs are of tools and chains, and have none."""


_DETAILS = (
    RunField.PROMPT_TOKEN_DETAILS,
    RunField.COMPLETION_TOKEN_DETAILS,
    RunField.PROMPT_COST_DETAILS,
    RunField.COMPLETION_COST_DETAILS,
)


def usage_columns(fields: Iterable[RunField]) -> str:
    """SQL that sums up fields of `USAGE_FIELDS` over merged runs, each under its own name."""
    return ", ".join(f"{_sum(field)} AS {field.value}" for field in fields)


def _sum(field: RunField) -> str:
    if field is RunField.FIRST_TOKEN_TIME:
        return "min(merged.first_token_time)"
    if field in _DETAILS:
        return f"sumMap(merged.{field.value})"
    return f"sum(merged.{field.value})"
