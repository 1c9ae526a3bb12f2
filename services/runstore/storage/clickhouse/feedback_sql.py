"""SQL of feedback: the columns of the table, how the rows of a record merge, how records are summed up.

A record is stored as one row per operation, under the key (tenant, run, record); that of feedback on a
project has the nil UUID for its run. As with runs, `seq` orders the rows, `present` says what a row speaks
about, and a merged field is that of the row with the highest `seq` among those that speak about it. A
creation speaks about everything, so it replaces what was there.
"""

from collections.abc import Sequence
from enum import IntFlag
from typing import Any

from runstore.domain.feedback import FeedbackStats


class FeedbackPresent(IntFlag):
    """Bits of `present`: what a row speaks about. Stored; never renumber."""

    CREATED = 1 << 0
    """Everything. Creations have the other bits too."""
    SCORE = 1 << 1
    VALUE = 1 << 2
    COMMENT = 1 << 3
    CORRECTION = 1 << 4
    GONE = 1 << 31
    """The record is deleted, or about another run since; rows up to this one do not count."""


_TIME = "DateTime64(6, 'UTC')"
_TEXT = "CODEC(ZSTD(1))"

FEEDBACK_COLUMNS = {
    "tenant_id": "UUID",
    "run_id": "UUID",
    "feedback_id": "UUID",
    "seq": "UInt64",
    "present": "UInt32",
    # As told; nil when it was not.
    "project_id": "UUID",
    "trace_id": "UUID",
    "key": "LowCardinality(String)",
    "score": "Nullable(Float64)",
    # JSON; empty when there is none.
    "value": f"String {_TEXT}",
    "comment": f"Nullable(String) {_TEXT}",
    "correction": f"String {_TEXT}",
    "error": "Bool",
    "source_type": "LowCardinality(String)",
    "source_user_id": f"String {_TEXT}",
    "source_user_name": f"String {_TEXT}",
    "source_metadata": f"String {_TEXT}",
    "extra": f"String {_TEXT}",
    "comparative_experiment_id": "UUID",
    "feedback_group_id": "UUID",
    # Of the run, as told; the epoch when it was not.
    "run_start_time": _TIME,
    "created_at": _TIME,
    "modified_at": _TIME,
}
"""The table's columns with their types."""

UPDATED_BITS = {
    "score": FeedbackPresent.SCORE,
    "value": FeedbackPresent.VALUE,
    "comment": FeedbackPresent.COMMENT,
    "correction": FeedbackPresent.CORRECTION,
}
"""What an update can change, and its bit."""

EVERYTHING = FeedbackPresent.CREATED.value + sum(UPDATED_BITS.values())
"""Bits of a creation."""

_KEY = ("tenant_id", "run_id", "feedback_id")


def _is(bit: FeedbackPresent) -> str:
    return f"bitAnd(present, {bit.value}) != 0"


def _newest(value: str, column: str) -> str:
    is_spoken = "1" if column == "modified_at" else _is(UPDATED_BITS.get(column, FeedbackPresent.CREATED))
    return f"argMaxIf({value}, seq, {is_spoken})"


_MERGED_COLUMNS = [name for name in FEEDBACK_COLUMNS if name not in (*_KEY, "seq", "present")]

# argMax passes over nulls, so what can be null is merged in two parts; scores are finite.
_AGGREGATES = {
    **{f"m_{name}": _newest(name, name) for name in _MERGED_COLUMNS},
    "m_score": _newest("ifNull(score, nan)", "score"),
    "m_comment": _newest("ifNull(comment, '')", "comment"),
    "m_has_comment": _newest("isNotNull(comment)", "comment"),
}
_OUTPUTS = {
    **{name: f"m_{name}" for name in _MERGED_COLUMNS},
    "score": "if(isNaN(m_score), NULL, m_score)",
    "comment": "if(m_has_comment, m_comment, NULL)",
}

_VALUE_TEXT = "if(startsWith(value, '\"'), JSONExtractString(value), value)"


def merged_feedback(where: str) -> str:
    """SQL of a subquery, in brackets: the records among the partial rows that `where` admits, one row
    each, without those that are gone.

    `where` speaks about the table's key (tenant_id, run_id, feedback_id), which admits all rows of a record
    or none; conditions on merged columns go outside. Columns: those of FEEDBACK_COLUMNS except `seq` and
    `present`, and `value_text`: the text of a value that is a string, the JSON of any other, "" without one.
    """
    aggregates = ", ".join(f"{text} AS {name}" for name, text in _AGGREGATES.items())
    names = ", ".join(f"{text} AS {name}" for name, text in _OUTPUTS.items())
    key = ", ".join(_KEY)
    created, gone = (_is(FeedbackPresent.CREATED), _is(FeedbackPresent.GONE))
    return (
        f"(SELECT *, {_VALUE_TEXT} AS value_text FROM (SELECT {key}, {names} FROM ("
        f"SELECT {key}, {aggregates} FROM feedback WHERE {where} GROUP BY {key} "
        f"HAVING maxIf(seq, {created}) > maxIf(seq, {gone}))))"
    )


_MAX_COMMENTS = 10
_MAX_LABELS = 1_000

# Labels are values that are strings; a number beside them is the score.
_IS_LABEL = "startsWith(value, '\"')"
_STATISTICS = (
    "count(score)",
    "avg(score)",
    "min(score)",
    "max(score)",
    "if(count(score) > 1, stddevSampStable(score), NULL)",
    f"sumMapIf(map(value_text, toUInt64(1)), {_IS_LABEL})",
    f"groupArrayIf({_MAX_COMMENTS})(comment, notEmpty(comment))",
    "countIf(error)",
    "arraySort(groupUniqArray(source_type))",
)


def feedback_stats(rows: str, group: str) -> str:
    """SQL that sums up merged feedback: `group`, key, and then what `stats_of` reads.

    `rows` is what stands behind FROM and has the columns of `merged_feedback`; `group` is an expression on
    them such as `toString(run_id)`, or `''` for all together.
    """
    return (
        f"SELECT {group} AS stats_group, key, {', '.join(_STATISTICS)} FROM {rows} "
        "GROUP BY stats_group, key ORDER BY stats_group, key"
    )


def stats_of(columns: Sequence[Any]) -> FeedbackStats:
    """The statistics in a row of `feedback_stats`, without its group and key."""
    scores, avg, least, most, stdev, labels, comments, errors, sources = columns
    common = sorted(labels.items(), key=lambda item: (-item[1], item[0]))[:_MAX_LABELS]
    return FeedbackStats(
        n=scores or sum(labels.values()),
        avg=avg,
        min=least,
        max=most,
        stdev=stdev,
        values=dict(common),
        comments=tuple(comments),
        errors=errors,
        sources=tuple(sources),
    )
