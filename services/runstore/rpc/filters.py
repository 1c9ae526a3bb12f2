"""Serves `FilterService`."""

from typing import Any, TypeAlias

import grpc

from runstore.domain.errors import RunstoreError
from runstore.query.binding import parse_condition
from runstore.query.natural_language import NaturalLanguage
from runstore.v1 import filter_service_pb2 as pb
from runstore.v1 import filter_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class FilterServicer(filter_service_pb2_grpc.FilterServiceServicer):
    """Maps filters in and what is wrong with them out."""

    def __init__(self, language: NaturalLanguage) -> None:
        self._language = language

    async def CheckFilters(
        self, request: pb.CheckFiltersRequest, context: _Context
    ) -> pb.CheckFiltersResponse:
        errors = []
        for field in ("filter", "trace_filter", "tree_filter"):
            try:
                parse_condition(getattr(request, field), field)
            except RunstoreError as error:
                errors.append(pb.FilterError(field=field, message=error.message))
        return pb.CheckFiltersResponse(errors=errors)

    async def GenerateFilter(
        self, request: pb.GenerateFilterRequest, context: _Context
    ) -> pb.GenerateFilterResponse:
        text = await self._language.filter_for(request.question, request.feedback_keys)
        return pb.GenerateFilterResponse(filter=text)
