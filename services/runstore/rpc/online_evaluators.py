"""Serves `OnlineEvaluatorService`."""

import uuid
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.online_evaluators import OnlineEvaluatorCatalog
from runstore.domain.errors import invalid
from runstore.domain.online_evaluators import (
    MAX_EVALUATOR_PAGE,
    EvaluatorFilter,
    EvaluatorOrder,
    EvaluatorType,
    OnlineEvaluator,
)
from runstore.ingest.validation import uuid_text
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import ids, set_time
from runstore.runtime.clock import Clock
from runstore.v1 import online_evaluator_service_pb2 as pb
from runstore.v1 import online_evaluator_service_pb2_grpc

MAX_DELETED_IDS: Final = 1_000
_DEFAULT_PAGE_SIZE: Final = 100
_TYPES: Final = {
    pb.ONLINE_EVALUATOR_TYPE_CODE: EvaluatorType.CODE,
    pb.ONLINE_EVALUATOR_TYPE_LLM: EvaluatorType.LLM,
}
_TYPE_NUMBERS: Final = {kind: number for number, kind in _TYPES.items()}
_ORDERS: Final = {
    pb.ONLINE_EVALUATOR_ORDER_UNSPECIFIED: EvaluatorOrder.CREATED,
    pb.ONLINE_EVALUATOR_ORDER_CREATED: EvaluatorOrder.CREATED,
    pb.ONLINE_EVALUATOR_ORDER_UPDATED: EvaluatorOrder.UPDATED,
    pb.ONLINE_EVALUATOR_ORDER_NAME: EvaluatorOrder.NAME,
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class OnlineEvaluatorServicer(online_evaluator_service_pb2_grpc.OnlineEvaluatorServiceServicer):
    """Maps calls to the catalog."""

    def __init__(self, evaluators: OnlineEvaluatorCatalog, clock: Clock) -> None:
        self._evaluators = evaluators
        self._clock = clock

    async def CreateOnlineEvaluator(
        self, request: pb.CreateOnlineEvaluatorRequest, context: _Context
    ) -> pb.CreateOnlineEvaluatorResponse:
        now_us = self._clock.now_us()
        evaluator = OnlineEvaluator(
            id=str(uuid.uuid4()),
            tenant_id=_tenant_id(),
            name=request.name,
            type=_type(request.type),
            definition=request.definition,
            created_at_us=now_us,
            updated_at_us=now_us,
        )
        await self._evaluators.create(evaluator)
        return pb.CreateOnlineEvaluatorResponse(evaluator=_message(evaluator))

    async def GetOnlineEvaluator(
        self, request: pb.GetOnlineEvaluatorRequest, context: _Context
    ) -> pb.GetOnlineEvaluatorResponse:
        evaluator = await self._evaluators.get(_tenant_id(), uuid_text("id", request.id))
        return pb.GetOnlineEvaluatorResponse(evaluator=_message(evaluator))

    async def ListOnlineEvaluators(
        self, request: pb.ListOnlineEvaluatorsRequest, context: _Context
    ) -> pb.ListOnlineEvaluatorsResponse:
        for field in ("offset", "page_size"):
            if getattr(request, field) < 0:
                raise invalid(field, "must not be negative")
        if request.order not in _ORDERS:
            raise invalid("order", f"{request.order} is not an order")
        found, count = await self._evaluators.list(
            _tenant_id(),
            EvaluatorFilter(
                name_contains=request.name_contains if request.HasField("name_contains") else None,
                type=_type(request.type) if request.type else None,
                order=_ORDERS[request.order],
                descending=not request.ascending,
                offset=request.offset,
                limit=min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_EVALUATOR_PAGE),
            ),
        )
        return pb.ListOnlineEvaluatorsResponse(evaluators=map(_message, found), total_size=count)

    async def UpdateOnlineEvaluator(
        self, request: pb.UpdateOnlineEvaluatorRequest, context: _Context
    ) -> pb.UpdateOnlineEvaluatorResponse:
        changed = await self._evaluators.update(
            _tenant_id(),
            uuid_text("id", request.id),
            name=request.name if request.HasField("name") else None,
            definition=(
                (_type(request.type), request.definition) if request.HasField("definition") else None
            ),
        )
        return pb.UpdateOnlineEvaluatorResponse(evaluator=_message(changed))

    async def DeleteOnlineEvaluators(
        self, request: pb.DeleteOnlineEvaluatorsRequest, context: _Context
    ) -> pb.DeleteOnlineEvaluatorsResponse:
        if len(request.ids) > MAX_DELETED_IDS:
            raise invalid("ids", f"more than {MAX_DELETED_IDS}")
        deleted = await self._evaluators.delete(_tenant_id(), ids("ids", request.ids))
        return pb.DeleteOnlineEvaluatorsResponse(ids=deleted)


def _tenant_id() -> str:
    return current_principal.get().tenant_id


def _type(number: "pb.OnlineEvaluatorType.ValueType") -> EvaluatorType:
    if number not in _TYPES:
        raise invalid("type", f"must be one of {', '.join(_TYPES.values())}")
    return _TYPES[number]


def _message(evaluator: OnlineEvaluator) -> pb.OnlineEvaluator:
    message = pb.OnlineEvaluator(
        id=evaluator.id,
        tenant_id=evaluator.tenant_id,
        name=evaluator.name,
        type=_TYPE_NUMBERS[evaluator.type],
        definition=evaluator.definition,
    )
    set_time(message.create_time, evaluator.created_at_us)
    set_time(message.update_time, evaluator.updated_at_us)
    return message
