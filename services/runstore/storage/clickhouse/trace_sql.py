"""SQL that leads from runs to the other runs of their traces: conditions on partial rows."""

from runstore.storage.clickhouse.merged_sql import KEY

_TENANT = "tenant_id = {tenant:UUID}"


def root_rows(rows: str) -> str:
    """Rows of the roots of the traces that the rows `rows` are in; of other runs too, if these have moved.

    A root has the id of its trace.
    """
    return rows_of_roots(f"({_traces(rows)})")


def rows_of_roots(traces: str) -> str:
    """As `root_rows`, of the traces whose ids `traces` holds: an array or a subquery."""
    roots = f"SELECT {KEY} FROM run_keys WHERE {_TENANT} AND run_id IN {traces}"
    return f"{_TENANT} AND ({KEY}) IN ({roots})"


def trace_rows(rows: str) -> str:
    """Rows of all runs of the traces that the rows `rows` are in, within the projects of these.

    A row may name a trace by mistake until its parent is known: the trace of a merged run counts.
    """
    traces = _traces(rows)
    of_traces = f"FROM trace_keys WHERE {_TENANT} AND trace_id IN ({traces})"
    bounds = (
        f"{_TENANT} AND project_id IN (SELECT project_id {of_traces}) "
        f"AND start_time >= (SELECT min(first_start) {of_traces}) "
        f"AND start_time <= (SELECT max(last_start) {of_traces})"
    )
    return f"{_TENANT} AND ({KEY}) IN (SELECT {KEY} FROM runs WHERE {bounds} AND trace_id IN ({traces}))"


def _traces(rows: str) -> str:
    return f"SELECT trace_id FROM runs WHERE {rows}"
