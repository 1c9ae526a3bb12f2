"""The feedback routes (contract resources, section 4)."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.bodies import BodyReader
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.dialects import json_response
from runstore.gateway.documents import FEEDBACK_BODY, FEEDBACK_CHANGES_BODY
from runstore.gateway.feedback_json import read_changes, read_feedback, show_feedback
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail, FeedbackRecord
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_timestamp
from runstore.v1 import feedback_service_pb2 as pb

# What the Python SDK makes of a source type in a query.
_ENUM_PREFIX: Final = "FeedbackSourceType."
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}


class _ListQuery(BaseModel):
    """Query parameters of the list; all conditions hold together."""

    run: list[UUID] = Field(default=[], description="Feedback on these runs.")
    session: list[UUID] = Field(default=[], description="Feedback on these projects and on their runs.")
    key: list[str] = Field(default=[])
    source: list[str] = Field(default=[], description="Types of sources: api, model, app, auto_eval.")
    user: list[str] = Field(default=[], description="Users who gave it.")
    has_score: bool | None = None
    has_comment: bool | None = None
    level: Literal["run", "session"] | None = Field(None, description="On runs only, or on projects only.")
    min_created_at: TimeUs | None = Field(None, description="Inclusive.")
    max_created_at: TimeUs | None = Field(None, description="Inclusive.")
    comparative_experiment_id: UUID | None = None
    include_user_names: bool | None = Field(None, description="Without effect: names are always there.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


def feedback_routes(store: StoreClient, bodies: BodyReader) -> GuardedRouter:
    """The routes, on the feedback of `store`."""
    router = GuardedRouter(prefix="/feedback", tags=["Feedback"])

    @router.post("", response_model=FeedbackRecord, openapi_extra=FEEDBACK_BODY)
    async def create_feedback(request: Request) -> Response:
        """Creates a record; one of the same id is replaced as a whole. The run need not exist yet."""
        credentials = credentials_of(request.headers)
        async with bodies.read(request) as body:
            record = read_feedback(body)
        answer = await store.write_feedback(pb.WriteFeedbackRequest(feedback=[record]), credentials)
        for error in answer.errors:
            raise invalid(error.field, error.message)
        return json_response(show_feedback(record))

    @router.get("", response_model=list[FeedbackRecord])
    async def list_feedback(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists records, the last created first."""
        answer = await store.list_feedback(_list_request(query), credentials_of(request.headers))
        add_call_facts(request.scope, feedback=len(answer.feedback))
        return json_response([show_feedback(record) for record in answer.feedback])

    @router.get("/{feedback_id}", response_model=FeedbackRecord, responses=_NOT_FOUND)
    async def get_feedback(request: Request, feedback_id: UUID) -> Response:
        """Reads a record."""
        message = pb.GetFeedbackRequest(id=str(feedback_id))
        answer = await store.get_feedback(message, credentials_of(request.headers))
        return json_response(show_feedback(answer.feedback))

    @router.patch(
        "/{feedback_id}",
        response_model=FeedbackRecord,
        responses=_NOT_FOUND,
        openapi_extra=FEEDBACK_CHANGES_BODY,
    )
    async def update_feedback(request: Request, feedback_id: UUID) -> Response:
        """Changes a record; null and absent keys keep what is there."""
        credentials = credentials_of(request.headers)
        async with bodies.read(request) as body:
            message = read_changes(str(feedback_id), body)
        answer = await store.update_feedback(message, credentials)
        return json_response(show_feedback(answer.feedback))

    @router.delete("/{feedback_id}", responses=_NOT_FOUND)
    async def delete_feedback(request: Request, feedback_id: UUID) -> Response:
        """Deletes a record."""
        message = pb.DeleteFeedbackRequest(id=str(feedback_id))
        await store.delete_feedback(message, credentials_of(request.headers))
        return json_response({"message": "Feedback deleted"})

    return router


def _list_request(query: _ListQuery) -> pb.ListFeedbackRequest:
    condition = pb.FeedbackCondition(
        run_ids=map(str, query.run),
        project_ids=map(str, query.session),
        keys=query.key,
        source_types=map(_source_type, query.source),
        user_ids=query.user,
        has_score=query.has_score,
        has_comment=query.has_comment,
        is_on_run=None if query.level is None else query.level == "run",
        min_create_time=None if query.min_created_at is None else to_timestamp(query.min_created_at),
        max_create_time=None if query.max_created_at is None else to_timestamp(query.max_created_at),
        comparative_experiment_id=(
            None if query.comparative_experiment_id is None else str(query.comparative_experiment_id)
        ),
    )
    return pb.ListFeedbackRequest(condition=condition, offset=query.offset, page_size=query.limit)


def _source_type(text: str) -> str:
    return text.removeprefix(_ENUM_PREFIX).lower() if text.startswith(_ENUM_PREFIX) else text
