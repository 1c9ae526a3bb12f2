"""Serves `FeedbackService`."""

from typing import Any, TypeAlias

import grpc

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.feedback import Feedback, FeedbackAction, FeedbackPatch, FeedbackQuery
from runstore.domain.rate_limits import Measure, RateLimiter
from runstore.ingest.ingest_feedback import IngestFeedback
from runstore.ingest.validation import uuid_text
from runstore.query.read_feedback import ReadFeedback
from runstore.rpc.authentication import current_principal
from runstore.rpc.call_line import current_call
from runstore.rpc.mapping import (
    feedback_stats_message,
    ids,
    operation_error,
    optional_time_us,
    set_time,
    time_us,
)
from runstore.v1 import feedback_service_pb2 as pb
from runstore.v1 import feedback_service_pb2_grpc

MAX_OPERATIONS = 10_000
_DEFAULT_SOURCE = "api"

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class FeedbackServicer(feedback_service_pb2_grpc.FeedbackServiceServicer):
    """Maps records in and out."""

    def __init__(self, ingest: IngestFeedback, reader: ReadFeedback, limiter: RateLimiter) -> None:
        self._ingest = ingest
        self._reader = reader
        self._limiter = limiter

    async def WriteFeedback(
        self, request: pb.WriteFeedbackRequest, context: _Context
    ) -> pb.WriteFeedbackResponse:
        if len(request.feedback) > MAX_OPERATIONS:
            raise RunstoreError(
                ErrorReason.TOO_LARGE, f"more than {MAX_OPERATIONS} records in a call", field="feedback"
            )
        line = current_call.get()
        amounts = {Measure.RUNS: len(request.feedback), Measure.BYTES: line.take_received()}
        await self._limiter.take(current_principal.get(), amounts)
        tenant_id = current_principal.get().tenant_id
        sequence, refused = await self._ingest.create(
            [_creation(tenant_id, message) for message in request.feedback],
            {index: each.project_name for index, each in enumerate(request.feedback) if each.project_name},
        )
        line.operations, line.refused = len(request.feedback), len(refused)
        errors = [
            operation_error(index, request.feedback[index].run_id, error) for index, error in refused.items()
        ]
        return pb.WriteFeedbackResponse(errors=errors, write_token=str(sequence))

    async def UpdateFeedback(
        self, request: pb.UpdateFeedbackRequest, context: _Context
    ) -> pb.UpdateFeedbackResponse:
        patch = FeedbackPatch(
            current_principal.get().tenant_id,
            uuid_text("id", request.id),
            run_id=None,
            action=FeedbackAction.UPDATE,
            **_given(request, "score", "value", "comment", "correction"),
        )
        return pb.UpdateFeedbackResponse(feedback=_message(await self._ingest.update(patch)))

    async def GetFeedback(self, request: pb.GetFeedbackRequest, context: _Context) -> pb.GetFeedbackResponse:
        tenant_id = current_principal.get().tenant_id
        record = await self._reader.get(tenant_id, uuid_text("id", request.id))
        return pb.GetFeedbackResponse(feedback=_message(record))

    async def ListFeedback(
        self, request: pb.ListFeedbackRequest, context: _Context
    ) -> pb.ListFeedbackResponse:
        query = _query(current_principal.get().tenant_id, request.condition)
        records = await self._reader.page(query, request.offset, request.page_size)
        return pb.ListFeedbackResponse(feedback=[_message(record) for record in records])

    async def GetFeedbackStats(
        self, request: pb.GetFeedbackStatsRequest, context: _Context
    ) -> pb.GetFeedbackStatsResponse:
        stats = await self._reader.stats(_query(current_principal.get().tenant_id, request.condition))
        return pb.GetFeedbackStatsResponse(
            stats={key: feedback_stats_message(each) for key, each in stats.items()}
        )

    async def DeleteFeedback(
        self, request: pb.DeleteFeedbackRequest, context: _Context
    ) -> pb.DeleteFeedbackResponse:
        await self._ingest.delete(current_principal.get().tenant_id, uuid_text("id", request.id))
        return pb.DeleteFeedbackResponse()


def _given(message: Any, *fields: str) -> dict[str, Any]:
    return {field: getattr(message, field) for field in fields if message.HasField(field)}


def _creation(tenant_id: str, message: pb.Feedback) -> FeedbackPatch:
    source = message.source
    return FeedbackPatch(
        tenant_id,
        message.id,
        message.run_id if message.HasField("run_id") else None,
        FeedbackAction.CREATE,
        # Checked with the record, which is refused alone.
        created_at_us=time_us(message.create_time),
        modified_at_us=time_us(message.update_time),
        run_start_time_us=time_us(message.run_start_time) if message.HasField("run_start_time") else None,
        key=message.key,
        error=message.error,
        keeps_trace=message.keeps_trace or not message.HasField("keeps_trace"),
        source_type=source.type or _DEFAULT_SOURCE,
        **_given(message, *_OPTIONAL),
        **{f"source_{field}": value for field, value in _given(source, *_OPTIONAL_OF_SOURCE).items()},
    )


_OPTIONAL = (
    *("trace_id", "project_id", "score", "value", "comment", "correction", "extra"),
    *("comparative_experiment_id", "feedback_group_id"),
)
_OPTIONAL_OF_SOURCE = ("user_id", "user_name", "metadata")


def _message(record: Feedback) -> pb.Feedback:
    message = pb.Feedback(
        id=record.id,
        run_id=record.run_id,
        key=record.key,
        error=record.error,
        source=pb.FeedbackSource(
            type=record.source_type,
            **{field: getattr(record, f"source_{field}") for field in _OPTIONAL_OF_SOURCE},
        ),
        **{field: getattr(record, field) for field in _OPTIONAL},
    )
    if record.run_start_time_us is not None:
        set_time(message.run_start_time, record.run_start_time_us)
    set_time(message.create_time, record.created_at_us)
    set_time(message.update_time, record.modified_at_us)
    return message


def _query(tenant_id: str, condition: pb.FeedbackCondition) -> FeedbackQuery:
    experiment = _given(condition, "comparative_experiment_id").get("comparative_experiment_id")
    return FeedbackQuery(
        tenant_id,
        run_ids=ids("run_ids", condition.run_ids),
        project_ids=ids("project_ids", condition.project_ids),
        keys=tuple(condition.keys),
        source_types=tuple(condition.source_types),
        user_ids=tuple(condition.user_ids),
        min_created_at_us=optional_time_us(condition, "min_create_time"),
        max_created_at_us=optional_time_us(condition, "max_create_time"),
        comparative_experiment_id=(
            None if experiment is None else uuid_text("comparative_experiment_id", experiment)
        ),
        **_given(condition, "has_score", "has_comment", "is_on_run"),
    )
