"""Serves `FeedbackTokenService` and `FeedbackConfigService`."""

import uuid
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.feedback_setup import FeedbackConfigCatalog, FeedbackTokenCatalog
from runstore.domain.errors import invalid
from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.feedback_setup import FeedbackConfig, FeedbackConfigPatch, FeedbackToken
from runstore.ingest.ingest_feedback import IngestFeedback
from runstore.ingest.validation import uuid_text
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import optional_time_us, set_time
from runstore.runtime.clock import Clock
from runstore.v1 import feedback_config_service_pb2 as config_pb
from runstore.v1 import feedback_config_service_pb2_grpc, feedback_token_service_pb2_grpc
from runstore.v1 import feedback_token_service_pb2 as token_pb

MAX_TOKENS: Final = 1_000
_DEFAULT_LIFETIME_US: Final = 3 * 3_600 * 1_000_000
_DEFAULT_PAGE_SIZE: Final = 100
_SOURCE_TYPE: Final = "api"

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class FeedbackTokenServicer(feedback_token_service_pb2_grpc.FeedbackTokenServiceServicer):
    """Makes tokens; writes feedback for whoever uses one."""

    def __init__(self, tokens: FeedbackTokenCatalog, ingest: IngestFeedback, clock: Clock) -> None:
        self._tokens = tokens
        self._ingest = ingest
        self._clock = clock

    async def CreateFeedbackTokens(
        self, request: token_pb.CreateFeedbackTokensRequest, context: _Context
    ) -> token_pb.CreateFeedbackTokensResponse:
        if not 0 < len(request.tokens) <= MAX_TOKENS:
            raise invalid("tokens", f"1 to {MAX_TOKENS} are needed")
        now_us = self._clock.now_us()
        tokens = [
            FeedbackToken(
                id=uuid_text(f"tokens[{index}].id", token.id) if token.id else str(uuid.uuid4()),
                tenant_id=current_principal.get().tenant_id,
                run_id=uuid_text(f"tokens[{index}].run_id", token.run_id),
                feedback_key=token.feedback_key,
                created_at_us=now_us,
                expires_at_us=_expires_at_us(token, now_us),
            )
            for index, token in enumerate(request.tokens)
        ]
        await self._tokens.create(tokens)
        return token_pb.CreateFeedbackTokensResponse(tokens=map(_token_message, tokens))

    async def ListFeedbackTokens(
        self, request: token_pb.ListFeedbackTokensRequest, context: _Context
    ) -> token_pb.ListFeedbackTokensResponse:
        _check_page(request)
        tokens = await self._tokens.list(
            current_principal.get().tenant_id,
            uuid_text("run_id", request.run_id),
            offset=request.offset,
            limit=min(request.page_size or MAX_TOKENS, MAX_TOKENS),
        )
        return token_pb.ListFeedbackTokensResponse(tokens=map(_token_message, tokens))

    async def UseFeedbackToken(
        self, request: token_pb.UseFeedbackTokenRequest, context: _Context
    ) -> token_pb.UseFeedbackTokenResponse:
        token = await self._tokens.find(uuid_text("token", request.token))
        feedback_id, now_us = str(uuid.uuid4()), self._clock.now_us()
        patch = FeedbackPatch(
            token.tenant_id,
            feedback_id,
            token.run_id,
            FeedbackAction.CREATE,
            created_at_us=now_us,
            modified_at_us=now_us,
            key=token.feedback_key,
            error=False,
            source_type=_SOURCE_TYPE,
            source_metadata=request.metadata if request.HasField("metadata") else None,
            score=request.score if request.HasField("score") else None,
            value=request.value if request.HasField("value") else None,
            comment=request.comment if request.HasField("comment") else None,
            correction=request.correction if request.HasField("correction") else None,
        )
        _, refused = await self._ingest.create([patch])
        for error in refused.values():
            raise error
        return token_pb.UseFeedbackTokenResponse(feedback_id=feedback_id)


class FeedbackConfigServicer(feedback_config_service_pb2_grpc.FeedbackConfigServiceServicer):
    """Maps calls to the catalog."""

    def __init__(self, configs: FeedbackConfigCatalog, clock: Clock) -> None:
        self._configs = configs
        self._clock = clock

    async def CreateFeedbackConfig(
        self, request: config_pb.CreateFeedbackConfigRequest, context: _Context
    ) -> config_pb.CreateFeedbackConfigResponse:
        config = FeedbackConfig(
            id=str(uuid.uuid4()),
            tenant_id=current_principal.get().tenant_id,
            feedback_key=request.feedback_key,
            config=request.config,
            is_lower_score_better=request.is_lower_score_better,
            is_enforced=request.is_enforced,
            modified_at_us=self._clock.now_us(),
        )
        created = await self._configs.create(config)
        return config_pb.CreateFeedbackConfigResponse(config=_config_message(created))

    async def ListFeedbackConfigs(
        self, request: config_pb.ListFeedbackConfigsRequest, context: _Context
    ) -> config_pb.ListFeedbackConfigsResponse:
        _check_page(request)
        configs = await self._configs.list(
            current_principal.get().tenant_id,
            keys=request.feedback_keys,
            name_contains=request.name_contains if request.HasField("name_contains") else None,
            offset=request.offset,
            limit=request.page_size or _DEFAULT_PAGE_SIZE,
        )
        return config_pb.ListFeedbackConfigsResponse(configs=map(_config_message, configs))

    async def UpdateFeedbackConfig(
        self, request: config_pb.UpdateFeedbackConfigRequest, context: _Context
    ) -> config_pb.UpdateFeedbackConfigResponse:
        is_lower = request.is_lower_score_better
        patch = FeedbackConfigPatch(
            config=request.config if request.HasField("config") else None,
            is_lower_score_better=is_lower if request.HasField("is_lower_score_better") else None,
            is_enforced=request.is_enforced if request.HasField("is_enforced") else None,
        )
        tenant_id = current_principal.get().tenant_id
        updated = await self._configs.update(tenant_id, request.feedback_key, patch)
        return config_pb.UpdateFeedbackConfigResponse(config=_config_message(updated))

    async def DeleteFeedbackConfig(
        self, request: config_pb.DeleteFeedbackConfigRequest, context: _Context
    ) -> config_pb.DeleteFeedbackConfigResponse:
        await self._configs.delete(current_principal.get().tenant_id, request.feedback_key)
        return config_pb.DeleteFeedbackConfigResponse()


def _check_page(request: Any) -> None:
    for field in ("offset", "page_size"):
        if getattr(request, field) < 0:
            raise invalid(field, "must not be negative")


def _expires_at_us(token: token_pb.FeedbackToken, now_us: int) -> int:
    expires_at_us = optional_time_us(token, "expire_time")
    return now_us + _DEFAULT_LIFETIME_US if expires_at_us is None else expires_at_us


def _token_message(token: FeedbackToken) -> token_pb.FeedbackToken:
    message = token_pb.FeedbackToken(id=token.id, run_id=token.run_id, feedback_key=token.feedback_key)
    set_time(message.expire_time, token.expires_at_us)
    return message


def _config_message(config: FeedbackConfig) -> config_pb.FeedbackConfig:
    message = config_pb.FeedbackConfig(
        id=config.id,
        tenant_id=config.tenant_id,
        feedback_key=config.feedback_key,
        config=config.config,
        is_lower_score_better=config.is_lower_score_better,
        is_enforced=config.is_enforced,
    )
    set_time(message.update_time, config.modified_at_us)
    return message
