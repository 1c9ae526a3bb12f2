"""Protobuf messages ⇄ domain objects, field by field."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from runstore.domain.blob_refs import BlobRef
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import FeedbackByKey, FeedbackStats
from runstore.domain.projects import Project
from runstore.domain.runs import Attachment, RunField, RunPatch, RunQuery, RunType, StoredRun
from runstore.domain.times import MAX_TIME_US, MIN_TIME_US, out_of_range
from runstore.ingest.validation import uuid_text
from runstore.query.binding import parse_condition
from runstore.query.feedback_window import FeedbackWindow
from runstore.v1 import error_pb2, project_service_pb2, run_ingest_service_pb2, run_pb2, run_query_service_pb2

_RUN_TYPES: dict[run_pb2.RunType.ValueType, str] = {
    number: name.removeprefix("RUN_TYPE_").lower()
    for name, number in run_pb2.RunType.items()
    if number != run_pb2.RUN_TYPE_UNSPECIFIED
}
_RUN_TYPE_NUMBERS = {name: number for number, name in _RUN_TYPES.items()}
_STATUS_NUMBERS = {
    name.removeprefix("RUN_STATUS_").lower(): number for name, number in run_pb2.RunStatus.items()
}
_RUN_FIELDS: dict[run_pb2.RunField.ValueType, RunField] = {
    number: RunField(name.removeprefix("RUN_FIELD_").lower())
    for name, number in run_pb2.RunField.items()
    if number != run_pb2.RUN_FIELD_UNSPECIFIED
}

# -- operations ------------------------------------------------------------------------------------


def run_patch(operation: run_ingest_service_pb2.RunOperation, tenant_id: str) -> RunPatch:
    """The operation as a patch, not yet validated. Raises INVALID_ARGUMENT when it does nothing.

    A field that is "" says as little as one that is absent. Written out, because every run of
    every tracer passes here: asking each field for its presence would take three times as long.
    """
    kind = operation.WhichOneof("operation")
    if kind is None:
        raise invalid("operation", "neither create nor update")
    fields = operation.create if kind == "create" else operation.update
    patch = RunPatch(
        tenant_id=tenant_id,
        run_id=fields.id,
        is_create=kind == "create",
        project_id=fields.project_id or None,
        project_name=fields.project_name or None,
        trace_id=fields.trace_id or None,
        dotted_order=fields.dotted_order or None,
        parent_run_id=fields.parent_run_id or None,
        name=fields.name or None,
        run_type=_RUN_TYPES.get(number, str(number)) if (number := fields.run_type) else None,
        inputs=fields.inputs or None,
        outputs=fields.outputs or None,
        error=fields.error or None,
        events=fields.events or None,
        extra=fields.extra or None,
        manifest=fields.manifest or None,
        reference_example_id=fields.reference_example_id or None,
    )
    if fields.HasField("start_time"):
        patch.start_time_us = time_us(fields.start_time)
    if fields.HasField("end_time"):
        patch.end_time_us = time_us(fields.end_time)
    if fields.HasField("tags"):
        patch.tags = tuple(fields.tags.values)
    if fields.attachments:
        patch.attachments = {
            file.name: Attachment(file.mime_type, file.content) for file in fields.attachments
        }
    return patch


def operation_error(index: int, run_id: str, error: RunstoreError) -> run_ingest_service_pb2.OperationError:
    """A refusal, as the writer gets it."""
    return run_ingest_service_pb2.OperationError(
        index=index,
        reason=error_reason(error.reason),
        field=error.field,
        message=error.message,
        run_id=run_id,
    )


def error_reason(reason: ErrorReason) -> error_pb2.ErrorReason.ValueType:
    """The public number of a reason."""
    return error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason.name}")


# -- questions -------------------------------------------------------------------------------------


def run_query(request: run_query_service_pb2.ListRunsRequest, tenant_id: str) -> RunQuery:
    """The question, without its page. Raises INVALID_ARGUMENT, INVALID_FILTER."""
    window = feedback_window(request)
    query = RunQuery(
        tenant_id=tenant_id,
        fields=run_fields(request.fields),
        project_ids=ids("project_ids", request.project_ids),
        run_ids=ids("ids", request.ids),
        trace_id=_id(request, "trace_id"),
        parent_run_id=_id(request, "parent_run_id"),
        reference_example_ids=ids("reference_example_ids", request.reference_example_ids),
        run_type=_run_type(request.run_type),
        is_root=request.is_root if request.HasField("is_root") else None,
        has_error=request.has_error if request.HasField("has_error") else None,
        min_start_time_us=optional_time_us(request, "min_start_time"),
        max_start_time_us=optional_time_us(request, "max_start_time"),
        filter=window.narrow(parse_condition(request.filter, "filter")),
        trace_filter=window.narrow(parse_condition(request.trace_filter, "trace_filter")),
        tree_filter=window.narrow(parse_condition(request.tree_filter, "tree_filter")),
        descending=request.sort_order != run_pb2.SORT_ORDER_ASC,
        with_subtree_usage=request.with_subtree_usage,
    )
    window.check()
    return query


def feedback_window(request: Any) -> FeedbackWindow:
    """The window of feedback that a request's filters look at."""
    return FeedbackWindow(
        optional_time_us(request, "min_feedback_modified_at"),
        optional_time_us(request, "max_feedback_modified_at"),
    )


def run_fields(numbers: Iterable[run_pb2.RunField.ValueType]) -> frozenset[RunField]:
    """The selected fields; the id alone when none are named."""
    fields = set()
    for number in numbers:
        if number not in _RUN_FIELDS:
            raise invalid("fields", f"{number} is not a field of a run")
        fields.add(_RUN_FIELDS[number])
    if RunField.REFERENCE_DATASET_ID in fields:
        fields.add(RunField.REFERENCE_EXAMPLE_ID)  # by which it is looked up
    if RunField.TRACE_TIER in fields:
        fields |= {RunField.TRACE_ID, RunField.PROJECT_ID}  # likewise
    return frozenset(fields) or frozenset({RunField.ID})


def _run_type(number: run_pb2.RunType.ValueType) -> RunType | None:
    if number == run_pb2.RUN_TYPE_UNSPECIFIED:
        return None
    if number not in _RUN_TYPES:
        raise invalid("run_type", f"{number} is not a run type")
    return RunType(_RUN_TYPES[number])


def ids(field: str, values: Iterable[str]) -> tuple[str, ...]:
    """Distinct ids. Raises INVALID_ARGUMENT naming the place of one that is none."""
    return tuple(dict.fromkeys(uuid_text(f"{field}[{index}]", value) for index, value in enumerate(values)))


def _id(request: Any, field: str) -> str | None:
    return uuid_text(field, getattr(request, field)) if request.HasField(field) else None


# -- answers ---------------------------------------------------------------------------------------


def run_message(run: StoredRun, fields: frozenset[RunField]) -> run_pb2.Run:
    """The run with the selected fields that have a value; what is read by a token is left to the servicer."""
    message = run_pb2.Run()
    for field, value in run.values.items():
        if field in fields and not isinstance(value, BlobRef):
            _SETTERS[field](message, value)
    return message


def _plain(field: RunField) -> Callable[[run_pb2.Run, Any], None]:
    name = field.value  # A property, written in Python.
    return lambda message, value: setattr(message, name, value)


def _time(field: RunField) -> Callable[[run_pb2.Run, Any], None]:
    name = field.value
    return lambda message, value: set_time(getattr(message, name), value)


def _money(field: RunField) -> Callable[[run_pb2.Run, Any], None]:
    name = field.value
    return lambda message, value: setattr(message, name, decimal_text(value))


def _items(field: RunField) -> Callable[[run_pb2.Run, Any], None]:
    name = field.value
    return lambda message, value: getattr(message, name).extend(value)


def _map(field: RunField) -> Callable[[run_pb2.Run, Any], None]:
    name = field.value
    return lambda message, value: getattr(message, name).update(value)


def _money_map(field: RunField) -> Callable[[run_pb2.Run, Any], None]:
    name = field.value
    return lambda message, value: getattr(message, name).update(
        {category: decimal_text(cost) for category, cost in value.items()}
    )


def _set_run_type(message: run_pb2.Run, value: str) -> None:
    message.run_type = _RUN_TYPE_NUMBERS[value]


def _set_status(message: run_pb2.Run, value: str) -> None:
    message.status = _STATUS_NUMBERS[value]


def _set_feedback_stats(message: run_pb2.Run, value: FeedbackByKey) -> None:
    for key, stats in value.items():
        message.feedback_stats[key].CopyFrom(feedback_stats_message(stats))


def _set_nothing(message: run_pb2.Run, value: object) -> None:
    """Attachments carry tokens, which the servicer adds."""


_SETTERS: dict[RunField, Callable[[run_pb2.Run, Any], None]] = {field: _plain(field) for field in RunField}
_SETTERS.update(
    {field: _time(field) for field in (RunField.START_TIME, RunField.END_TIME, RunField.FIRST_TOKEN_TIME)}
)
_SETTERS.update(
    {field: _money(field) for field in (RunField.TOTAL_COST, RunField.PROMPT_COST, RunField.COMPLETION_COST)}
)
_SETTERS.update({field: _items(field) for field in (RunField.PARENT_RUN_IDS, RunField.TAGS)})
_SETTERS.update(
    {field: _map(field) for field in (RunField.PROMPT_TOKEN_DETAILS, RunField.COMPLETION_TOKEN_DETAILS)}
)
_SETTERS.update(
    {field: _money_map(field) for field in (RunField.PROMPT_COST_DETAILS, RunField.COMPLETION_COST_DETAILS)}
)
_SETTERS[RunField.RUN_TYPE] = _set_run_type
_SETTERS[RunField.STATUS] = _set_status
_SETTERS[RunField.ATTACHMENTS] = _set_nothing
_SETTERS[RunField.FEEDBACK_STATS] = _set_feedback_stats


def feedback_stats_message(stats: FeedbackStats) -> run_pb2.FeedbackStats:
    """Statistics of one key."""
    return run_pb2.FeedbackStats(
        n=stats.n,
        avg=stats.avg,
        min=stats.min,
        max=stats.max,
        stdev=stats.stdev,
        values=stats.values,
        comments=stats.comments,
        errors=stats.errors,
        sources=stats.sources,
    )


def decimal_text(value: Decimal) -> str:
    """A decimal without an exponent and without trailing zeros: `0.000001`."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def project_message(project: Project) -> project_service_pb2.Project:
    """The project as readers get it."""
    message = project_service_pb2.Project(
        id=project.id, tenant_id=project.tenant_id, name=project.name, extra=project.extra
    )
    if project.description is not None:
        message.description = project.description
    if project.reference_dataset_id is not None:
        message.reference_dataset_id = project.reference_dataset_id
    set_time(message.start_time, project.start_time_us)
    if project.end_time_us is not None:
        set_time(message.end_time, project.end_time_us)
    return message


# -- times -----------------------------------------------------------------------------------------


def time_us(time: Timestamp) -> int:
    """Microseconds since the epoch, of any year; nanoseconds are cut off."""
    return time.seconds * 1_000_000 + time.nanos // 1_000


def set_time(message: Timestamp, time_us: int) -> None:
    """Set a timestamp from microseconds since the epoch."""
    message.seconds, micros = divmod(time_us, 1_000_000)
    message.nanos = micros * 1_000


def optional_time_us(request: Any, field: str) -> int | None:
    """Microseconds since the epoch of a time that may be absent.

    Raises INVALID_ARGUMENT naming the field for a time that the engines do not know.
    """
    if not request.HasField(field):
        return None
    time = time_us(getattr(request, field))
    if not MIN_TIME_US <= time <= MAX_TIME_US:
        raise out_of_range(field)
    return time
