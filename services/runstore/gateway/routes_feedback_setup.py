"""The routes of feedback tokens and configurations (contract resources, section 4)."""

import time
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.times import format_time
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_time_us, to_timestamp
from runstore.v1 import feedback_config_service_pb2 as config_pb
from runstore.v1 import feedback_token_service_pb2 as token_pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": Detail, "description": "The key has another configuration."}
}


class _Lifetime(BaseModel):
    days: int = Field(0, ge=0, le=3_650)
    hours: int = Field(0, ge=0, le=87_600)
    minutes: int = Field(0, ge=0, le=5_256_000)


class _Category(BaseModel):
    value: float
    label: str | None = None


class _Meaning(BaseModel):
    """What scores and values mean."""

    type: Literal["continuous", "categorical", "freeform"]
    min: float | None = None
    max: float | None = None
    categories: list[_Category] | None = None


class _TokenCreate(BaseModel):
    run_id: UUID
    feedback_key: str = Field(min_length=1, max_length=180)
    feedback_config: _Meaning | None = Field(None, description="Stored for the key if it has none yet.")
    id: UUID | None = None
    expires_in: _Lifetime | None = None
    expires_at: TimeUs | None = None


class _Judgement(BaseModel):
    score: float | None = None
    value: Any = None
    comment: str | None = None
    correction: Any = None
    metadata: dict[str, Any] | None = None


class _JudgementQuery(BaseModel):
    """The judgement as query parameters, for links; what is JSON may be text."""

    score: float | None = None
    value: str | None = None
    comment: str | None = None
    correction: str | None = None


class _ConfigCreate(BaseModel):
    feedback_key: str = Field(min_length=1, max_length=180)
    feedback_config: _Meaning
    is_lower_score_better: bool | None = None
    is_enforced: bool | None = None


class _ConfigUpdate(BaseModel):
    feedback_key: str
    feedback_config: _Meaning | None = None
    is_lower_score_better: bool | None = None
    is_enforced: bool | None = None


class _ListQuery(BaseModel):
    """Query parameters of the list of configurations."""

    key: list[str] = Field(default=[])
    name_contains: str | None = Field(None, description="Part of the key, in any case.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


def feedback_token_routes(store: StoreClient) -> GuardedRouter:
    """The routes of tokens; to be matched before those of feedback itself."""
    router = GuardedRouter(prefix="/feedback/tokens", tags=["Feedback"])
    tokens = store.feedback_tokens

    @router.post("")
    async def create_tokens(request: Request, body: _TokenCreate | list[_TokenCreate]) -> Response:
        """Makes a token, or several: links under which anybody can judge a run."""
        wanted = body if isinstance(body, list) else [body]
        credentials = credentials_of(request.headers)
        for one in wanted:
            await _ensure_config(store, one, credentials)
        message = token_pb.CreateFeedbackTokensRequest(tokens=map(_token, wanted))
        answer = await store.ask(tokens.CreateFeedbackTokens, message, credentials)
        shown = [_show_token(token, str(request.base_url)) for token in answer.tokens]
        return json_response(shown if isinstance(body, list) else shown[0])

    @router.get("")
    async def list_tokens(
        request: Request,
        run_id: UUID,
        offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 1_000,
    ) -> Response:
        """Lists the tokens of a run that have not expired."""
        message = token_pb.ListFeedbackTokensRequest(run_id=str(run_id), offset=offset, page_size=limit)
        answer = await store.ask(tokens.ListFeedbackTokens, message, credentials_of(request.headers))
        return json_response([_show_token(token, str(request.base_url)) for token in answer.tokens])

    async def use(token: UUID, judgement: _Judgement) -> Response:
        message = token_pb.UseFeedbackTokenRequest(
            token=str(token),
            score=judgement.score,
            value=_json(judgement.value),
            comment=judgement.comment,
            correction=_json(judgement.correction),
            metadata=_json(judgement.metadata),
        )
        answer = await store.ask(tokens.UseFeedbackToken, message, ())
        return json_response({"id": answer.feedback_id, "message": "Feedback created"})

    @router.post("/{token}", responses=_NOT_FOUND)
    async def use_token(token: UUID, body: _Judgement) -> Response:
        """Judges the run of a token, without credentials; each use is a new record."""
        return await use(token, body)

    @router.get("/{token}", responses=_NOT_FOUND)
    async def follow_link(token: UUID, query: Annotated[_JudgementQuery, Query()]) -> Response:
        """Judges the run of a token, as a link."""
        return await use(token, _Judgement(**query.model_dump()))

    return router


def feedback_config_routes(store: StoreClient) -> GuardedRouter:
    """The routes of configurations."""
    router = GuardedRouter(prefix="/feedback-configs", tags=["Feedback"])
    configs = store.feedback_configs

    @router.post("", responses=_TAKEN)
    async def create_config(request: Request, body: _ConfigCreate) -> Response:
        """Says what a key means; saying the same again changes nothing."""
        message = config_pb.CreateFeedbackConfigRequest(
            feedback_key=body.feedback_key,
            config=_encoded(body.feedback_config),
            is_lower_score_better=bool(body.is_lower_score_better),
            is_enforced=bool(body.is_enforced),
        )
        answer = await store.ask(configs.CreateFeedbackConfig, message, credentials_of(request.headers))
        return json_response(_show_config(answer.config))

    @router.get("")
    async def list_configs(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists what keys mean, by key."""
        message = config_pb.ListFeedbackConfigsRequest(
            feedback_keys=query.key,
            name_contains=query.name_contains,
            offset=query.offset,
            page_size=query.limit,
        )
        answer = await store.ask(configs.ListFeedbackConfigs, message, credentials_of(request.headers))
        return json_response([_show_config(config) for config in answer.configs])

    @router.patch("", responses=_NOT_FOUND)
    async def update_config(request: Request, body: _ConfigUpdate) -> Response:
        """Changes what a key means; null and absent keys keep what is there."""
        message = config_pb.UpdateFeedbackConfigRequest(
            feedback_key=body.feedback_key,
            config=None if body.feedback_config is None else _encoded(body.feedback_config),
            is_lower_score_better=body.is_lower_score_better,
            is_enforced=body.is_enforced,
        )
        answer = await store.ask(configs.UpdateFeedbackConfig, message, credentials_of(request.headers))
        return json_response(_show_config(answer.config))

    @router.delete("", status_code=204, responses=_NOT_FOUND)
    async def delete_config(request: Request, feedback_key: str) -> Response:
        """Deletes what a key means; feedback stays."""
        message = config_pb.DeleteFeedbackConfigRequest(feedback_key=feedback_key)
        await store.ask(configs.DeleteFeedbackConfig, message, credentials_of(request.headers))
        return Response(status_code=204)

    return router


async def _ensure_config(store: StoreClient, body: _TokenCreate, credentials: Credentials) -> None:
    """Stores what the key means, unless it means something already."""
    if body.feedback_config is None:
        return
    message = config_pb.CreateFeedbackConfigRequest(
        feedback_key=body.feedback_key, config=_encoded(body.feedback_config)
    )
    try:
        await store.ask(store.feedback_configs.CreateFeedbackConfig, message, credentials)
    except RunstoreError as error:
        if error.reason is not ErrorReason.ALREADY_EXISTS:
            raise


def _token(body: _TokenCreate) -> token_pb.FeedbackToken:
    message = token_pb.FeedbackToken(
        id="" if body.id is None else str(body.id), run_id=str(body.run_id), feedback_key=body.feedback_key
    )
    if body.expires_at is not None:
        message.expire_time.CopyFrom(to_timestamp(body.expires_at))
    elif body.expires_in is not None:
        lifetime = body.expires_in
        minutes = (lifetime.days * 24 + lifetime.hours) * 60 + lifetime.minutes
        if not minutes:
            raise invalid("expires_in", "must be longer than nothing")
        message.expire_time.CopyFrom(to_timestamp(time.time_ns() // 1_000 + minutes * 60_000_000))
    return message


def _show_token(token: token_pb.FeedbackToken, base_url: str) -> dict[str, Any]:
    return {
        "id": token.id,
        "url": f"{base_url}feedback/tokens/{token.id}",
        "expires_at": format_time(to_time_us(token.expire_time)),
        "feedback_key": token.feedback_key,
    }


def _show_config(config: config_pb.FeedbackConfig) -> dict[str, Any]:
    return {
        "id": config.id,
        "tenant_id": config.tenant_id,
        "feedback_key": config.feedback_key,
        "feedback_config": msgspec.Raw(config.config),
        "is_lower_score_better": config.is_lower_score_better,
        "is_enforced": config.is_enforced,
        "modified_at": format_time(to_time_us(config.update_time)),
    }


def _encoded(meaning: _Meaning) -> bytes:
    return msgspec.json.encode(meaning.model_dump(exclude_none=True))


def _json(content: Any) -> bytes | None:
    return None if content is None else msgspec.json.encode(content)
