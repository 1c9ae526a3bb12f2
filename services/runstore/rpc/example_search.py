"""Serves `ExampleSearchService`."""

from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.example_search import ExampleSearch
from runstore.catalog.texts import json_object
from runstore.domain.datasets import MAX_DATASET_PAGE
from runstore.domain.errors import invalid
from runstore.domain.examples import ExampleFilter
from runstore.ingest.validation import uuid_text
from runstore.query.example_filters import parse_example_filter
from runstore.rpc.authentication import current_principal
from runstore.rpc.dataset_sharing import ExampleMessages
from runstore.v1 import example_search_service_pb2 as pb
from runstore.v1 import example_search_service_pb2_grpc as pb_grpc

_DEFAULT_LIMIT: Final = 5
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ExampleSearchServicer(pb_grpc.ExampleSearchServiceServicer):
    """Maps searches to the catalog."""

    def __init__(self, search: ExampleSearch, messages: ExampleMessages) -> None:
        self._search = search
        self._messages = messages

    async def IndexDataset(
        self, request: pb.IndexDatasetRequest, context: _Context
    ) -> pb.IndexDatasetResponse:
        await self._search.enable(*_place(request))
        return pb.IndexDatasetResponse()

    async def SyncDatasetIndex(
        self, request: pb.SyncDatasetIndexRequest, context: _Context
    ) -> pb.SyncDatasetIndexResponse:
        return pb.SyncDatasetIndexResponse(example_count=await self._search.sync(*_place(request)))

    async def SearchExamples(
        self, request: pb.SearchExamplesRequest, context: _Context
    ) -> pb.SearchExamplesResponse:
        tenant_id, dataset_id = _place(request)
        if request.limit < 0:
            raise invalid("limit", "must not be negative")
        json_object("inputs", request.inputs)
        condition = ExampleFilter(dataset_id=dataset_id, condition=parse_example_filter(request.filter))
        limit = min(request.limit or _DEFAULT_LIMIT, MAX_DATASET_PAGE)
        found = await self._search.search(tenant_id, request.inputs, limit, condition)
        return pb.SearchExamplesResponse(examples=await self._messages.messages(tenant_id, found))


def _place(request: Any) -> tuple[str, str]:
    return current_principal.get().tenant_id, uuid_text("dataset_id", request.dataset_id)
