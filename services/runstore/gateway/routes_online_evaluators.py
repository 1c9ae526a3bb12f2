"""The routes of evaluators, which are kept and never run here (contract resources, section 8)."""

from datetime import date, timedelta
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.times import format_time
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import online_evaluator_service_pb2 as pb
from runstore.v1 import tenant_service_pb2

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TYPES: Final = {
    "code": pb.ONLINE_EVALUATOR_TYPE_CODE,
    "llm": pb.ONLINE_EVALUATOR_TYPE_LLM,
}
_TYPE_NAMES: Final = {number: name for name, number in _TYPES.items()}
_ORDERS: Final = {
    "created_at": pb.ONLINE_EVALUATOR_ORDER_CREATED,
    "updated_at": pb.ONLINE_EVALUATOR_ORDER_UPDATED,
    "name": pb.ONLINE_EVALUATOR_ORDER_NAME,
}
_SPEND_DAYS: Final = 7


class _Managed(BaseModel):
    is_enabled: bool | None = None
    key_name: str | None = None


class _CodeEvaluator(BaseModel):
    """A function; what is absent stays."""

    code: str | None = None
    language: str | None = None
    dependencies: str | None = None
    code_evaluator_input: (
        Literal["thread", "all_messages", "human_ai_pairs", "first_human_last_ai", "trajectory"] | None
    ) = None
    advanced_features_enabled: bool | None = None
    require_attachments: bool | None = None
    managed_code_evaluator_key: Literal["voice_metrics"] | None = None
    managed_code_evaluator_settings: dict[str, _Managed] | None = None
    workspace_secrets_keys: list[str] | None = None


class _LlmEvaluator(BaseModel):
    """A prompt for a language model; what is absent stays."""

    prompt_repo_handle: str | None = None
    commit_hash_or_tag: str | None = None
    playground_settings_id: str | None = None
    variable_mapping: Any = None
    num_few_shot_examples: int | None = None
    use_corrections_dataset: bool | None = None


class _Definition(BaseModel):
    name: str | None = None
    code_evaluator: _CodeEvaluator | None = None
    llm_evaluator: _LlmEvaluator | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.code_evaluator is not None and self.llm_evaluator is not None:
            raise PydanticCustomError("one_of", "only one of code_evaluator and llm_evaluator can be given")
        return self

    @property
    def given(self) -> "tuple[pb.OnlineEvaluatorType.ValueType, bytes] | None":
        """The type and keys of the definition that is given."""
        for kind, part in (("code", self.code_evaluator), ("llm", self.llm_evaluator)):
            if part is not None:
                return _TYPES[kind], msgspec.json.encode(part.model_dump(exclude_unset=True))
        return None


class _Create(_Definition):
    name: str
    type: Literal["code", "llm"]

    @model_validator(mode="after")
    def _of_its_type(self) -> Self:
        if self.given is None or self.given[0] != _TYPES[self.type]:
            raise PydanticCustomError("missing", f"{self.type}_evaluator is missing")
        if self.code_evaluator is not None and not self.code_evaluator.code:
            raise PydanticCustomError("missing", "code_evaluator.code is missing")
        if self.llm_evaluator is not None and not self.llm_evaluator.prompt_repo_handle:
            raise PydanticCustomError("missing", "llm_evaluator.prompt_repo_handle is missing")
        return self


class _ListQuery(BaseModel):
    """Query parameters of the list; all conditions hold together."""

    name_contains: str | None = Field(None, description="Part of the name, in any case.")
    type: Literal["code", "llm", "decision_model"] | None = None
    feedback_key: str | None = Field(None, description="Evaluators that do not run give none.")
    resource_id: list[UUID] = Field(default=[], description="No evaluator is attached to anything.")
    agent_id: str | None = Field(None, description="As `resource_id`.")
    tag_value_id: list[UUID] = Field(default=[], description="No evaluator has tags.")
    sort_by: Literal["created_at", "updated_at", "name"] = "created_at"
    sort_by_desc: bool = True
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)

    @property
    def finds_nothing(self) -> bool:
        """Whether it asks for what no evaluator here has."""
        asked = (self.feedback_key, self.resource_id, self.agent_id, self.tag_value_id)
        return any(asked) or self.type == "decision_model"


class _SpendQuery(BaseModel):
    """Query parameters of the costs; what they narrow is nothing."""

    period_start: date
    group_by: Literal["evaluator", "resource", "run_rule"] | None = None
    evaluator_id: UUID | None = None
    session_id: UUID | None = None
    dataset_id: UUID | None = None

    @model_validator(mode="after")
    def _one_of_all(self) -> Self:
        asked = (self.group_by, self.evaluator_id, self.session_id, self.dataset_id)
        if sum(each is not None for each in asked) != 1:
            raise PydanticCustomError(
                "one_of", "exactly one of group_by, evaluator_id, session_id and dataset_id is needed"
            )
        return self


def online_evaluator_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the evaluators of `store`."""
    router = GuardedRouter(prefix="/v1/platform/evaluators", tags=["Evaluators"])
    _add_lists(router, store)
    _add_single(router, store)
    return router


def _add_lists(router: GuardedRouter, store: StoreClient) -> None:
    evaluators = store.online_evaluators

    @router.get("")
    async def list_evaluators(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists evaluators, the last created first unless told."""
        message = pb.ListOnlineEvaluatorsRequest(
            name_contains=query.name_contains,
            order=_ORDERS[query.sort_by],
            ascending=not query.sort_by_desc,
            offset=query.offset,
            page_size=query.limit,
        )
        if query.type in _TYPES:
            message.type = _TYPES[query.type]
        answer = await store.ask(evaluators.ListOnlineEvaluators, message, credentials_of(request.headers))
        if query.finds_nothing:
            return json_response({"evaluators": [], "total": 0})
        shown = [_show(each) for each in answer.evaluators]
        return json_response({"evaluators": shown, "total": answer.total_size})

    @router.delete("")
    async def delete_evaluators(
        request: Request,
        evaluator_ids: Annotated[list[UUID], Query(min_length=1, max_length=1_000)],
        delete_run_rules: bool = False,  # noqa: ARG001, FBT001, FBT002 - there are none
    ) -> Response:
        """Deletes evaluators; says which of them there were."""
        message = pb.DeleteOnlineEvaluatorsRequest(ids=map(str, evaluator_ids))
        answer = await store.ask(evaluators.DeleteOnlineEvaluators, message, credentials_of(request.headers))
        gone = set(answer.ids)
        missing = [str(each) for each in evaluator_ids if str(each) not in gone]
        return json_response(
            {
                "succeeded": [str(each) for each in evaluator_ids if str(each) in gone],
                "failed": [{"id": each, "error": "no evaluator with this id"} for each in missing],
            }
        )

    @router.get("/spend")
    async def read_spend(request: Request, query: Annotated[_SpendQuery, Query()]) -> Response:
        """Says what evaluators have cost: nothing, for none runs."""
        await store.ask(
            store.tenants.GetTenant, tenant_service_pb2.GetTenantRequest(), credentials_of(request.headers)
        )
        end = query.period_start + timedelta(days=_SPEND_DAYS)
        return json_response(
            {"groups": [], "period_start": query.period_start.isoformat(), "period_end": end.isoformat()}
        )


def _add_single(router: GuardedRouter, store: StoreClient) -> None:
    evaluators = store.online_evaluators

    @router.post("", status_code=201)
    async def create_evaluator(request: Request, body: _Create) -> Response:
        """Creates an evaluator."""
        kind, definition = body.given or (_TYPES[body.type], b"{}")
        message = pb.CreateOnlineEvaluatorRequest(name=body.name, type=kind, definition=definition)
        answer = await store.ask(evaluators.CreateOnlineEvaluator, message, credentials_of(request.headers))
        return json_response({"evaluator": _show(answer.evaluator)}, 201)

    @router.get("/{evaluator_id}", responses=_NOT_FOUND)
    async def read_evaluator(request: Request, evaluator_id: UUID) -> Response:
        """Reads an evaluator."""
        message = pb.GetOnlineEvaluatorRequest(id=str(evaluator_id))
        answer = await store.ask(evaluators.GetOnlineEvaluator, message, credentials_of(request.headers))
        return json_response(_show(answer.evaluator))

    @router.patch("/{evaluator_id}", responses=_NOT_FOUND)
    async def update_evaluator(request: Request, evaluator_id: UUID, body: _Definition) -> Response:
        """Changes an evaluator; keys that are absent stay."""
        message = pb.UpdateOnlineEvaluatorRequest(id=str(evaluator_id), name=body.name)
        if body.given is not None:
            message.type, message.definition = body.given
        answer = await store.ask(evaluators.UpdateOnlineEvaluator, message, credentials_of(request.headers))
        return json_response({"evaluator": _show(answer.evaluator)})

    @router.delete("/{evaluator_id}", status_code=204, responses=_NOT_FOUND)
    async def delete_evaluator(
        request: Request,
        evaluator_id: UUID,
        delete_run_rules: bool = False,  # noqa: ARG001, FBT001, FBT002 - there are none
    ) -> Response:
        """Deletes an evaluator."""
        message = pb.DeleteOnlineEvaluatorsRequest(ids=[str(evaluator_id)])
        answer = await store.ask(evaluators.DeleteOnlineEvaluators, message, credentials_of(request.headers))
        if not answer.ids:
            raise RunstoreError(
                ErrorReason.NOT_FOUND, f"no evaluator with id {evaluator_id}", field="evaluator_id"
            )
        return Response(status_code=204)


def _show(evaluator: pb.OnlineEvaluator) -> dict[str, Any]:
    kind = _TYPE_NAMES[evaluator.type]
    definition = msgspec.json.decode(evaluator.definition, type=dict[str, msgspec.Raw])
    return {
        "id": evaluator.id,
        "tenant_id": evaluator.tenant_id,
        "name": evaluator.name,
        "type": kind,
        **{f"{each}_evaluator": None for each in _TYPES},
        f"{kind}_evaluator": {"evaluator_id": evaluator.id, **definition},
        "feedback_keys": [],
        "run_rules": [],
        "is_managed": False,
        "created_by": None,
        "created_at": format_time(to_time_us(evaluator.create_time)),
        "updated_at": format_time(to_time_us(evaluator.update_time)),
    }
