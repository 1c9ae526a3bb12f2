"""The columns of an exported run, named as in v1 of the public contract and in LangSmith's bulk exports."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pyarrow as pa

from runstore.domain.times import format_utc
from runstore.gateway.run_json import RUN_TYPES
from runstore.gateway.run_values import (
    feedback_stats,
    has,
    numbers_by_key,
    payload,
    required,
    scalar,
    texts,
)
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import run_pb2 as pb

_RUN_TYPE_NAMES: Final = {number: name for name, number in RUN_TYPES.items()}
_STATUS_NAMES: Final = {
    pb.RUN_STATUS_SUCCESS: "success",
    pb.RUN_STATUS_ERROR: "error",
    pb.RUN_STATUS_PENDING: "pending",
}
_TIME: Final = pa.timestamp("us", tz="UTC")
_TEXT: Final = pa.string()
_TEXTS: Final = pa.list_(_TEXT)


def _as_it_is(value: Any) -> Any:
    return value


def _json_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@dataclass(frozen=True, slots=True)
class Column:
    """One column, in both formats."""

    name: str
    field: "pb.RunField.ValueType"
    """What to ask the store for."""
    value: Callable[[pb.Run], Any]
    """None, or what the file says; of payloads JSON as `msgspec.Raw`, with a hole where a large one goes."""
    arrow_type: pa.DataType = _TEXT
    in_json: Callable[[Any], Any] = _as_it_is
    in_parquet: Callable[[Any], Any] = _as_it_is


def _text(name: str, field: "pb.RunField.ValueType") -> Column:
    return Column(name, field, scalar(name))


def _count(name: str, field: "pb.RunField.ValueType") -> Column:
    return Column(name, field, scalar(name), pa.int64())


def _money(name: str, field: "pb.RunField.ValueType") -> Column:
    return Column(name, field, scalar(name), pa.float64(), in_parquet=float)


def _details(name: str, field: "pb.RunField.ValueType") -> Column:
    return Column(name, field, numbers_by_key(name), in_parquet=_json_text)


def _moment(name: str, field: "pb.RunField.ValueType") -> Column:
    def value(run: pb.Run) -> int | None:
        return to_time_us(getattr(run, name)) if has(run, name) else None

    return Column(name, field, value, _TIME, in_json=format_utc)


def _payload(name: str, field: "pb.RunField.ValueType", stored: str = "") -> Column:
    return Column(name, field, payload(stored or name), in_parquet=bytes)


def _parent_run_id(run: pb.Run) -> str | None:
    return run.parent_run_ids[-1] if run.parent_run_ids else None


COLUMNS: Final = (
    Column("id", pb.RUN_FIELD_ID, required("id")),
    Column("trace_id", pb.RUN_FIELD_TRACE_ID, required("trace_id")),
    Column("parent_run_id", pb.RUN_FIELD_PARENT_RUN_IDS, _parent_run_id),
    Column("parent_run_ids", pb.RUN_FIELD_PARENT_RUN_IDS, texts("parent_run_ids"), _TEXTS),
    Column("dotted_order", pb.RUN_FIELD_DOTTED_ORDER, required("dotted_order")),
    Column("is_root", pb.RUN_FIELD_IS_ROOT, scalar("is_root"), pa.bool_()),
    Column("session_id", pb.RUN_FIELD_PROJECT_ID, required("project_id")),
    _text("name", pb.RUN_FIELD_NAME),
    Column("run_type", pb.RUN_FIELD_RUN_TYPE, lambda run: _RUN_TYPE_NAMES.get(run.run_type)),
    Column("status", pb.RUN_FIELD_STATUS, lambda run: _STATUS_NAMES.get(run.status)),
    _text("error", pb.RUN_FIELD_ERROR),
    _moment("start_time", pb.RUN_FIELD_START_TIME),
    _moment("end_time", pb.RUN_FIELD_END_TIME),
    _moment("first_token_time", pb.RUN_FIELD_FIRST_TOKEN_TIME),
    _payload("inputs", pb.RUN_FIELD_INPUTS),
    _payload("outputs", pb.RUN_FIELD_OUTPUTS),
    _payload("events", pb.RUN_FIELD_EVENTS),
    _payload("extra", pb.RUN_FIELD_EXTRA),
    _payload("serialized", pb.RUN_FIELD_MANIFEST, "manifest"),
    Column("tags", pb.RUN_FIELD_TAGS, texts("tags"), _TEXTS),
    _text("thread_id", pb.RUN_FIELD_THREAD_ID),
    _text("reference_example_id", pb.RUN_FIELD_REFERENCE_EXAMPLE_ID),
    _count("total_tokens", pb.RUN_FIELD_TOTAL_TOKENS),
    _count("prompt_tokens", pb.RUN_FIELD_PROMPT_TOKENS),
    _count("completion_tokens", pb.RUN_FIELD_COMPLETION_TOKENS),
    _details("prompt_token_details", pb.RUN_FIELD_PROMPT_TOKEN_DETAILS),
    _details("completion_token_details", pb.RUN_FIELD_COMPLETION_TOKEN_DETAILS),
    _money("total_cost", pb.RUN_FIELD_TOTAL_COST),
    _money("prompt_cost", pb.RUN_FIELD_PROMPT_COST),
    _money("completion_cost", pb.RUN_FIELD_COMPLETION_COST),
    _details("prompt_cost_details", pb.RUN_FIELD_PROMPT_COST_DETAILS),
    _details("completion_cost_details", pb.RUN_FIELD_COMPLETION_COST_DETAILS),
    Column("feedback_stats", pb.RUN_FIELD_FEEDBACK_STATS, feedback_stats, in_parquet=_json_text),
)
"""Of every export. What writers add: `session_name`, `feedback`, and `attachments` if asked for."""

FIELDS: Final = sorted({column.field for column in COLUMNS})
