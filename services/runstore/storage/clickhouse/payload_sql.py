"""SQL on the large texts of runs, which have a table of their own: merging them, and the leaves of JSON."""

from collections.abc import Collection

from runstore.domain.conditions import TextField
from runstore.storage.clickhouse.columns import Group
from runstore.storage.clickhouse.merged_sql import KEY
from runstore.storage.clickhouse.operands import TEXT_BITS

MAX_LEAF_DEPTH = 50
"""Containers that may be around a leaf; what is deeper makes no rows."""


def merged_text(field: TextField) -> str:
    """The name of the merged text inside of `runs_with_payload`; "" when there is none."""
    return f"m_{field.value}"


def runs_with_payload(rows: str, fields: Collection[TextField], test: str) -> str:
    """SQL of a subquery without brackets: keys of the runs among `rows` whose merged texts satisfy the test.

    `rows` is a condition on the columns of the key. Runs without any payload are not found.
    """
    texts = ", ".join(f"{_merged(field)} AS {merged_text(field)}" for field in sorted(fields))
    # Key by key in the order of the table: a table of all payloads of a window would not fit into memory.
    return (
        f"SELECT {KEY} FROM (SELECT {KEY}, {texts} FROM run_payloads WHERE {rows} "
        f"GROUP BY tenant_id, {KEY} SETTINGS optimize_aggregation_in_order = 1) WHERE {test}"
    )


def _merged(field: TextField) -> str:
    value = Group((field.value,), TEXT_BITS[field]).aggregate([field.value])
    if field is TextField.ERROR:
        return value
    # Of a payload in the blob store its beginning, without the reference.
    return f"if(startsWith({value}, '\\0'), substring({value}, position({value}, '\\n') + 1), {value})"


def leaves(document: str) -> str:
    """SQL of all leaves of a JSON text as an array of (path, JSON), paths joined by dots, arrays dropped.

    Every step opens the outermost containers that are left; there are no more steps than brackets.
    Leaves that are null, "" or an empty container are left out, as are all of malformed JSON.
    """
    opened = (
        "multiIf("
        "startsWith(row.2, '{'), arrayMap(pair -> (concat(row.1, '.', pair.1), pair.2), "
        "JSONExtractKeysAndValuesRaw(row.2)), "
        "startsWith(row.2, '['), arrayMap(element -> (row.1, element), JSONExtractArrayRaw(row.2)), "
        "[row])"
    )
    steps = f"least({MAX_LEAF_DEPTH}, countSubstrings({document}, '{{') + countSubstrings({document}, '['))"
    rows = (
        f"arrayFold((rows, step) -> arrayFlatten(arrayMap(row -> {opened}, rows)), range({steps}), "
        f"[('', trimLeft({document}))])"
    )
    is_leaf = (
        "row.2 NOT IN ('null', '\"\"', '') AND NOT startsWith(row.2, '{') AND NOT startsWith(row.2, '[')"
    )
    return f"arrayMap(row -> (substring(row.1, 2), row.2), arrayFilter(row -> {is_leaf}, {rows}))"
