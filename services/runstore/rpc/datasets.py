"""Serves `DatasetService`."""

import uuid
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.dataset_versions import DatasetVersionCatalog
from runstore.catalog.datasets import DatasetCatalog
from runstore.catalog.examples import ExampleCatalog
from runstore.catalog.texts import check_name
from runstore.domain import json_text
from runstore.domain.datasets import MAX_DATASET_PAGE, Dataset, DatasetFilter, DatasetPatch
from runstore.domain.errors import invalid
from runstore.domain.json_schemas import check_schema
from runstore.ingest.example_contents import ExampleContents
from runstore.ingest.validation import uuid_text
from runstore.rpc.authentication import current_principal
from runstore.rpc.dataset_messages import data_type, dataset_message, version_message, version_name
from runstore.rpc.mapping import ids
from runstore.runtime.clock import Clock
from runstore.v1 import dataset_service_pb2 as pb
from runstore.v1 import dataset_service_pb2_grpc

_DEFAULT_PAGE_SIZE: Final = 100
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Maps dataset calls to the catalog; deletes a dataset's blobs with it."""

    def __init__(
        self,
        datasets: DatasetCatalog,
        versions: DatasetVersionCatalog,
        examples: ExampleCatalog,
        contents: ExampleContents,
        clock: Clock,
    ) -> None:
        self._datasets = datasets
        self._versions = versions
        self._examples = examples
        self._contents = contents
        self._clock = clock

    async def CreateDataset(
        self, request: pb.CreateDatasetRequest, context: _Context
    ) -> pb.CreateDatasetResponse:
        now_us = self._clock.now_us()
        dataset = Dataset(
            id=uuid_text("id", request.id) if request.HasField("id") else str(uuid.uuid4()),
            tenant_id=current_principal.get().tenant_id,
            name=request.name,
            description=request.description if request.HasField("description") else None,
            data_type=data_type(request.type),
            metadata=_json(request, "metadata", b"{") or b"{}",
            inputs_schema=_erased(_schema(request, "inputs_schema")),
            outputs_schema=_erased(_schema(request, "outputs_schema")),
            transformations=_erased(_json(request, "transformations", b"[")),
            created_at_us=now_us,
            modified_at_us=now_us,
        )
        created = await self._datasets.create(
            dataset, tag_value_ids=ids("tag_value_ids", request.tag_value_ids)
        )
        return pb.CreateDatasetResponse(dataset=dataset_message(created))

    async def GetDataset(self, request: pb.GetDatasetRequest, context: _Context) -> pb.GetDatasetResponse:
        tenant_id = current_principal.get().tenant_id
        dataset = await self._datasets.get(tenant_id, uuid_text("id", request.id))
        return pb.GetDatasetResponse(dataset=dataset_message(dataset))

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: _Context
    ) -> pb.ListDatasetsResponse:
        offset, limit = page(request)
        condition = DatasetFilter(
            ids=ids("ids", request.ids),
            data_types=tuple(data_type(number) for number in request.types),
            name=request.name if request.HasField("name") else None,
            name_contains=request.name_contains if request.HasField("name_contains") else None,
            metadata=_json(request, "metadata", b"{"),
            tag_value_ids=ids("tag_value_ids", request.tag_value_ids),
            by_last_experiment=request.by_last_experiment,
            descending=not request.ascending,
            offset=offset,
            limit=limit,
        )
        found = await self._datasets.list(current_principal.get().tenant_id, condition)
        return pb.ListDatasetsResponse(datasets=map(dataset_message, found))

    async def UpdateDataset(
        self, request: pb.UpdateDatasetRequest, context: _Context
    ) -> pb.UpdateDatasetResponse:
        patch = DatasetPatch(
            name=request.name if request.HasField("name") else None,
            description=request.description if request.HasField("description") else None,
            metadata=_json(request, "metadata", b"{"),
            inputs_schema=_schema(request, "inputs_schema"),
            outputs_schema=_schema(request, "outputs_schema"),
            transformations=_json(request, "transformations", b"["),
        )
        tenant_id = current_principal.get().tenant_id
        dataset = await self._datasets.update(tenant_id, uuid_text("id", request.id), patch)
        return pb.UpdateDatasetResponse(dataset=dataset_message(dataset))

    async def DeleteDataset(
        self, request: pb.DeleteDatasetRequest, context: _Context
    ) -> pb.DeleteDatasetResponse:
        tenant_id = current_principal.get().tenant_id
        unused = await self._datasets.delete(tenant_id, uuid_text("id", request.id))
        await self._contents.delete(tenant_id, unused)
        return pb.DeleteDatasetResponse()

    async def ListDatasetVersions(
        self, request: pb.ListDatasetVersionsRequest, context: _Context
    ) -> pb.ListDatasetVersionsResponse:
        offset, limit = page(request)
        found = await self._versions.list(
            current_principal.get().tenant_id,
            uuid_text("dataset_id", request.dataset_id),
            search=request.search if request.HasField("search") else None,
            offset=offset,
            limit=limit,
        )
        return pb.ListDatasetVersionsResponse(versions=map(version_message, found))

    async def GetDatasetVersion(
        self, request: pb.GetDatasetVersionRequest, context: _Context
    ) -> pb.GetDatasetVersionResponse:
        tenant_id, dataset_id = _place(request)
        found = await self._versions.get(tenant_id, dataset_id, version_name(request.version))
        return pb.GetDatasetVersionResponse(version=version_message(found))

    async def TagDatasetVersion(
        self, request: pb.TagDatasetVersionRequest, context: _Context
    ) -> pb.TagDatasetVersionResponse:
        tenant_id, dataset_id = _place(request)
        found = await self._versions.tag(tenant_id, dataset_id, version_name(request.version), request.tag)
        return pb.TagDatasetVersionResponse(version=version_message(found))

    async def DiffDatasetVersions(
        self, request: pb.DiffDatasetVersionsRequest, context: _Context
    ) -> pb.DiffDatasetVersionsResponse:
        tenant_id, dataset_id = _place(request)
        before, after = version_name(request.from_version), version_name(request.to_version)
        found = await self._versions.diff(tenant_id, dataset_id, before, after)
        return pb.DiffDatasetVersionsResponse(
            modified_ids=found.modified, added_ids=found.added, removed_ids=found.removed
        )

    async def ListDatasetSplits(
        self, request: pb.ListDatasetSplitsRequest, context: _Context
    ) -> pb.ListDatasetSplitsResponse:
        tenant_id, dataset_id = _place(request)
        found = await self._examples.splits(tenant_id, dataset_id, version_name(request.version))
        return pb.ListDatasetSplitsResponse(splits=found)

    async def UpdateDatasetSplit(
        self, request: pb.UpdateDatasetSplitRequest, context: _Context
    ) -> pb.UpdateDatasetSplitResponse:
        check_name("split", request.split)
        tenant_id, dataset_id = _place(request)
        example_ids = ids("example_ids", request.example_ids)
        moved = await self._examples.move(
            tenant_id, dataset_id, request.split, example_ids, remove=request.remove
        )
        return pb.UpdateDatasetSplitResponse(example_ids=moved)


def page(request: Any) -> tuple[int, int]:
    """Offset and limit of a list. Raises INVALID_ARGUMENT for negative ones."""
    for field in ("offset", "page_size"):
        if getattr(request, field) < 0:
            raise invalid(field, "must not be negative")
    return request.offset, min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_DATASET_PAGE)


def _place(request: Any) -> tuple[str, str]:
    return current_principal.get().tenant_id, uuid_text("dataset_id", request.dataset_id)


def _schema(request: Any, field: str) -> bytes | None:
    schema = _json(request, field, b"{")
    if schema is not None and schema != b"null":
        check_schema(field, schema)
    return schema


def _json(request: Any, field: str, opening: bytes) -> bytes | None:
    """The JSON of a field; None when it is absent. Raises INVALID_ARGUMENT unless it is null or opens so."""
    if not request.HasField(field):
        return None
    raw: bytes = getattr(request, field).strip()
    json_text.check(field, raw)
    if raw[:1] != opening and raw != b"null":
        raise invalid(field, "must be a JSON object" if opening == b"{" else "must be a JSON array")
    return json_text.replace_lone_surrogates(raw)


def _erased(raw: bytes | None) -> bytes | None:
    return None if raw == b"null" else raw
