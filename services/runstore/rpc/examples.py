"""Serves `ExampleService`."""

import uuid
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.datasets import DatasetCatalog
from runstore.catalog.examples import ExampleCatalog
from runstore.catalog.texts import check_name, json_object
from runstore.domain.blob_refs import pack
from runstore.domain.datasets import Dataset
from runstore.domain.errors import invalid
from runstore.domain.examples import (
    Example,
    ExampleChange,
    ExampleFile,
    ExampleFilter,
    ExampleOrder,
    FileOperations,
)
from runstore.ingest.example_contents import OFFLOADED_BYTES, ExampleContents, check_file_name, reference
from runstore.ingest.validation import uuid_text
from runstore.query.example_filters import parse_example_filter
from runstore.query.read_tokens import ReadTokens
from runstore.rpc.authentication import current_principal
from runstore.rpc.dataset_messages import example_message, version_name
from runstore.rpc.datasets import page
from runstore.rpc.mapping import ids, optional_time_us, set_time
from runstore.rpc.retention import Keeps
from runstore.rpc.source_runs import SourceRuns
from runstore.v1 import example_service_pb2 as pb
from runstore.v1 import example_service_pb2_grpc

_PAYLOADS: Final = ("inputs", "outputs")
_ORDERS: Final = {
    pb.EXAMPLE_ORDER_UNSPECIFIED: ExampleOrder.RECENT,
    pb.EXAMPLE_ORDER_RECENT: ExampleOrder.RECENT,
    pb.EXAMPLE_ORDER_CREATED: ExampleOrder.CREATED,
    pb.EXAMPLE_ORDER_ID: ExampleOrder.ID,
    pb.EXAMPLE_ORDER_RANDOM: ExampleOrder.RANDOM,
}
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ExampleServicer(example_service_pb2_grpc.ExampleServiceServicer):
    """Maps example calls to the catalog; their files and large contents to the blob store."""

    def __init__(
        self,
        datasets: DatasetCatalog,
        examples: ExampleCatalog,
        contents: ExampleContents,
        sources: SourceRuns,
        read_tokens: ReadTokens,
        keeps: Keeps,
    ) -> None:
        self._datasets = datasets
        self._examples = examples
        self._contents = contents
        self._sources = sources
        self._read_tokens = read_tokens
        self._keeps = keeps

    async def WriteExamples(
        self, request: pb.WriteExamplesRequest, context: _Context
    ) -> pb.WriteExamplesResponse:
        tenant_id = current_principal.get().tenant_id
        dataset = await self._datasets.get(tenant_id, uuid_text("dataset_id", request.dataset_id))
        for given in request.changes:
            await self._sources.fill(tenant_id, given)
        changes = [await self._change(given, dataset) for given in request.changes]
        # After everything is checked: a refused request leaves nothing behind.
        await self._offload(tenant_id, request.changes, changes)
        sources = {change.source_run_id for change in changes if change.source_run_id is not None}
        if sources:
            await self._keeps.write_keep(tenant_id, run_ids=sorted(sources))
        version_us = await self._examples.write(tenant_id, dataset.id, changes)
        response = pb.WriteExamplesResponse(example_ids=[change.id for change in changes])
        set_time(response.as_of, version_us)
        return response

    async def GetExample(self, request: pb.GetExampleRequest, context: _Context) -> pb.GetExampleResponse:
        tenant_id = current_principal.get().tenant_id
        found = await self._examples.get(
            tenant_id, uuid_text("id", request.id), version_name(request.version), _dataset(request)
        )
        [message] = await self.messages(tenant_id, [found])
        return pb.GetExampleResponse(example=message)

    async def ListExamples(
        self, request: pb.ListExamplesRequest, context: _Context
    ) -> pb.ListExamplesResponse:
        tenant_id = current_principal.get().tenant_id
        found = await self._examples.list(tenant_id, example_filter(request))
        return pb.ListExamplesResponse(examples=await self.messages(tenant_id, found))

    async def DeleteExamples(
        self, request: pb.DeleteExamplesRequest, context: _Context
    ) -> pb.DeleteExamplesResponse:
        tenant_id = current_principal.get().tenant_id
        example_ids = ids("ids", request.ids)
        if not request.hard:
            await self._examples.delete(tenant_id, example_ids, dataset_id=_dataset(request))
            return pb.DeleteExamplesResponse(ids=example_ids)
        erased, unused = await self._examples.erase(tenant_id, example_ids, dataset_id=_dataset(request))
        await self._contents.delete(tenant_id, unused)
        return pb.DeleteExamplesResponse(ids=erased)

    async def messages(self, tenant_id: str, found: Sequence[Example]) -> list[pb.Example]:
        """The examples as messages."""
        names = await self._datasets.names(tenant_id, {example.dataset_id for example in found})
        return [
            example_message(example, names.get(example.dataset_id, ""), self._read_tokens)
            for example in found
        ]

    async def _change(self, given: pb.ExampleChange, dataset: Dataset) -> ExampleChange:
        """A change, checked, but for what `_offload` puts into the blob store."""
        created_at_us = optional_time_us(given, "create_time")
        change = ExampleChange(
            id=uuid_text("id", given.id) if given.id or not given.create else str(uuid.uuid4()),
            is_create=given.create,
            is_upsert=given.upsert,
            metadata=(
                self._contents.checked("metadata", given.metadata, None)
                if given.HasField("metadata")
                else None
            ),
            splits=tuple(given.splits.names) if given.HasField("splits") else None,
            source_run_id=uuid_text("source_run_id", given.source_run_id) if given.source_run_id else None,
            created_at_us=created_at_us,
            file_operations=_operations(given),
        )
        if given.HasField("metadata"):
            change.metadata = self._contents.checked("metadata", given.metadata, None)
        for split in change.splits or ():
            check_name("split", split)
        for field in _PAYLOADS:
            schema = getattr(dataset, f"{field}_schema")
            if field in given.uploaded:
                token = given.uploaded[field]
                column = await self._contents.uploaded_payload(dataset.tenant_id, field, token, schema)
                setattr(change, field, column)
            elif given.HasField(field):
                setattr(change, field, self._contents.checked(field, getattr(given, field), schema))
        names = [file.name for file in given.files]
        for name in (*names, *given.attachments_operations.rename.values()):
            check_file_name(name)
        if len(set(names)) < len(names):
            raise invalid("attachment", "two files of the same name")
        return change

    async def _offload(
        self, tenant_id: str, given: Sequence[pb.ExampleChange], changes: Sequence[ExampleChange]
    ) -> None:
        """Puts what came inline and is large, or a file, into the blob store."""
        large = [
            (change, field)
            for change in changes
            for field in _PAYLOADS
            if (raw := getattr(change, field)) is not None
            and len(raw) > OFFLOADED_BYTES
            and reference(raw) is None
        ]
        inline = [file for each in given for file in each.files if not file.upload_token]
        contents = [getattr(change, field) for change, field in large] + [file.content for file in inline]
        refs = iter(await self._contents.put(tenant_id, contents))
        for change, field in large:
            setattr(change, field, pack(next(refs), getattr(change, field)))
        for each, change in zip(given, changes, strict=True):
            files = []
            for file in each.files:
                if file.upload_token:
                    files.append(
                        self._contents.uploaded_file(tenant_id, file.name, file.mime_type, file.upload_token)
                    )
                else:
                    ref = next(refs)
                    files.append(ExampleFile(file.name, file.mime_type, ref.key, ref.size_bytes))
            change.files = tuple(files)
            payloads = (reference(change.inputs), reference(change.outputs))
            change.blob_keys = (
                *(ref.key for ref in payloads if ref is not None),
                *(file.key for file in files),
            )


def example_filter(request: pb.ListExamplesRequest) -> ExampleFilter:
    """What to list. Raises INVALID_ARGUMENT, INVALID_FILTER."""
    offset, limit = page(request)
    if request.order not in _ORDERS:
        raise invalid("order", f"{request.order} is not an order")
    if request.HasField("metadata"):
        json_object("metadata", request.metadata)
    return ExampleFilter(
        dataset_id=_dataset(request),
        ids=ids("ids", request.ids),
        version=version_name(request.version),
        splits=tuple(request.splits),
        metadata=request.metadata if request.HasField("metadata") else None,
        condition=parse_example_filter(request.filter),
        texts=tuple(request.full_text_contains),
        order=_ORDERS[request.order],
        descending=not request.ascending,
        random_seed=request.random_seed,
        offset=offset,
        limit=limit,
    )


def _dataset(request: Any) -> str | None:
    return uuid_text("dataset", request.dataset_id) if request.HasField("dataset_id") else None


def _operations(given: pb.ExampleChange) -> FileOperations | None:
    if not given.HasField("attachments_operations"):
        return None
    operations = given.attachments_operations
    return FileOperations(dict(operations.rename), tuple(operations.retain))
