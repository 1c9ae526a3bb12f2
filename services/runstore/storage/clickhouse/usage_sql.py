"""SQL that sums up what merged runs used."""

from collections.abc import Iterable

from runstore.domain.runs import RunField
from runstore.storage.clickhouse.merged_sql import KEY, matching_runs


def runs_with(range_rows: str, candidate: str, columns: Iterable[str]) -> str:
    """SQL of a subquery, in brackets: the merged runs of a range one partial row of which, at least, meets
    the condition `candidate`: key and the merged columns."""
    rows = f"{range_rows} AND ({KEY}) IN (SELECT {KEY} FROM runs WHERE {range_rows} AND {candidate})"
    return f"({matching_runs(rows, columns)})"


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
