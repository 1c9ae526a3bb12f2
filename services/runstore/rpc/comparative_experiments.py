"""Serves `ComparativeExperimentService`."""

import uuid
from typing import Any, TypeAlias

import grpc

from runstore.catalog.comparative_experiments import ComparativeExperimentCatalog
from runstore.domain import json_text
from runstore.domain.comparative_experiments import ComparativeExperiment, ComparativeFilter
from runstore.domain.errors import invalid
from runstore.ingest.validation import uuid_text
from runstore.rpc.authentication import current_principal
from runstore.rpc.datasets import page
from runstore.rpc.mapping import ids, optional_time_us, set_time
from runstore.runtime.clock import Clock
from runstore.v1 import comparative_experiment_service_pb2 as pb
from runstore.v1 import comparative_experiment_service_pb2_grpc as pb_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ComparativeExperimentServicer(pb_grpc.ComparativeExperimentServiceServicer):
    """Maps calls about comparisons to the catalog."""

    def __init__(self, comparisons: ComparativeExperimentCatalog, clock: Clock) -> None:
        self._comparisons = comparisons
        self._clock = clock

    async def CreateComparativeExperiment(
        self, request: pb.CreateComparativeExperimentRequest, context: _Context
    ) -> pb.CreateComparativeExperimentResponse:
        now_us = self._clock.now_us()
        created_at_us = optional_time_us(request, "create_time")
        if not request.experiment_ids:
            raise invalid("experiment_ids", "names no experiment")
        extra = request.extra if request.HasField("extra") else b"{}"
        json_text.check("extra", extra)
        if not extra.lstrip().startswith(b"{"):
            raise invalid("extra", "must be a JSON object")
        comparison = ComparativeExperiment(
            id=uuid_text("id", request.id) if request.HasField("id") else str(uuid.uuid4()),
            tenant_id=current_principal.get().tenant_id,
            dataset_id=uuid_text("reference_dataset_id", request.reference_dataset_id),
            name=request.name,
            description=request.description if request.HasField("description") else None,
            experiment_ids=ids("experiment_ids", request.experiment_ids),
            extra=json_text.replace_lone_surrogates(extra),
            created_at_us=now_us if created_at_us is None else created_at_us,
            modified_at_us=now_us,
        )
        await self._comparisons.create(comparison)
        return pb.CreateComparativeExperimentResponse(comparative_experiment=_message(comparison))

    async def ListComparativeExperiments(
        self, request: pb.ListComparativeExperimentsRequest, context: _Context
    ) -> pb.ListComparativeExperimentsResponse:
        offset, limit = page(request)
        condition = ComparativeFilter(
            dataset_id=uuid_text("reference_dataset_id", request.reference_dataset_id),
            ids=ids("ids", request.ids),
            name=request.name if request.HasField("name") else None,
            name_contains=request.name_contains if request.HasField("name_contains") else None,
            offset=offset,
            limit=limit,
        )
        found = await self._comparisons.list(current_principal.get().tenant_id, condition)
        return pb.ListComparativeExperimentsResponse(comparative_experiments=map(_message, found))

    async def DeleteComparativeExperiment(
        self, request: pb.DeleteComparativeExperimentRequest, context: _Context
    ) -> pb.DeleteComparativeExperimentResponse:
        await self._comparisons.delete(current_principal.get().tenant_id, uuid_text("id", request.id))
        return pb.DeleteComparativeExperimentResponse()


def _message(comparison: ComparativeExperiment) -> pb.ComparativeExperiment:
    message = pb.ComparativeExperiment(
        id=comparison.id,
        tenant_id=comparison.tenant_id,
        name=comparison.name,
        description=comparison.description,
        reference_dataset_id=comparison.dataset_id,
        experiment_ids=comparison.experiment_ids,
        extra=comparison.extra,
    )
    set_time(message.create_time, comparison.created_at_us)
    set_time(message.update_time, comparison.modified_at_us)
    return message
